//! A client of HTTP/1.1 that sends what it is told, to the byte.

use std::net::SocketAddr;

use http::{HeaderMap, StatusCode};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::server::TestServer;

/// An answer, as it came.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answered {
    /// Its body, which is JSON, as it says.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.headers["content-type"], "application/json", "{self:?}");
        serde_json::from_str(&self.text).unwrap()
    }
}

/// Sends a request with these lines of headers, and reads the one answer.
pub(crate) async fn send(
    server: &TestServer,
    request_line: &str,
    headers: &[&str],
    body: impl AsRef<[u8]>,
) -> Answered {
    send_to(server.http.unwrap(), request_line, headers, body).await
}

/// The same at an address.
pub(crate) async fn send_to(
    address: SocketAddr,
    request_line: &str,
    headers: &[&str],
    body: impl AsRef<[u8]>,
) -> Answered {
    let body = body.as_ref();
    let mut request = format!("{request_line} HTTP/1.1\r\nconnection: close\r\n");
    if !headers.iter().any(|header| header.starts_with("host:")) {
        request += "host: localhost\r\n";
    }
    for header in headers {
        request += &format!("{header}\r\n");
    }
    let is_chunked = headers.iter().any(|header| header.starts_with("transfer-encoding:"));
    if !body.is_empty() && !is_chunked {
        request += &format!("content-length: {}\r\n", body.len());
    }
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(format!("{request}\r\n").as_bytes()).await.unwrap();
    socket.write_all(body).await.unwrap();
    receive(&mut socket).await
}

/// The one answer, after which the connection is closed.
pub(crate) async fn receive(socket: &mut TcpStream) -> Answered {
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    parse(&String::from_utf8(answer).unwrap())
}

/// The same with a token and JSON.
pub(crate) async fn call(
    server: &TestServer,
    request_line: &str,
    token: &str,
    body: &str,
) -> Answered {
    let bearer = format!("authorization: Bearer {token}");
    send(server, request_line, &[&bearer, "content-type: application/json"], body).await
}

fn parse(answer: &str) -> Answered {
    let (head, text) = answer.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        let name: http::HeaderName = name.parse().unwrap();
        headers.append(name, value.parse().unwrap());
    }
    Answered { status, headers, text: text.to_owned() }
}
