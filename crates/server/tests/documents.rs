//! The documents API over HTTP: reading, making and editing documents as JSON. Whatever is answered is durable, and merges with what people do.

mod common;

use automerge::transaction::Transactable;
use automerge::{AutoCommit, ObjType, ROOT};
use bytes::Bytes;
use common::*;
use highwater_core::DocumentId;
use highwater_storage::{FaultyStore, Pace};
use serde_json::{Value, json};

#[tokio::test]
async fn a_document_is_made_read_edited_and_read_at_earlier_heads() {
    let server = memory_server().await;
    let text = json!({ "title": "Hello", "n": 1, "list": [1, 2], "count": { "$counter": 3 } });
    let made =
        server.http("POST", "/v1/docs?message=first", &[JSON], text.to_string().as_bytes()).await.ok(201);
    let (id, first) = (made.json()["id"].as_str().unwrap().to_owned(), made.json()["heads"][0].clone());
    assert_eq!(made.json()["url"], format!("automerge:{id}"));
    assert_eq!(made.header("location"), Some(&*format!("/v1/docs/{id}")));
    let first = first.as_str().unwrap();
    assert_eq!(made.header("etag"), Some(&*format!("\"{first}\"")));
    let id: DocumentId = id.parse().unwrap();
    let read = server.read(id).await.ok(200);
    assert_eq!((read.json(), read.header("etag")), (text.clone(), made.header("etag")));

    let patch = json!([
        { "op": "test", "path": "/n", "value": 1 },
        { "op": "replace", "path": "/title", "value": "Hello, world" },
        { "op": "increment", "path": "/count", "by": 2 },
        { "op": "splice", "path": "/list", "index": 1, "delete": 0, "insert": ["x"] },
    ]);
    let edited = server.patch(id, &[], patch).await.ok(200);
    let second = edited.json()["hash"].as_str().unwrap().to_owned();
    assert_eq!(edited.json()["heads"], json!([second]));
    let wanted = json!({ "title": "Hello, world", "n": 1, "list": [1, "x", 2], "count": { "$counter": 5 } });
    assert_eq!(server.value(id).await, wanted);
    let then = server.http("GET", &format!("{}?heads={first}", path(id)), &[], b"").await.ok(200);
    assert_eq!((then.json(), then.header("etag")), (text, made.header("etag")));

    let merge = json!({ "n": null, "more": { "a": true } }).to_string();
    let headers = [MERGE, ("prefer", "return=representation")];
    let merged = server.http("PATCH", &path(id), &headers, merge.as_bytes()).await.ok(200);
    assert_eq!(merged.header("preference-applied"), Some("return=representation"));
    assert!(merged.header("highwater-change").is_some());
    let wanted = json!({ "title": "Hello, world", "more": { "a": true }, "list": [1, "x", 2], "count": { "$counter": 5 } });
    assert_eq!(merged.json(), wanted);
    // In vain: no change.
    let nothing = server.http("PATCH", &path(id), &[MERGE], b"{}").await.ok(200);
    assert_eq!(
        (nothing.json()["hash"].clone(), nothing.header("etag")),
        (Value::Null, merged.header("etag"))
    );
    // The file has it all.
    let file = server.http("GET", &path(id), &[("accept", "application/vnd.automerge")], b"").await.ok(200);
    assert_eq!(AutoCommit::load(&file.body).unwrap().get_changes(&[]).len(), 3);
    let then = format!("{}?heads={first}", path(id));
    let file = server.http("GET", &then, &[("accept", "application/vnd.automerge")], b"").await.ok(200);
    assert_eq!(AutoCommit::load(&file.body).unwrap().get_changes(&[]).len(), 1);

    let history = server.http("GET", &format!("{}/history", path(id)), &[], b"").await.ok(200).json();
    let changes = history["changes"].as_array().unwrap();
    assert_eq!(
        (changes.len(), &changes[2]["message"], &changes[1]["hash"]),
        (3, &json!("first"), &json!(second))
    );
    assert!(
        changes
            .iter()
            .all(|change| change["actor"] == changes[0]["actor"] && change["time"].as_i64() > Some(0))
    );
    let head = server.http("HEAD", &path(id), &[], b"").await.ok(200);
    assert_eq!((head.header("etag"), head.header("highwater-changes")), (merged.header("etag"), Some("3")));
    assert!(
        head.body.is_empty() && head.header("highwater-stored-bytes").unwrap().parse::<u64>().unwrap() > 100
    );
    let heads = server.http("GET", &format!("{}/heads", path(id)), &[], b"").await.ok(200).json();
    assert_eq!((&heads["heads"], &heads["changes"]), (&merged_heads(&merged), &json!(3)));
    let diff =
        server.http("GET", &format!("{}/diff?from={first}&to={second}", path(id)), &[], b"").await.ok(200);
    let patches = diff.json()["patches"].clone();
    assert!(
        patches
            .as_array()
            .unwrap()
            .contains(&json!({ "action": "splice", "path": "/title/5", "value": ", world" })),
        "{patches}"
    );
    server.stopped().await.unwrap();
}

