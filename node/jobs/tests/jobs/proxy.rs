//! A way to a node that can be cut.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    /// Cancelled while it is cut.
    way: Arc<Mutex<CancellationToken>>,
}

impl Proxy {
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let way = Arc::new(Mutex::new(CancellationToken::new()));
        let open = Arc::clone(&way);
        tokio::spawn(async move {
            while let Ok((mut from, _)) = listener.accept().await {
                let cut = open.lock().unwrap().clone();
                tokio::spawn(cut.run_until_cancelled_owned(async move {
                    let mut to = TcpStream::connect(target).await.unwrap();
                    // An end of either side ends both.
                    let _ = copy_bidirectional(&mut from, &mut to).await;
                }));
            }
        });
        Self { address, way }
    }

    /// Ends all connections, and new ones as soon as they are made.
    pub(crate) fn cut(&self) {
        self.way.lock().unwrap().cancel();
    }

    pub(crate) fn mend(&self) {
        *self.way.lock().unwrap() = CancellationToken::new();
    }
}
