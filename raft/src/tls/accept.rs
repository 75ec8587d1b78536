//! Accepting connections: each handshake in a task of its own, so that a slow one delays nobody, and bounded in number
//! and time, so that nobody holds many.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::Reloading;

/// Handshakes under way at one listener; more wait in the kernel's queue.
const MAX_HANDSHAKES: usize = 256;
/// A client that has not finished its handshake by then is dropped.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Connections whose handshake is done and that the server has not taken yet.
const READY: usize = 64;
/// After an accept that failed for want of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(100);

/// A connection that got in.
pub type Accepted = (TlsStream<TcpStream>, SocketAddr);

/// Which certificate the next connection is met with.
pub(crate) trait ServerTls: Send + Sync + 'static {
    fn server(&self) -> Arc<ServerConfig>;
}

/// Connections whose handshake is done.
#[derive(Debug)]
pub struct Handshakes(mpsc::Receiver<Accepted>);

impl Handshakes {
    /// Listens until dropped. Must be called on a runtime.
    pub(crate) fn start<T: Send + Sync + 'static>(
        listener: TcpListener,
        tls: Arc<Reloading<T>>,
    ) -> Self
    where
        Reloading<T>: ServerTls,
    {
        let (ready, receiver) = mpsc::channel(READY);
        tokio::spawn(accept(listener, tls, ready));
        Self(receiver)
    }

    /// See [`Self::start`].
    #[must_use]
    pub fn at_door(listener: TcpListener, tls: Arc<Reloading<super::DoorIdentity>>) -> Self {
        Self::start(listener, tls)
    }

    /// None only when the task that accepts was ended with its runtime.
    pub async fn next(&mut self) -> Option<Accepted> {
        self.0.recv().await
    }
}

async fn accept<T: Send + Sync + 'static>(
    listener: TcpListener,
    tls: Arc<Reloading<T>>,
    ready: mpsc::Sender<Accepted>,
) where
    Reloading<T>: ServerTls,
{
    let places = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    loop {
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place,
            () = ready.closed() => return,
        };
        let Ok(place) = place else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = ready.closed() => return,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(why) if is_of_one_connection(&why) => continue,
            Err(why) => {
                tracing::error!(%why, "no connection can be accepted");
                sleep(PAUSE).await;
                continue;
            }
        };
        let (tls, ready) = (Arc::clone(&tls), ready.clone());
        tokio::spawn(async move {
            match timeout(HANDSHAKE, handshake(stream, tls.server())).await {
                // A server that is stopping takes no more.
                Ok(Ok(stream)) => drop(ready.send((stream, address)).await),
                Ok(Err(why)) => {
                    tls.count_refused();
                    tracing::info!(%address, %why, "a connection was refused");
                }
                Err(_) => {
                    tls.count_refused();
                    tracing::info!(%address, limit = ?HANDSHAKE, "a handshake was not finished in time");
                }
            }
            drop(place);
        });
    }
}

async fn handshake(
    stream: TcpStream,
    config: Arc<ServerConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    stream.set_nodelay(true)?;
    TlsAcceptor::from(config).accept(stream).await
}

fn is_of_one_connection(why: &io::Error) -> bool {
    matches!(
        why.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}