/// The heads in an answer's tag.
fn merged_heads(answer: &Answer) -> Value {
    answer.header("etag").unwrap().trim_matches('"').split(',').collect::<Vec<_>>().into()
}

#[tokio::test]
async fn what_is_known_is_not_sent_again() {
    let server = memory_server().await;
    let id = document(1);
    let tag = server.put(id, json!({ "n": 1 })).await.ok(201).header("etag").unwrap().to_owned();
    for method in ["GET", "HEAD"] {
        let answer = server.http(method, &path(id), &[("if-none-match", &tag)], b"").await.ok(304);
        assert!(answer.body.is_empty() && answer.header("etag") == Some(&tag));
    }
    let tag = server.put(id, json!({ "n": 2 })).await.ok(200).header("etag").unwrap().to_owned();
    let old = server.http("GET", &path(id), &[("if-none-match", "\"x\", W/\"y\"")], b"").await.ok(200);
    assert_eq!(old.header("etag"), Some(&*tag));
    server.stopped().await.unwrap();
}

#[tokio::test]
async fn documents_are_made_of_files_or_of_nothing_and_only_once() {
    let server = memory_server().await;
    let empty = server.http("POST", "/v1/docs", &[], b"").await.ok(201).json();
    assert_eq!(server.value(empty["id"].as_str().unwrap().parse().unwrap()).await, json!({}));
    let id = document(1);
    let create = format!("/v1/docs?id=automerge:{id}");
    let mut doc = AutoCommit::new();
    let text = doc.put_object(ROOT, "text", ObjType::Text).unwrap();
    doc.splice_text(&text, 0, 0, "abc").unwrap();
    doc.commit();
    doc.put(ROOT, "n", 1).unwrap();
    let made = server.http("POST", &create, &[AUTOMERGE], &doc.save()).await.ok(201).json();
    assert_eq!(made["heads"], json!([doc.get_heads()[0].to_string()]));
    assert_eq!(server.value(id).await, json!({ "n": 1, "text": "abc" }));
    for (kind, body) in [(JSON, b"{}".to_vec()), (AUTOMERGE, doc.save()), (JSON, Vec::new())] {
        assert_eq!(server.http("POST", &create, &[kind], &body).await.ok(409).code(), "exists");
    }
    // The second of two changes without the first.
    let last = doc.get_last_local_change().unwrap().raw_bytes().to_vec();
    let incomplete = server.http("POST", "/v1/docs", &[AUTOMERGE], &last).await.ok(422);
    assert_eq!(incomplete.code(), "incomplete");
    server.stopped().await.unwrap();
}

/// A request, and the status and code of its answer.
type Wrong<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a str, u16, &'a str);

