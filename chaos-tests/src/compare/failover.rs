//! SIGKILL of the leader to the next acknowledged write, for either system by the same clients.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, bail};
use serde::Serialize;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use trireme_harness::Executable;

use super::{Contestant, Running, table::median};
use crate::load::Target;

/// A new write is tried this often at every node that lives; earlier ones go on.
const TRY: Duration = Duration::from_millis(10);
/// The longest that a failover may take.
const BOUND: Duration = Duration::from_secs(20);
/// Bytes of a value.
const VALUE: usize = 512;

/// Of one system, in milliseconds, in the order of the kills.
#[derive(Debug, Clone, Serialize)]
pub struct Failovers {
    pub contestant: Contestant,
    pub millis: Vec<u64>,
}

impl Failovers {
    /// None without a kill.
    #[must_use]
    pub fn median(&self) -> Option<f64> {
        let millis = self.millis.iter().map(|millis| *millis as f64);
        (!self.millis.is_empty()).then(|| median(millis))
    }
}

/// Kills the leader again and again; every time all nodes are whole again before the next.
///
/// # Errors
/// When a cluster does not start, or takes no writes within 20 s.
pub async fn failovers(
    contestant: Contestant,
    executable: &Executable,
    home: &Path,
    nodes: u64,
    kills: u32,
    tell: impl Fn(&str),
) -> anyhow::Result<Failovers> {
    let directory = tempfile::Builder::new()
        .prefix(contestant.name())
        .tempdir_in(home)?;
    let mut running = Running::start(contestant, executable, directory.path(), nodes).await?;
    let mut millis = Vec::new();
    for kill in 1..=kills {
        // Leases and sessions are as in a cluster that has run for a while.
        acknowledged(&running.target()).await?;
        running.kill_leader().await?;
        let killed = Instant::now();
        acknowledged(&running.target()).await?;
        let took = u64::try_from(killed.elapsed().as_millis())?;
        tell(&format!(
            "{}: kill {kill} of {kills}: the next write is acknowledged after {took} ms",
            contestant.name()
        ));
        millis.push(took);
        running.restore().await?;
    }
    running.stop().await?;
    Ok(Failovers { contestant, millis })
}

/// Waits until any node acknowledges a write.
async fn acknowledged(target: &Target) -> anyhow::Result<()> {
    let mut doors = Vec::new();
    for endpoint in &target.endpoints {
        doors.push(target.connect_to(endpoint, VALUE).await?);
    }
    let deadline = Instant::now() + BOUND;
    let mut tries = JoinSet::new();
    loop {
        for door in &doors {
            let door = door.clone();
            tries.spawn(async move { door.put().await });
        }
        let pause = sleep(TRY);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => break,
                Some(done) = tries.join_next() => {
                    // What a node without a leader answers is not of interest.
                    if done.context("a try ended by itself")?.is_ok() {
                        return Ok(());
                    }
                }
            }
        }
        if Instant::now() >= deadline {
            bail!("no write is acknowledged within {BOUND:?}");
        }
    }
}

impl Running {
    async fn kill_leader(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Trireme(cluster) => {
                let leader = cluster.wait_for_leader().await?;
                Ok(cluster.kill(leader).await?)
            }
            Self::Etcd(cluster) => cluster.kill_leader().await,
        }
    }

    /// Starts what was killed and waits until it has caught up.
    async fn restore(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Trireme(cluster) => {
                let killed: Vec<u64> = cluster
                    .members()
                    .iter()
                    .filter(|member| !member.is_running())
                    .map(|member| member.id)
                    .collect();
                for id in killed {
                    cluster.restart(id)?;
                    cluster.wait_until_caught_up(id).await?;
                }
                Ok(())
            }
            Self::Etcd(cluster) => cluster.restore().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_even_number_of_kills_the_two_in_the_middle_count() {
        let median = |millis: &[u64]| {
            let failovers = Failovers {
                contestant: Contestant::Etcd,
                millis: millis.to_vec(),
            };
            failovers.median()
        };
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[1000, 800, 901]), Some(901.0));
        assert_eq!(median(&[1000, 800, 2000, 901]), Some(950.5));
    }
}
