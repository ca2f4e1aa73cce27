//! How connections end, and whether and when the client comes back.

use super::schedule::Issuer;
use super::*;
use crate::{ConnectError, OpenError, UnsavedReason};

#[test]
fn a_dead_path_is_noticed_also_when_nothing_is_owed_so_that_others_changes_are_heard() {
    run(async {
        let server = FakeServer::new();
        let (_client, line, document) = client_with_saved_document(&server).await;
        line.cut();
        server.edit(document.id(), 5);
        line.mend();
        pass(21_000).await;
        assert_eq!(get(&document, "other"), Some(5));
        assert_eq!(line.dials(), 2);
    });
}

#[test]
fn a_healthy_connection_is_quiet_and_stays() {
    run(async {
        let server = FakeServer::new();
        let (_client, line, _document) = client_with_saved_document(&server).await;
        pass(1000).await;
        let frames = server.lock().frames;
        pass(3_600_000).await;
        assert_eq!((line.dials(), server.lock().frames), (1, frames));
    });
}

#[test]
fn one_that_is_not_ready_in_time_is_given_up_and_so_is_a_token_that_never_comes() {
    run(async {
        let server = FakeServer::new();
        let line = server.line();
        line.cut();
        let _client = client_on(&line, builder()).await;
        pass(60_000).await;
        assert!((2..5).contains(&line.dials()), "{}", line.dials());

        let line = server.line();
        let builder = builder().token_from(|_| std::future::pending::<Result<String, String>>());
        let client = client_on(&line, builder).await;
        assert!(!client.connected(60 * SECOND).await);
        assert_eq!(line.dials(), 0);
        client.disconnect().await;
    });
}

#[test]
fn it_tries_again_if_the_token_cannot_be_had() {
    run(async {
        let server = FakeServer::new();
        let line = server.line();
        let calls = Arc::new(Mutex::new(0));
        let builder = builder().token_from(move |_| {
            let mut calls = calls.lock().unwrap();
            *calls += 1;
            let call = *calls;
            async move {
                match call {
                    1 => panic!("in the test"),
                    2..4 => Err("the issuer is down"),
                    _ => Ok("x".to_owned()),
                }
            }
        });
        let client = client_on(&line, builder).await;
        assert!(client.connected(60 * SECOND).await);
    });
}

#[test]
fn it_gets_a_new_token_when_the_old_one_has_expired_and_stops_with_a_fixed_one() {
    run(async {
        let server = FakeServer::new();
        let issuer = Issuer::new(&server);
        let line = server.line();
        let client = client_on(&line, issuer.builder()).await;
        let fixed_line = server.line();
        let fixed = client_on(&fixed_line, builder().token("0")).await;
        assert!(client.connected(SECOND).await && fixed.connected(SECOND).await);
        issuer.expire(&server);
        issuer.renew(&server);
        pass(100).await;
        assert!(client.connected(60 * SECOND).await);
        let document = fixed.create().unwrap();
        set(&document, "n", 1);
        let error = document.wait_durable(60 * SECOND).await.unwrap_err();
        let UnsavedReason::Stopped(stopped) = &error.reason else { panic!("{error}") };
        assert_eq!((stopped.code, stopped.said.as_str()), (4401, "expired"));
        let (again, error) = (fixed.open(DocumentId::from_bytes([1; 16])).await, stopped.clone());
        assert_eq!(again.unwrap_err(), OpenError::Stopped(error));
    });
}

#[test]
fn it_stays_away_after_final_codes_and_those_who_wait_are_told_and_comes_back_when_asked() {
    run(async {
        let server = FakeServer::new();
        let (client, line) = client(&server).await;
        let document = client.create().unwrap();
        for code in [1009, 4400, 4403, 4409, 4413, 4422] {
            assert!(client.connected(SECOND).await);
            server.lock().commit_ms = 1000;
            set(&document, "n", i64::from(code));
            let close = async {
                pass(20).await;
                server.close_all(code, "because");
            };
            let (closed, ()) = tokio::join!(client.close(60 * SECOND), close);
            let error = closed.unwrap_err();
            let UnsavedReason::Stopped(stopped) = &error.reason else { panic!("{error}") };
            assert_eq!((stopped.code, error.documents[0].hashes.len()), (code, 1));
            let dials = line.dials();
            pass(600_000).await;
            assert_eq!(line.dials(), dials);
            server.lock().commit_ms = 1;
            client.reconnect();
            document.wait_durable(SECOND).await.unwrap();
        }
    });
}

#[test]
fn it_comes_back_when_a_restarting_server_said_and_the_change_made_meanwhile_is_saved() {
    run(async {
        let server = FakeServer::new();
        let (_client, line, document) = client_with_saved_document(&server).await;
        server.stop();
        pass(10).await;
        let hash = set(&document, "n", 2);
        server.start();
        pass(150).await;
        assert_eq!(line.dials(), 1, "not before");
        pass(100).await;
        assert_eq!(line.dials(), 2);
        document.wait_durable(SECOND).await.unwrap();
        assert!(server.has(document.id(), hash));
    });
}

#[test]
fn more_is_not_changed_than_may_wait_for_the_server() {
    run(async {
        let server = FakeServer::new();
        let (client, line) = client(&server).await;
        line.cut();
        let document = client.create().unwrap();
        let mut random = Random::new(5);
        let mut put = || {
            // That cannot be compressed.
            let noise: Vec<u8> = (0..2 << 20).flat_map(|_| random.below(u64::MAX).to_le_bytes()).collect();
            document.change(|tx| tx.put(ROOT, "noise", noise))
        };
        for _ in 0..4 {
            put().unwrap();
        }
        assert!(matches!(put(), Err(crate::ChangeError::TooMuchUnsaved { max }) if max == 64 << 20));
    });
}

#[test]
fn urls_that_are_none_are_refused_at_once() {
    run(async {
        for url in ["", "http://host", "ws://", "nonsense"] {
            let refused = Client::connect(url).await;
            assert!(matches!(refused, Err(ConnectError::Url { .. })), "{url}");
        }
    });
}

#[test]
fn a_dead_path_is_noticed_in_time_also_while_somebody_asks_again_and_again() {
    run(async {
        let server = FakeServer::new();
        let (client, line, document) = client_with_saved_document(&server).await;
        line.cut();
        set(&document, "n", 2);
        line.mend();
        for _ in 0..4 {
            let _ = client.flush(4 * SECOND).await;
        }
        assert_eq!(line.dials(), 2);
        assert_eq!(document.save_status().state, crate::SaveState::Saved);
    });
}

#[test]
fn it_comes_back_at_once_when_the_application_says_that_the_network_is_back() {
    run(async {
        let server = FakeServer::new();
        let (client, line, document) = client_with_saved_document(&server).await;
        server.kill();
        pass(100_000).await;
        let dials = line.dials();
        server.start();
        set(&document, "n", 2);
        client.reconnect();
        document.wait_durable(SECOND / 10).await.unwrap();
        assert_eq!(line.dials(), dials + 1);
        // Also from an attempt that hangs.
        server.kill();
        line.cut();
        server.start();
        pass(10_000).await;
        line.mend();
        client.reconnect();
        set(&document, "n", 3);
        document.wait_durable(SECOND / 10).await.unwrap();
    });
}