#[tokio::test]
async fn all_that_is_wrong_with_a_request_is_said_in_one_form() {
    let server = memory_server().await;
    let id = document(1);
    let (there, missing) = (path(id), path(document(2)));
    server.put(id, json!({ "n": 1, "text": "abc" })).await.ok(201);
    let cases: [Wrong; 30] = [
        ("GET", "/v1/docs/nonsense", &[], "", 400, "invalid"),
        ("GET", "/v1/docs/%ff", &[], "", 400, "invalid"),
        ("GET", &missing, &[], "", 404, "no_such_document"),
        ("HEAD", &there, &[("accept", "text/html")], "", 406, ""),
        ("GET", &there, &[("accept", "text/html")], "", 406, "not_acceptable"),
        ("GET", &format!("{there}?head=1"), &[], "", 400, "invalid"),
        ("GET", &format!("{there}?heads=1"), &[], "", 400, "invalid"),
        ("GET", &format!("{there}?heads={}", "0".repeat(64)), &[], "", 404, "no_such_change"),
        ("GET", &format!("{there}?conflicts=perhaps"), &[], "", 400, "invalid"),
        ("GET", &format!("{there}/diff"), &[], "", 400, "invalid"),
        ("GET", &format!("{there}/nothing"), &[], "", 404, "no_such_route"),
        ("GET", "/v1/nothing", &[], "", 404, "no_such_route"),
        ("GET", &format!("{there}/changes?limit=0"), &[], "", 400, "invalid"),
        ("GET", &format!("{there}/changes?limit=1001"), &[], "", 400, "invalid"),
        ("GET", &format!("{there}/changes?after=00"), &[], "", 400, "invalid"),
        ("POST", &there, &[], "", 405, "method_not_allowed"),
        ("PATCH", &there, &[JSON], "{}", 415, "unsupported_media_type"),
        ("PUT", &there, &[MERGE], "{}", 415, "unsupported_media_type"),
        ("POST", "/v1/docs", &[("content-type", "text/plain")], "x", 415, "unsupported_media_type"),
        ("POST", "/v1/docs?id=x", &[JSON], "{}", 400, "invalid"),
        ("POST", "/v1/docs", &[JSON], "{", 400, "invalid_edit"),
        ("POST", "/v1/docs", &[AUTOMERGE], "nonsense", 400, "invalid_changes"),
        ("PATCH", &there, &[PATCH], "{}", 400, "invalid_edit"),
        ("PATCH", &there, &[PATCH], r#"[{"op":"remove","path":"/x"}]"#, 409, "no_such_path"),
        ("PATCH", &there, &[PATCH], r#"[{"op":"test","path":"/n","value":2}]"#, 409, "test_failed"),
        ("PATCH", &there, &[PATCH], r#"[{"op":"increment","path":"/text","by":2}]"#, 409, "wrong_type"),
        (
            "PATCH",
            &there,
            &[PATCH],
            r#"[{"op":"splice","path":"/text","index":9,"delete":1,"insert":""}]"#,
            409,
            "out_of_bounds",
        ),
        ("PATCH", &there, &[PATCH, ("if-match", "x")], "[]", 400, "invalid"),
        ("PATCH", &there, &[PATCH, ("if-match", "\"x\"")], "[]", 412, "precondition_failed"),
        ("PATCH", &missing, &[PATCH], "[]", 404, "no_such_document"),
    ];
    for (method, path, headers, body, status, code) in cases {
        let answer = server.http(method, path, headers, body.as_bytes()).await.ok(status);
        if method != "HEAD" {
            assert_eq!(answer.code(), code, "{method} {path}");
            assert!(answer.json()["retryable"].is_boolean() && answer.json()["detail"].is_string());
        }
    }
    let failed = r#"[{"op":"replace","path":"/n","value":2},{"op":"test","path":"/text","value":"x"}]"#;
    let failed = server.http("PATCH", &there, &[PATCH], failed.as_bytes()).await.ok(409).json();
    assert_eq!((&failed["operation"], &failed["pointer"]), (&json!(1), &json!("/text")));
    assert_eq!(server.value(id).await, json!({ "n": 1, "text": "abc" }), "all of a patch or nothing");
    let kinds = server.http("PATCH", &there, &[], b"x").await.ok(415);
    assert!(kinds.header("accept-patch").unwrap().contains("merge-patch"));
    let methods = server.http("POST", &there, &[], b"").await.ok(405);
    assert!(methods.header("allow").unwrap().contains("PATCH"), "{methods:?}");
    let failed = server.http("PUT", &there, &[JSON, ("if-none-match", "*")], b"{}").await.ok(412).json();
    assert_eq!(failed["heads"].as_array().unwrap().len(), 1);
    let missing = server.http("PUT", &missing, &[JSON, ("if-match", "*")], b"{}").await.ok(412);
    assert_eq!(missing.code(), "precondition_failed");
    server.stopped().await.unwrap();
}

#[tokio::test]
async fn places_with_more_than_one_value_are_shown_on_request() {
    let server = memory_server().await;
    let id = document(1);
    server.put(id, json!({ "n": 1 })).await.ok(201);
    let mut doc = AutoCommit::load(
        &server.http("GET", &path(id), &[("accept", "application/vnd.automerge")], b"").await.body,
    )
    .unwrap();
    doc.put(ROOT, "n", 2).unwrap();
    doc.commit();
    let change = Bytes::copy_from_slice(doc.get_last_local_change().unwrap().raw_bytes());
    server.put(id, json!({ "n": 3 })).await.ok(200);
    server.http("POST", &format!("{}/changes", path(id)), &[], &change).await.ok(200);
    let read = server.http("GET", &format!("{}?conflicts=true", path(id)), &[], b"").await.ok(200).json();
    let values = read["conflicts"]["/n"].as_object().unwrap();
    let mut values: Vec<i64> = values.values().filter_map(Value::as_i64).collect();
    values.sort_unstable();
    assert_eq!(values, [2, 3]);
    assert!(values.contains(&read["value"]["n"].as_i64().unwrap()));
    let heads = server.http("GET", &format!("{}/heads", path(id)), &[], b"").await.json();
    assert_eq!(heads["heads"].as_array().unwrap().len(), 2);
    server.stopped().await.unwrap();
}

#[tokio::test]
async fn all_changes_come_page_by_page() {
    let server = memory_server().await;
    let id = document(1);
    for n in 0..25 {
        server.put(id, json!({ "n": n })).await;
    }
    // As metadata, and as chunks that make the same document.
    for accept in ["application/json", "application/vnd.automerge"] {
        let mut next = Some(format!("{}/changes?limit=10", path(id)));
        let (mut pages, mut count, mut chunks) = (0, 0, Vec::new());
        while let Some(page) = next {
            let answer = server.http("GET", &page, &[("accept", accept)], b"").await.ok(200);
            next = answer.header("link").map(|link| link[1..link.find('>').unwrap()].to_owned());
            pages += 1;
            if accept == "application/json" {
                assert_eq!(answer.json()["next"], json!(next));
                count += answer.json()["changes"].as_array().unwrap().len();
            } else {
                chunks.extend(answer.body);
            }
            // What comes in between comes later.
            if pages == 1 {
                server.put(id, json!({ "between": accept })).await.ok(200);
            }
        }
        assert_eq!(pages, 3);
        if accept == "application/json" {
            assert_eq!(count, 26);
        } else {
            assert_eq!(AutoCommit::load(&chunks).unwrap().get_changes(&[]).len(), 27);
        }
    }
    let mut next = Some(format!("{}/history?limit=10", path(id)));
    let mut seen = Vec::new();
    while let Some(page) = next {
        let answer = server.http("GET", &page, &[], b"").await.ok(200).json();
        seen.extend(
            answer["changes"].as_array().unwrap().iter().map(|change| change["seq"].as_u64().unwrap()),
        );
        next = answer["next"].as_str().map(str::to_owned);
    }
    assert_eq!(seen, (1..=27).rev().collect::<Vec<u64>>());
    server.stopped().await.unwrap();
}

#[tokio::test]
async fn a_body_need_not_say_how_large_it_is_unless_it_is_large() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = memory_server().await;
    let id = document(1);
    for (bytes, status) in [(1_000, "201"), (2 << 20, "413")] {
        let body = json!({ "text": "x".repeat(bytes) }).to_string();
        let head = format!(
            "PUT {} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n",
            path(id)
        );
        let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        // A server that has read enough may close before it has read all.
        let _ = stream.write_all(format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).as_bytes()).await;
        let mut answer = Vec::new();
        let _ = patiently(stream.read_to_end(&mut answer)).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")) || status == "413" && answer.is_empty(),
            "{answer}"
        );
    }
    server.stopped().await.unwrap();
}

