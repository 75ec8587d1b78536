//! Three etcd processes on loopback, at their default settings.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};
use trireme_harness::Address;

use crate::load::{System, Target};

/// How long they may take to have a leader.
const READY: Duration = Duration::from_secs(20);
/// Processes have no event to wait for.
const ASK: Duration = Duration::from_millis(20);

#[derive(Debug)]
struct Member {
    name: String,
    peer: Address,
    client: Address,
    directory: PathBuf,
    child: Option<Child>,
}

/// Killed when dropped.
#[derive(Debug)]
pub(super) struct EtcdCluster {
    members: Vec<Member>,
}

impl EtcdCluster {
    pub(super) async fn start(directory: &Path, nodes: u64) -> anyhow::Result<Self> {
        let mut members = Vec::new();
        for number in 1..=nodes {
            let directory = directory.join(format!("etcd-{number}"));
            std::fs::create_dir_all(&directory)?;
            members.push(Member {
                name: format!("etcd-{number}"),
                peer: Address::claim()?,
                client: Address::claim()?,
                directory,
                child: None,
            });
        }
        let mut cluster = Self { members };
        for number in 0..cluster.members.len() {
            cluster.spawn(number)?;
        }
        cluster.ready().await?;
        Ok(cluster)
    }

    fn spawn(&mut self, number: usize) -> anyhow::Result<()> {
        let peers: Vec<String> = self
            .members
            .iter()
            .map(|member| format!("{}=http://{}", member.name, member.peer))
            .collect();
        let member = &mut self.members[number];
        let log = member.directory.join("etcd.log");
        let log = File::options().create(true).append(true).open(log)?;
        let (peer, client) = (
            format!("http://{}", member.peer),
            format!("http://{}", member.client),
        );
        let child = Command::new("etcd")
            .args(["--name", &member.name])
            .arg("--data-dir")
            .arg(member.directory.join("data"))
            .args(["--listen-peer-urls", &peer])
            .args(["--initial-advertise-peer-urls", &peer])
            .args(["--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client])
            .args(["--initial-cluster", &peers.join(",")])
            .args(["--initial-cluster-state", "new"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("etcd does not start; Debian has it as etcd-server")?;
        member.child = Some(child);
        Ok(())
    }

    /// Of those that run.
    pub(super) fn target(&self) -> Target {
        Target {
            system: System::Etcd,
            endpoints: self
                .members
                .iter()
                .filter(|member| member.child.is_some())
                .map(|member| member.client.to_string())
                .collect(),
        }
    }

    pub(super) fn pids(&self) -> Vec<u32> {
        self.members
            .iter()
            .filter_map(|member| member.child.as_ref()?.id())
            .collect()
    }

    /// Waits until all run and one leads.
    pub(super) async fn ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY;
        loop {
            for member in &mut self.members {
                if let Some(child) = &mut member.child
                    && let Some(status) = child.try_wait()?
                {
                    bail!(
                        "{} ended ({status}); see its log in {}",
                        member.name,
                        member.directory.display()
                    );
                }
            }
            if let Ok(leader) = self.target().leader().await {
                // All answer, so that the comparison is with a whole cluster.
                let mut whole = true;
                for endpoint in self.target().endpoints {
                    let one = Target {
                        system: System::Etcd,
                        endpoints: vec![endpoint],
                    };
                    whole &= one.knows_leader().await;
                }
                if whole && !leader.is_empty() {
                    return Ok(());
                }
            }
            if Instant::now() >= deadline {
                bail!("etcd has no leader within {READY:?}");
            }
            sleep(ASK).await;
        }
    }

    /// SIGKILL to whoever leads.
    pub(super) async fn kill_leader(&mut self) -> anyhow::Result<()> {
        let leader = self.target().leader().await?;
        let member = self
            .members
            .iter_mut()
            .find(|member| member.client.as_str() == leader)
            .context("a leader of another cluster")?;
        let mut child = member.child.take().context("it does not run")?;
        child.kill().await?;
        Ok(())
    }

    /// Starts from their directories those that were killed.
    pub(super) async fn restore(&mut self) -> anyhow::Result<()> {
        for number in 0..self.members.len() {
            if self.members[number].child.is_none() {
                self.spawn(number)?;
            }
        }
        self.ready().await
    }

    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        for member in &mut self.members {
            if let Some(mut child) = member.child.take() {
                child.kill().await?;
            }
        }
        Ok(())
    }
}
