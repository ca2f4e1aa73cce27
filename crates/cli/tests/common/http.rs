//! Plain HTTP against the built server, which may be killed at any moment.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// A request; `None` if there is no whole answer to it.
pub(crate) fn request(
    address: &str,
    method: &str,
    path: &str,
    kind: &str,
    body: &str,
) -> Option<(u16, Value)> {
    let mut stream = connect(address)?;
    let len = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: test\r\ncontent-type: {kind}\r\ncontent-length: {len}\r\n\r\n{body}"
    );
    stream.write_all(head.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.get(9..12)?.parse().ok()?;
    Some((status, if body.is_empty() { Value::Null } else { serde_json::from_str(body).ok()? }))
}

fn connect(address: &str) -> Option<TcpStream> {
    let stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    Some(stream)
}

/// A server-sent event.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) id: Option<String>,
    pub(crate) data: Value,
}

/// Reads events until the stream breaks, or `take` has had enough.
pub(crate) fn follow(address: &str, path: &str, last: Option<&str>, mut take: impl FnMut(Event) -> bool) {
    let Some(mut stream) = connect(address) else { return };
    let last = last.map_or(String::new(), |id| format!("last-event-id: {id}\r\n"));
    if write!(stream, "GET {path} HTTP/1.1\r\nhost: test\r\n{last}\r\n").is_err() {
        return;
    }
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while matches!(reader.read_line(&mut line), Ok(1..)) {
        if line == "\r\n" {
            break;
        }
        line.clear();
    }
    let mut text = String::new();
    while let Some(chunk) = chunk(&mut reader) {
        text.push_str(&chunk);
        while let Some(end) = text.find("\n\n") {
            let block: String = text.drain(..end + 2).collect();
            let field = |name: &str| {
                block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned))
            };
            let (Some(name), Some(data)) = (field("event"), field("data")) else { continue };
            let data = serde_json::from_str(&data).unwrap();
            if !take(Event { name, id: field("id"), data }) {
                return;
            }
        }
    }
}

/// One chunk of the chunked encoding.
fn chunk(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let len = usize::from_str_radix(line.trim_end(), 16).ok().filter(|len| *len > 0)?;
    let mut bytes = vec![0; len + 2];
    reader.read_exact(&mut bytes).ok()?;
    bytes.truncate(len);
    String::from_utf8(bytes).ok()
}
