//! A closed loop of clients against a store, ours or etcd: the same loop for both, so that figures can be compared.
//!
//! A put is one durable write of the store's own API, acknowledged when a majority has it on disk: in Trireme a job is
//! created, in etcd a key is put. A get is linearizable. Every client asks again as soon as it has its answer; what is
//! asked while the loop warms up is not counted.

mod etcd;
mod figures;
mod grpc;
mod target;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use clap::ValueEnum;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

pub use figures::{Figures, Latency};
pub(crate) use target::Door;
pub use target::{System, Target};

/// The longest that one operation may take; then it counts as an error.
const OPERATION: Duration = Duration::from_secs(15);
/// Records that are there before reads are measured.
const PREPARED: u64 = 10_000;
/// Clients that prepare them.
const PREPARERS: u64 = 64;
/// Errors after which a run ends at once: what it would measure is no store any more.
const MAX_ERRORS: u64 = 100_000;

/// What the clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Operation {
    /// Durable writes.
    Put,
    /// Linearizable reads.
    Read,
    /// One of each in turn.
    Mixed,
}

impl Operation {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Read => "read",
            Self::Mixed => "mixed",
        }
    }
}

/// One measurement.
#[derive(Debug, Clone)]
pub struct Plan {
    pub clients: u64,
    /// Bytes of one value; in Trireme of a job's whole ProwJob.
    pub value_bytes: usize,
    pub warm_up: Duration,
    pub measured: Duration,
    pub operation: Operation,
}

/// One connection for so many clients, as `etcdctl check perf` and its like do.
const CLIENTS_PER_CONNECTION: u64 = 16;

/// Runs the loop.
///
/// # Errors
/// When the store cannot be reached, holds nothing to read, or answers almost nothing but errors.
pub async fn run(target: &Target, plan: &Plan) -> anyhow::Result<Figures> {
    ensure!(plan.clients > 0, "at least one client is needed");
    ensure!(!plan.measured.is_zero(), "a measurement takes some time");
    let connections = plan.clients.div_ceil(CLIENTS_PER_CONNECTION);
    let mut doors = Vec::new();
    for _ in 0..connections {
        doors.push(target.connect(plan.value_bytes).await?);
    }
    let keys = match plan.operation {
        Operation::Put => Arc::default(),
        Operation::Read | Operation::Mixed => Arc::new(prepare(&doors).await?),
    };
    let start = Instant::now();
    let counting = start + plan.warm_up;
    let end = counting + plan.measured;
    let errors = Arc::new(AtomicU64::new(0));
    let mut clients = JoinSet::new();
    for client in 0..plan.clients {
        let door = doors[(client % connections) as usize].clone();
        let (keys, errors) = (Arc::clone(&keys), Arc::clone(&errors));
        let operation = plan.operation;
        clients.spawn(async move {
            let mut figures = Figures::new()?;
            for turn in client.. {
                let now = Instant::now();
                if now >= end || errors.load(Ordering::Relaxed) >= MAX_ERRORS {
                    break;
                }
                let write = match operation {
                    Operation::Put => true,
                    Operation::Read => false,
                    Operation::Mixed => turn % 2 == 0,
                };
                let done = if write {
                    timeout(OPERATION, door.put()).await
                } else {
                    let key = &keys[(turn.wrapping_mul(7919) % keys.len() as u64) as usize];
                    timeout(OPERATION, door.get(key)).await
                };
                let took = now.elapsed();
                let counted = now >= counting;
                match done {
                    Ok(Ok(_)) if counted => figures.count(took)?,
                    Ok(Ok(_)) => figures.warm_up(),
                    Ok(Err(why)) => {
                        errors.fetch_add(1, Ordering::Relaxed);
                        figures.fail(counted, format!("{why:#}"));
                    }
                    Err(_) => {
                        errors.fetch_add(1, Ordering::Relaxed);
                        figures.fail(counted, format!("no answer within {OPERATION:?}"));
                    }
                }
            }
            anyhow::Ok(figures)
        });
    }
    let mut all = Figures::new()?;
    while let Some(client) = clients.join_next().await {
        all.add(client.context("a client ended by itself")??)?;
    }
    all.all += keys.len() as u64;
    all.seconds = plan.measured.as_secs_f64();
    if all.operations == 0 {
        let why = all.first_error.as_deref().unwrap_or("none was answered");
        bail!("no operation succeeded: {why}");
    }
    Ok(all)
}

/// Puts the records that reads will ask for.
async fn prepare(doors: &[Door]) -> anyhow::Result<Vec<String>> {
    let mut preparing = JoinSet::new();
    for preparer in 0..PREPARERS {
        let door = doors[preparer as usize % doors.len()].clone();
        preparing.spawn(async move {
            let mut keys = Vec::new();
            for _ in 0..PREPARED / PREPARERS {
                let put = timeout(OPERATION, door.put()).await;
                keys.push(put.context("no answer while preparing")??);
            }
            anyhow::Ok(keys)
        });
    }
    let mut keys = Vec::new();
    while let Some(made) = preparing.join_next().await {
        keys.extend(made.context("preparing ended by itself")??);
    }
    Ok(keys)
}
