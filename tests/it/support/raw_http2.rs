use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// HTTP/2 spoken by hand, to say what no library lets a client say.
pub(crate) struct RawHttp2(TcpStream);

/// How a request ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With an answer, whatever it says.
    Answered,
    /// The stream was reset, with this error code.
    Reset(u32),
    /// The connection was given up.
    Closed,
}

impl RawHttp2 {
    /// Says the preface and the settings, and nothing more.
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        let mut connection = Self(stream);
        connection.frame(SETTINGS, 0, 0, &[]).await;
        connection
    }

    /// Begins a request of gRPC; `message` ends it, none leaves it open.
    pub(crate) async fn request(
        &mut self,
        stream: u32,
        path: &str,
        more: &[(&str, &str)],
        message: Option<&[u8]>,
    ) {
        let headers = [&usual(path), more].concat();
        self.frame(HEADERS, END_HEADERS, stream, &block(&headers)).await;
        if let Some(message) = message {
            self.data(stream, &framed(message), true).await;
        }
    }

    /// A piece of a request's body.
    pub(crate) async fn data(&mut self, stream: u32, piece: &[u8], is_last: bool) {
        self.frame(DATA, if is_last { END_STREAM } else { 0 }, stream, piece).await;
    }

    /// The same, with another value for one of the usual headers.
    pub(crate) async fn request_with(&mut self, stream: u32, path: &str, other: (&str, &str)) {
        let headers = usual(path).map(|usual| if usual.0 == other.0 { other } else { usual });
        self.frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&headers)).await;
    }

    /// Reads on until the server takes no more requests.
    pub(crate) async fn goaway(&mut self) {
        let said = async {
            while let Some((kind, _, _, payload)) = self.read().await {
                match kind {
                    GOAWAY => return,
                    PING => self.frame(PING, ACK, 0, &payload).await,
                    _ => {}
                }
            }
            panic!("it was closed before");
        };
        timeout(Duration::from_secs(10), said).await.expect("it says so");
    }

    /// Reads on until the request is answered: each piece of the answer's body.
    pub(crate) async fn body(&mut self, stream: u32) -> Vec<Vec<u8>> {
        let mut pieces = Vec::new();
        let answered = async {
            while let Some((kind, flags, of, payload)) = self.read().await {
                match kind {
                    PING if flags & ACK == 0 => self.frame(PING, ACK, 0, &payload).await,
                    DATA if of == stream => pieces.push(payload),
                    HEADERS if of == stream && flags & END_STREAM != 0 => return,
                    _ => {}
                }
            }
            panic!("it was closed before");
        };
        timeout(Duration::from_secs(10), answered).await.expect("it is answered");
        pieces
    }

    /// Reads on until each of these requests is answered.
    pub(crate) async fn all_end(&mut self, streams: &[u32]) {
        let mut left = streams.len();
        let answered = async {
            while left > 0 {
                let (kind, flags, of, payload) = self.read().await.expect("it is open");
                match kind {
                    PING if flags & ACK == 0 => self.frame(PING, ACK, 0, &payload).await,
                    HEADERS if streams.contains(&of) && flags & END_STREAM != 0 => left -= 1,
                    _ => {}
                }
            }
        };
        timeout(Duration::from_secs(10), answered).await.expect("they are answered");
    }

    /// Whether the server closes the connection, whatever it says before.
    pub(crate) async fn is_closed(&mut self) -> bool {
        let closed = async {
            while let Some((kind, flags, _, payload)) = self.read().await {
                if kind == PING && flags & ACK == 0 {
                    self.frame(PING, ACK, 0, &payload).await;
                }
            }
        };
        timeout(Duration::from_secs(10), closed).await.is_ok()
    }

    /// Reads on until the request ends.
    pub(crate) async fn end(&mut self, stream: u32) -> End {
        let ended = async {
            loop {
                let Some((kind, flags, of, payload)) = self.read().await else {
                    return End::Closed;
                };
                match kind {
                    SETTINGS if flags & ACK == 0 => self.frame(SETTINGS, ACK, 0, &[]).await,
                    RST_STREAM if of == stream => {
                        return End::Reset(u32::from_be_bytes(payload[..4].try_into().unwrap()));
                    }
                    HEADERS if of == stream && flags & END_STREAM != 0 => return End::Answered,
                    GOAWAY => return End::Closed,
                    _ => {}
                }
            }
        };
        timeout(Duration::from_secs(10), ended).await.expect("the request ends")
    }

    async fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut frame = Vec::from(&u32::try_from(payload.len()).unwrap().to_be_bytes()[1..]);
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        // It may be closed at the other end, which reading tells.
        let _ = self.0.write_all(&frame).await;
    }

    /// The next frame: kind, flags, stream, payload.
    async fn read(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.0.read_exact(&mut payload).await.ok()?;
        let stream = u32::from_be_bytes(head[5..].try_into().unwrap()) & 0x7fff_ffff;
        Some((head[3], head[4], stream, payload))
    }
}

/// A message with the five bytes that gRPC puts before it.
pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], &length[..], message].concat()
}

/// The headers of a call of gRPC.
fn usual(path: &str) -> [(&str, &str); 6] {
    [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "localhost"),
        (":path", path),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]
}

/// Headers as HPACK has them: literals that are not indexed, their names neither.
fn block(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in headers {
        block.push(0);
        push_text(&mut block, name);
        push_text(&mut block, value);
    }
    block
}

/// A text as HPACK has it, its length in the prefix of 7 bits and what is beyond
/// in groups of 7.
fn push_text(block: &mut Vec<u8>, text: &str) {
    let mut length = text.len();
    if length < 127 {
        block.push(u8::try_from(length).unwrap());
    } else {
        block.push(127);
        length -= 127;
        while length >= 128 {
            block.push(u8::try_from(length % 128).unwrap() | 128);
            length /= 128;
        }
        block.push(u8::try_from(length).unwrap());
    }
    block.extend(text.as_bytes());
}
