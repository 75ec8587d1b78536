//! What surrounds one life of a node: its clock, the speed of its disk, its end of the network.

use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt as _, future::BoxFuture, stream, stream::BoxStream};
use tokio::time::Instant;
use trireme_raft::{Pipe, World};

use super::{chance::Chance, network::Network};

/// What the clocks of a simulation say at its beginning: some day in 2027.
pub(crate) const BEGINNING_MS: i64 = 1_800_000_000_000;
/// A piece of work on an undisturbed disk.
const DISK_US: (u64, u64) = (20, 1500);
/// One piece of work in so many takes as long as on a busy disk.
const STALL_ONE_IN: u64 = 200;
const STALL_MS: (u64, u64) = (10, 150);

/// One vote or heartbeat in so many comes twice.
const REPEAT_ONE_IN: u64 = 20;

/// What a node's hardware is like; it outlives its crashes.
#[derive(Debug)]
pub(crate) struct Hardware {
    /// How far its clock is off.
    pub(crate) offset_ms: AtomicI64,
    /// Its disk's work takes this many times as long.
    pub(crate) slowness: AtomicU64,
}

impl Default for Hardware {
    fn default() -> Self {
        Self {
            offset_ms: AtomicI64::new(0),
            slowness: AtomicU64::new(1),
        }
    }
}

pub(crate) struct Life {
    pub(crate) node: u64,
    pub(crate) network: Network,
    pub(crate) chance: Chance,
    pub(crate) hardware: Arc<Hardware>,
    pub(crate) began: Instant,
    /// Nothing that this life still does reaches anybody.
    pub(crate) over: AtomicBool,
}

impl fmt::Debug for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Life")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

/// Where a node's peers reach it.
pub(crate) fn peer_address(node: u64) -> String {
    format!("{node}:7")
}

/// Where clients reach it.
pub(crate) fn door_address(node: u64) -> String {
    format!("{node}:80")
}

/// Simulated time as milliseconds since the Unix epoch; `began` is when the simulation did.
pub(crate) fn true_ms(began: Instant) -> i64 {
    let passed = i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX);
    BEGINNING_MS.saturating_add(passed)
}

impl World for Life {
    fn wall_ms(&self) -> i64 {
        true_ms(self.began) + self.hardware.offset_ms.load(Ordering::SeqCst)
    }

    fn disk_wait(&self) -> Duration {
        let wait = if self.chance.one_in(STALL_ONE_IN) {
            self.chance.millis(STALL_MS.0, STALL_MS.1)
        } else {
            let (least, most) = DISK_US;
            self.chance
                .between(Duration::from_micros(least), Duration::from_micros(most))
        };
        let slowness = self.hardware.slowness.load(Ordering::SeqCst);
        wait.saturating_mul(u32::try_from(slowness).unwrap_or(u32::MAX))
    }

    fn connect(&self, address: &str) -> BoxFuture<'static, io::Result<Pipe>> {
        if self.over.load(Ordering::SeqCst) {
            return Box::pin(async { Err(io::ErrorKind::NetworkDown.into()) });
        }
        let (network, node, address) = (self.network.clone(), self.node, address.to_owned());
        Box::pin(async move { network.connect(node, &address).await })
    }

    fn repeats(&self) -> bool {
        self.chance.one_in(REPEAT_ONE_IN)
    }

    fn listen(&self) -> BoxStream<'static, io::Result<Pipe>> {
        // One that was killed while it started must not take the address from the next.
        if self.over.load(Ordering::SeqCst) {
            return stream::pending().boxed();
        }
        let arriving = self.network.listen(self.node, &peer_address(self.node));
        stream::unfold(arriving, async |mut arriving| {
            let pipe = arriving.recv().await?;
            Some((Ok(pipe), arriving))
        })
        .boxed()
    }
}
