//! Nodes without work beside a machine that is busy: nobody may be elected but the first.

use std::{
    fmt,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde::Serialize;
use tokio::time::{Instant, sleep};
use trireme_harness::{Cluster, ClusterSettings, Executable, Ground};

/// Processes that compute all the time.
pub const BUSY: usize = 4;
/// Between two looks at the nodes' terms.
const LOOK: Duration = Duration::from_millis(500);
/// Elections that belong to the start.
const SETTLE: Duration = Duration::from_secs(3);

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Idle {
    pub nodes: u64,
    pub seconds: f64,
    /// Terms that began while nothing was to be done; a campaign that found no majority counts as well.
    pub elections: u64,
    /// Changes of who leads.
    pub leaders: u64,
}

impl Idle {
    #[must_use]
    pub fn passed(&self) -> bool {
        self.elections == 0 && self.leaders == 0
    }
}

impl fmt::Display for Idle {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "{}  {} idle nodes beside {BUSY} busy processes for {:.0} s: {} elections, {} changes of the leader",
            if self.passed() { "passed" } else { "FAILED" },
            self.nodes,
            self.seconds,
            self.elections,
            self.leaders
        )
    }
}

/// Killed when dropped.
struct Busy(Child);

impl Busy {
    fn start() -> std::io::Result<Self> {
        let child = Command::new("sh")
            .args(["-c", "while :; do :; done"])
            .stdin(Stdio::null())
            .spawn()?;
        Ok(Self(child))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        // Already gone is as good.
        let _gone = self.0.kill();
        let _waited = self.0.wait();
    }
}

/// Runs nodes with the timeouts that are shipped.
///
/// # Errors
/// When the nodes do not start, or one ends.
pub async fn idle(
    executable: Executable,
    directory: &Path,
    nodes: u64,
    duration: Duration,
    tell: impl Fn(&str),
) -> anyhow::Result<Idle> {
    let storage = directory.join("artifacts");
    std::fs::create_dir_all(&storage)?;
    let settings = ClusterSettings {
        directory: directory.to_owned(),
        nodes,
        github: None,
        hmac_secret_file: None,
        storage,
        ground: Ground::default(),
    };
    let mut cluster = Cluster::start(executable, settings).await?;
    sleep(SETTLE).await;
    let busy: Vec<Busy> = (0..BUSY).map(|_| Busy::start()).collect::<Result<_, _>>()?;
    let leader = cluster.wait_for_leader().await?;
    let status = cluster.status(leader).await?;
    let (mut term, mut leads) = (status.term, leader);
    let first = term;
    tell(&format!(
        "node {leader} leads in term {term}; {BUSY} processes are busy"
    ));
    let start = Instant::now();
    let mut leaders = 0;
    while start.elapsed() < duration {
        cluster.check_alive()?;
        for id in 1..=nodes {
            // A node that is late with its answer is asked again.
            let Ok(status) = cluster.status(id).await else {
                continue;
            };
            if status.term > term {
                term = status.term;
                let at = start.elapsed().as_secs_f64();
                tell(&format!("after {at:.1} s node {id} is in term {term}"));
            }
            if status.role == "leader" && status.term == term && status.node_id != leads {
                leads = status.node_id;
                leaders += 1;
                tell(&format!("node {leads} leads"));
            }
        }
        sleep(LOOK).await;
    }
    drop(busy);
    cluster.stop().await?;
    Ok(Idle {
        nodes,
        seconds: start.elapsed().as_secs_f64(),
        elections: term - first,
        leaders,
    })
}
