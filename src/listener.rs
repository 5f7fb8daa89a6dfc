//! Accepts connections, with TLS or without, at most so many, and none for HTTP/2
//! that does not soon say that it speaks it.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use crate::tls::{Spoken, Tls};

/// How long a client may take for the TLS handshake and to say what it speaks.
const FIRST_WORDS: Duration = Duration::from_secs(10);

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long to wait when the system has no socket to give.
const NO_SOCKET: Duration = Duration::from_millis(50);

/// The address of the other end of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// A connection that is ready for what is spoken on it.
pub struct Connection {
    io: Box<dyn Io>,
    /// What was read of it already and is to be read again.
    unread: &'static [u8],
    peer: Peer,
    _place: OwnedSemaphorePermit,
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// The connections that come in at `listener`, at most `most` at once; more wait
/// to be accepted. The listener closes when the receiver is dropped.
pub fn connections(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    spoken: Spoken,
    most: usize,
) -> mpsc::Receiver<Connection> {
    let (ready, connections) = mpsc::channel(64);
    tokio::spawn(async move {
        let places = Arc::new(Semaphore::new(most));
        loop {
            let place_and_accept = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (place.expect("it is never closed"), listener.accept().await)
            };
            let (place, accepted) = tokio::select! {
                () = ready.closed() => return,
                accepted = place_and_accept => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection");
                    tokio::time::sleep(NO_SOCKET).await;
                    continue;
                }
            };
            let (ready, tls) = (ready.clone(), tls.clone());
            tokio::spawn(async move {
                match timeout(FIRST_WORDS, open(stream, tls, spoken)).await {
                    Ok(Ok((io, unread))) => {
                        let connection = Connection { io, unread, peer: Peer(peer), _place: place };
                        // Nobody takes it any more when the server is stopping.
                        let _ = ready.send(connection).await;
                    }
                    Ok(Err(error)) => tracing::debug!(%peer, %error, "connection refused"),
                    Err(_) => tracing::debug!(%peer, "connection did not say what it speaks"),
                }
            });
        }
    });
    connections
}

/// Makes the TLS handshake and reads HTTP/2's connection preface (RFC 9113,
/// section 3.4): what comes after it is bounded by keepalive. Also gives what was read
/// of the connection.
async fn open(
    stream: TcpStream,
    tls: Option<Arc<Tls>>,
    spoken: Spoken,
) -> io::Result<(Box<dyn Io>, &'static [u8])> {
    stream.set_nodelay(true)?;
    let mut io: Box<dyn Io> = match tls {
        None => Box::new(stream),
        Some(tls) => Box::new(TlsAcceptor::from(tls.current(spoken)).accept(stream).await?),
    };
    if spoken == Spoken::Http1 {
        return Ok((io, &[]));
    }
    let mut preface = [0; PREFACE.len()];
    io.read_exact(&mut preface).await?;
    if preface == *PREFACE {
        Ok((io, PREFACE))
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "it does not speak HTTP/2"))
    }
}

impl Connection {
    /// Who is at its other end.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.peer
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.unread.is_empty() {
            let length = self.unread.len().min(buffer.remaining());
            let (now, later) = self.unread.split_at(length);
            buffer.put_slice(now);
            self.unread = later;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

/// Not vectored: h2 then copies frames of up to 1 KiB together, and writes several answers
/// at once; else each of more than 256 bytes is a write of its own.
impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