#[tokio::test]
async fn the_description_names_every_answer() {
    let server = memory_server().await;
    let description = server.http("GET", "/v1/openapi.json", &[], b"").await.ok(200).json();
    assert!(description["openapi"].as_str().unwrap().starts_with("3."));
    for (path, methods) in description["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let what = format!("{method} {path}");
            assert!(operation["summary"].is_string(), "{what}");
            let answers = operation["responses"].as_object().unwrap();
            for status in ["403", "500", "503"] {
                assert!(answers.contains_key(status), "{what} {status}");
            }
        }
    }
    assert!(description["components"]["schemas"]["Problem"].is_object(), "{description}");
    let page = server.http("GET", "/v1/api", &[], b"").await.ok(200);
    assert!(String::from_utf8(page.body).unwrap().contains("PATCH /v1/docs/{id}"));
    server.stopped().await.unwrap();
}

#[tokio::test]
async fn documents_are_listed_by_id_by_prefix_and_by_when_they_changed() {
    let server = memory_server().await;
    let mut wanted: Vec<String> = Vec::new();
    for n in 0..25 {
        server.put(document(n), json!({ "n": n })).await.ok(201);
        wanted.push(document(n).to_string());
    }
    let all = async |first: &str| {
        let (mut next, mut pages, mut seen) = (Some(first.to_owned()), 0, Vec::new());
        while let Some(page) = next {
            let answer = server.http("GET", &page, &[], b"").await.ok(200).json();
            seen.extend(answer["documents"].as_array().unwrap().clone());
            next = answer["next"].as_str().map(str::to_owned);
            pages += 1;
        }
        (seen, pages)
    };
    let ids = |entries: &[Value]| {
        entries.iter().map(|entry| entry["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let (by_id, pages) = all("/v1/docs?limit=10").await;
    assert_eq!((ids(&by_id), pages), (wanted.clone(), 3));
    let prefix = &wanted[7][..4];
    let (by_prefix, _) = all(&format!("/v1/docs?limit=1&prefix={prefix}")).await;
    let begin_so: Vec<String> = wanted.iter().filter(|id| id.starts_with(prefix)).cloned().collect();
    assert_eq!(ids(&by_prefix), begin_so);
    server.put(document(3), json!({ "n": "changed" })).await.ok(200);
    let (by_change, _) = all("/v1/docs?changed-since=0&limit=10").await;
    assert_eq!((by_change.len(), &*ids(&by_change)[24]), (25, &*wanted[3]));
    let since = by_change[20]["changed"].as_u64().unwrap();
    let (since, _) = all(&format!("/v1/docs?changed-since={since}")).await;
    assert_eq!(since, by_change[21..]);
    let both = server.http("GET", "/v1/docs?changed-since=0&prefix=1", &[], b"").await.ok(400);
    assert_eq!(both.code(), "invalid");
    server.stopped().await.unwrap();
}

#[tokio::test]
async fn a_request_for_a_damaged_document_is_told_so_and_that_asking_again_does_not_help() {
    let store = FaultyStore::new(Pace::Immediate);
    let server = server_on(&store).await;
    server.put(document(1), json!({ "n": 1 })).await.ok(201);
    server.put(document(2), json!({ "n": 2 })).await.ok(201);
    server.stopped().await.unwrap();
    let store = store.reopen();
    store.damage(document(1));
    let server = server_on(&store).await;
    let path = path(document(1));
    let json = [("content-type", "application/json")];
    let have = format!("{path}/have");
    let chunks = automerge::AutoCommit::new().save();
    for (method, path, headers, body) in [
        ("GET", &*path, &[][..], &b""[..]),
        ("HEAD", &path, &[], b""),
        ("PUT", &path, &json, b"{}"),
        ("DELETE", &path, &[], b""),
        ("GET", &format!("{path}/heads"), &[], b""),
        ("GET", &format!("{path}/events"), &[], b""),
        ("GET", &format!("{path}/history"), &[], b""),
        ("POST", &format!("{path}/changes"), &[], &chunks),
    ] {
        let answer = server.http(method, path, headers, body).await.ok(500);
        if method != "HEAD" {
            let problem = answer.json();
            assert_eq!(
                (&problem["code"], &problem["retryable"]),
                (&json!("damaged"), &json!(false)),
                "{path}"
            );
        }
    }
    let unknown = json!({ "hashes": ["00".repeat(32)] }).to_string();
    assert_eq!(server.http("POST", &have, &json, unknown.as_bytes()).await.status, 200);
    assert_eq!(server.value(document(2)).await, json!({ "n": 2 }));
}

#[tokio::test]
async fn a_large_document_is_made_all_at_once_or_not_at_all() {
    let whole = long_document(5_000).save();
    let expected = long_document(5_000).get_changes(&[]).len();
    for kept in [0, 1] {
        let store = FaultyStore::new(Pace::Manual);
        let server = server_on(&store).await;
        let path = format!("/v1/docs?id={}", document(1));
        let headers = [("content-type", "application/vnd.automerge")];
        let after_the_cut = async {
            in_flight(&store).await;
            let durable = store.power_cut_keeping(kept).durable(document(1));
            assert_eq!(durable.map_or(0, |stored| stored.changes.len()), kept * expected);
        };
        tokio::select! {
            answer = server.http("POST", &path, &headers, &whole) => panic!("answered before it was stored: {answer:?}"),
            () = after_the_cut => {}
        }
    }
}

#[tokio::test]
async fn numbers_come_back_as_they_were_sent() {
    let server = memory_server().await;
    let id = document(1);
    let numbers: Vec<f64> =
        (1..2_000u32).map(|n| f64::from(n).sqrt().sin() * 10f64.powi(n as i32 % 60 - 30)).collect();
    let sent = json!({ "numbers": numbers, "tiny": 5e-324, "large": f64::MAX });
    server.put(id, sent.clone()).await.ok(201);
    let read = server.read(id).await.ok(200);
    assert_eq!(read.json(), sent);
    let same =
        server.http("PUT", &path(id), &[("content-type", "application/json")], &read.body).await.ok(200);
    assert_eq!(same.json()["hash"], Value::Null);
    let test = json!([{ "op": "test", "path": "/numbers", "value": numbers }]);
    server.patch(id, &[], test).await.ok(200);
}

#[tokio::test]
async fn a_head_request_is_answered_as_its_get_would_be() {
    let server = memory_server().await;
    let id = document(1);
    let first =
        server.put(id, json!({ "n": 1 })).await.ok(201).json()["heads"][0].as_str().unwrap().to_owned();
    server.put(id, json!({ "n": 2 })).await.ok(200);
    let unknown = "00".repeat(32);
    for query in
        ["", &format!("?heads={first}"), &format!("?heads={unknown}"), "?heads=", "?heads=zz", "?bogus=1"]
    {
        let path = format!("{}{query}", path(id));
        let get = server.http("GET", &path, &[], b"").await;
        let head = server.http("HEAD", &path, &[], b"").await;
        assert_eq!((head.status, head.header("etag")), (get.status, get.header("etag")), "{query}");
        assert_eq!(head.header("content-type"), get.header("content-type"), "{query}");
        // How long the answer would be is only known when it is made.
        assert!(head.status != 200 || head.header("content-length").is_none(), "{query}");
    }
}

#[tokio::test]
async fn every_error_has_the_same_form() {
    let server = memory_server().await;
    let id = document(1);
    server.put(id, json!({ "n": 1 })).await.ok(201);
    for (method, path, headers, status, code) in [
        ("GET", "/v1", &[][..], 404, "no_such_route"),
        ("GET", "/v1/", &[], 404, "no_such_route"),
        ("GET", "/nowhere", &[], 404, "no_such_route"),
        ("GET", "/v1/sync", &[], 426, "upgrade_required"),
        ("GET", &format!("{}/sync", path(id)), &[], 426, "upgrade_required"),
        ("POST", "/v1/webhooks/%FF/retry", &[], 400, "invalid"),
        ("POST", &format!("{}/changes", path(id)), &[("if-match", "\"x\"")], 400, "invalid"),
        ("POST", &format!("{}/changes", path(id)), &[("if-none-match", "*")], 400, "invalid"),
    ] {
        let answer = server.http(method, path, headers, b"").await;
        assert_eq!((answer.status, &*answer.code()), (status, code), "{method} {path}");
    }
}
