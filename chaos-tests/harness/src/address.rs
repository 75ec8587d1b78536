//! Addresses for nodes, which are told where to listen before they start and listen there again after they were killed.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    net::TcpListener,
    ops::Range,
    path::PathBuf,
    sync::atomic::{AtomicU16, Ordering},
};

/// Below what systems hand out by themselves (Linux from 32768, others from 49152), so that no outgoing connection and
/// no listener on port 0 takes a node's port while the node is down.
const PORTS: Range<u16> = 20_000..32_000;

/// Where the next search in this process begins; processes begin apart from each other.
static NEXT: AtomicU16 = AtomicU16::new(0);

/// Of this user: another's files could not be locked.
fn claims() -> PathBuf {
    let user = rustix::process::getuid().as_raw();
    std::env::temp_dir().join(format!("trireme-ports-{user}"))
}

/// A loopback address that no other user of the harness on this machine is given while this value lives.
#[derive(Debug)]
pub struct Address {
    text: String,
    /// Locked for as long as the port is ours: whether anybody listens there says nothing about a node that is down.
    /// None in a network of our own.
    _claim: Option<File>,
}

impl Address {
    /// # Errors
    /// When the directory of claims cannot be written, or every port is in use.
    pub fn claim() -> io::Result<Self> {
        let claims = claims();
        std::fs::create_dir_all(&claims)?;
        let count = PORTS.end - PORTS.start;
        let apart = (std::process::id() % u32::from(count)) as u16;
        for _ in 0..count {
            let step = NEXT.fetch_add(1, Ordering::Relaxed) % count;
            // Far apart for neighbouring process ids, near for one process.
            let offset = (u32::from(apart) * 97 + u32::from(step)) % u32::from(count);
            let port = PORTS.start + offset as u16;
            let claim = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(claims.join(port.to_string()))?;
            match claim.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(error)) => return Err(error),
            }
            if TcpListener::bind(("127.0.0.1", port)).is_ok() {
                return Ok(Self {
                    text: format!("127.0.0.1:{port}"),
                    _claim: Some(claim),
                });
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            format!("no port of {PORTS:?} is free"),
        ))
    }

    /// In a network where nobody else takes it.
    pub(crate) fn of(address: std::net::SocketAddr) -> Self {
        Self {
            text: address.to_string(),
            _claim: None,
        }
    }

    pub(crate) fn socket(&self) -> io::Result<std::net::SocketAddr> {
        self.text.parse().map_err(io::Error::other)
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claimed_port_is_given_to_nobody_else_until_it_is_given_back() {
        let first = Address::claim().unwrap();
        let port = first.as_str().rsplit_once(':').unwrap().1;
        let again = File::options()
            .write(true)
            .open(claims().join(port))
            .unwrap();
        assert!(matches!(again.try_lock(), Err(TryLockError::WouldBlock)));
        assert_ne!(Address::claim().unwrap().as_str(), first.as_str());
        drop(first);
        again.try_lock().unwrap();
    }
}
