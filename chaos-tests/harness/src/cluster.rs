//! The node processes of one cluster.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout};
use trireme_api::client::{Client, ConnectError};
use trireme_proto::api::{ClusterStatusRequest, ClusterStatusResponse};

use crate::{
    address::Address,
    hub::{API_PORT, PEER_PORT, inside},
    links::Behind,
    process::{Executable, Process},
    settings::{
        BootstrapNode, ClusterSettings, ClusterTable, Ground, NodeFile, PeerTable, StorageTable,
        WebhookTable,
    },
};

/// How long a cluster may take to have a leader.
const READY_TIMEOUT: Duration = Duration::from_secs(20);
/// Processes have no event to wait for; their doors are asked this often.
const ASK_PERIOD: Duration = Duration::from_millis(20);
/// A door that says nothing for so long is asked again: its node may be stopped or cut off.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Libfaketime's file in a node's directory.
const CLOCK: &str = "clock";

/// Why the harness could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the settings of node {node} do not serialise: {source}")]
    Settings { node: u64, source: toml::ser::Error },
    #[error("there is no node {0}")]
    NoNode(u64),
    #[error("node {node} ended by itself ({status}); its last words:\n{tail}")]
    Ended {
        node: u64,
        status: String,
        tail: String,
    },
    #[error("no leader within {0:?}")]
    NoLeader(Duration),
    #[error("node {node} has not applied revision {target} within {bound:?}")]
    Behind {
        node: u64,
        target: u64,
        bound: Duration,
    },
    #[error("node {0} runs again although its id is used up")]
    LetIn(u64),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Status(#[from] tonic::Status),
}

/// One node of a cluster.
#[derive(Debug)]
pub struct Member {
    pub id: u64,
    /// Where others reach it; it listens there unless it is behind links.
    pub peer: Address,
    pub api: Address,
    /// Where it listens behind links, for peers and at its door.
    behind: Option<(Address, Address)>,
    /// Another build than the cluster's.
    executable: Option<Executable>,
    pub directory: PathBuf,
    process: Option<Process>,
    stopped: bool,
    /// Its data directory is a file system of its own.
    mounted: bool,
}

impl Drop for Member {
    fn drop(&mut self) {
        if self.mounted {
            // Before the file system can go its process must; whoever kept the directory sees what is left.
            self.process = None;
            let gone = std::process::Command::new("umount")
                .arg("--lazy")
                .arg(self.data())
                .status();
            if !gone.is_ok_and(|status| status.success()) {
                tracing::warn!(directory = %self.data().display(), "the small disk is still mounted");
            }
        }
    }
}

/// A node that ended by itself.
#[derive(Debug, Clone)]
pub struct Ended {
    pub status: String,
    /// The end of its log.
    pub words: String,
}

impl Member {
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    #[must_use]
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.api)
    }

    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.directory.join("node.log")
    }

    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// By SIGSTOP.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }
}

/// How a node that came back under a used-up id was turned away.
#[derive(Debug, Clone)]
pub struct Refused {
    pub exit_code: Option<i32>,
    /// The end of its log.
    pub words: String,
}

/// Killed when dropped.
#[derive(Debug)]
pub struct Cluster {
    executable: Executable,
    settings: ClusterSettings,
    members: Vec<Member>,
    /// Those that were replaced.
    former: Vec<Member>,
    next_id: u64,
    first_door: String,
}

impl Cluster {
    /// Starts all nodes and waits until they have a leader.
    ///
    /// # Errors
    /// When a process does not start or no leader is elected within 20 s.
    pub async fn start(
        executable: Executable,
        settings: ClusterSettings,
    ) -> Result<Self, ClusterError> {
        let mut cluster = Self {
            members: Vec::new(),
            former: Vec::new(),
            first_door: String::new(),
            next_id: settings.nodes + 1,
            executable,
            settings,
        };
        for id in 1..=cluster.settings.nodes {
            cluster.add_member(id)?;
        }
        cluster.first_door = cluster.member(1)?.api.to_string();
        let bootstrap: Vec<(u64, String, String)> = cluster
            .members
            .iter()
            .map(|member| (member.id, member.peer.to_string(), member.api.to_string()))
            .collect();
        for id in 1..=cluster.settings.nodes {
            let table = ClusterTable {
                bootstrap: bootstrap
                    .iter()
                    .map(|(id, peer, api)| BootstrapNode { id: *id, peer, api })
                    .collect(),
                join: Vec::new(),
            };
            cluster.write_settings(id, table)?;
            cluster.spawn(id)?;
        }
        cluster.wait_for_leader().await?;
        Ok(cluster)
    }

    fn add_member(&mut self, id: u64) -> Result<(), ClusterError> {
        let directory = self.settings.directory.join(format!("node-{id}"));
        std::fs::create_dir_all(&directory)?;
        let ground = &self.settings.ground;
        let (peer, api, behind) = if let Some(hub) = &ground.hub {
            let (node, proxies) = hub.add(id)?;
            let at = |ip, port| Address::of((ip, port).into());
            (
                at(proxies, PEER_PORT),
                at(proxies, API_PORT),
                Some((at(node, PEER_PORT), at(node, API_PORT))),
            )
        } else {
            let behind = match &ground.links {
                Some(_) => Some((Address::claim()?, Address::claim()?)),
                None => None,
            };
            (Address::claim()?, Address::claim()?, behind)
        };
        if let (Some(links), Some((back_peer, back_api))) = (&ground.links, &behind) {
            for (front, back) in [(&peer, back_peer), (&api, back_api)] {
                links.put_in_front(Behind {
                    node: id,
                    front: front.socket()?,
                    back: back.socket()?,
                });
            }
        }
        let mut member = Member {
            id,
            peer,
            api,
            behind,
            executable: None,
            directory,
            process: None,
            stopped: false,
            mounted: false,
        };
        if let Some(disk) = ground.small_disk.filter(|disk| disk.node == id) {
            std::fs::create_dir_all(member.data())?;
            let mounted = std::process::Command::new("mount")
                .args(["-t", "tmpfs", "-o"])
                .arg(format!("size={}", disk.bytes))
                .arg("small-disk")
                .arg(member.data())
                .status()?;
            if !mounted.success() {
                return Err(io::Error::other("a small disk cannot be mounted").into());
            }
            member.mounted = true;
        }
        if ground.clock_library.is_some() {
            std::fs::write(member.directory.join(CLOCK), clock(0))?;
        }
        self.members.push(member);
        Ok(())
    }

    fn write_settings(&self, id: u64, cluster: ClusterTable<'_>) -> Result<(), ClusterError> {
        let member = self.member(id)?;
        let (peer, api) = match &member.behind {
            Some((peer, api)) => (peer, api),
            None => (&member.peer, &member.api),
        };
        let file = NodeFile {
            node_id: id,
            data_dir: member.data(),
            listen: api.as_str(),
            advertise: member.behind.is_some().then(|| member.api.as_str()),
            peer: PeerTable {
                listen: peer.as_str(),
                advertise: member.behind.is_some().then(|| member.peer.as_str()),
            },
            cluster,
            storage: StorageTable {
                url: self.settings.storage.display().to_string(),
                shared: true,
            },
            github: self.settings.github.as_ref(),
            webhook: self
                .settings
                .hmac_secret_file
                .clone()
                .map(|hmac_secret_file| WebhookTable {
                    url: format!("http://{}/hook", self.first_door),
                    hmac_secret_file,
                }),
        };
        let text =
            toml::to_string(&file).map_err(|source| ClusterError::Settings { node: id, source })?;
        std::fs::write(member.directory.join("trireme.toml"), text)?;
        Ok(())
    }

    fn spawn(&mut self, id: u64) -> Result<(), ClusterError> {
        let common = self.executable.clone();
        let ground = self.settings.ground.clone();
        let member = self.member_mut(id)?;
        let mut executable = member.executable.clone().unwrap_or(common);
        if let Some(library) = &ground.clock_library {
            let file = member.directory.join(CLOCK).display().to_string();
            executable.variables.extend(
                [
                    ("LD_PRELOAD", library.display().to_string().as_str()),
                    ("FAKETIME_TIMESTAMP_FILE", &file),
                    // Timeouts are not to jump, and neither are files.
                    ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
                    ("DONT_FAKE_MONOTONIC", "1"),
                    ("NO_FAKE_STAT", "1"),
                    ("FAKETIME_CACHE_DURATION", "1"),
                ]
                .map(|(key, value)| (key.to_owned(), value.to_owned())),
            );
        }
        if ground.hub.is_some() {
            let program = executable.program.display().to_string();
            let inner = std::mem::take(&mut executable.prefix);
            executable.program = "nsenter".into();
            executable.prefix = vec![inside(id), program];
            executable.prefix.extend(inner);
        }
        let arguments = [
            "serve".to_owned(),
            "--config".to_owned(),
            member.directory.join("trireme.toml").display().to_string(),
        ];
        let process = Process::spawn(&executable, &arguments, &member.log())?;
        if let Some(links) = &ground.links {
            links.started(id, process.pid());
        }
        member.process = Some(process);
        member.stopped = false;
        Ok(())
    }

    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    #[must_use]
    pub fn ids(&self) -> Vec<u64> {
        self.members.iter().map(|member| member.id).collect()
    }

    /// # Errors
    /// When there is no such node.
    pub fn member(&self, id: u64) -> Result<&Member, ClusterError> {
        self.members
            .iter()
            .find(|member| member.id == id)
            .ok_or(ClusterError::NoNode(id))
    }

    fn member_mut(&mut self, id: u64) -> Result<&mut Member, ClusterError> {
        self.members
            .iter_mut()
            .find(|member| member.id == id)
            .ok_or(ClusterError::NoNode(id))
    }

    /// Addresses of all nodes' doors, running or not.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.members
            .iter()
            .map(|member| member.api.to_string())
            .collect()
    }

    /// A connection to whichever node answers first.
    ///
    /// # Errors
    /// When none does.
    pub async fn client(&self) -> Result<Client, ClusterError> {
        Ok(Client::connect(&self.addresses().join(",")).await?)
    }

    /// What one node says of the cluster.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn status(&self, id: u64) -> Result<ClusterStatusResponse, ClusterError> {
        let url = self.member(id)?.url();
        let asking = async {
            let client = Client::connect(&url).await?;
            let answer = client.cluster().status(ClusterStatusRequest {}).await?;
            Ok(answer.into_inner())
        };
        timeout(ANSWER_TIMEOUT, asking).await.unwrap_or_else(|_| {
            Err(tonic::Status::deadline_exceeded(format!("node {id} says nothing")).into())
        })
    }

    /// Waits for a leader that is a running node and knows it.
    ///
    /// # Errors
    /// When there is none within 20 s, or a node ended by itself.
    pub async fn wait_for_leader(&mut self) -> Result<u64, ClusterError> {
        let deadline = Instant::now() + READY_TIMEOUT;
        while Instant::now() < deadline {
            self.check_alive()?;
            let asked = |member: &&Member| member.is_running() && !member.stopped;
            for member in self.members.iter().filter(asked) {
                // One that was elected just now may not be sure of it yet, and names nobody.
                if let Ok(status) = self.status(member.id).await
                    && status.role == "leader"
                    && status.leader_id == member.id
                    && status.nodes.iter().any(|node| node.id == member.id)
                {
                    return Ok(member.id);
                }
            }
            sleep(ASK_PERIOD).await;
        }
        Err(ClusterError::NoLeader(READY_TIMEOUT))
    }

    /// Fails when a node that nobody killed has ended.
    ///
    /// # Errors
    /// With its last words.
    pub fn check_alive(&mut self) -> Result<(), ClusterError> {
        for member in &mut self.members {
            if let Some(status) = member.process.as_mut().and_then(Process::exited) {
                return Err(ClusterError::Ended {
                    node: member.id,
                    status: status.to_string(),
                    tail: tail(&member.log()),
                });
            }
        }
        Ok(())
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// When there is no such node.
    pub async fn kill(&mut self, id: u64) -> Result<(), ClusterError> {
        let links = self.settings.ground.links.clone();
        let member = self.member_mut(id)?;
        member.stopped = false;
        if let Some(mut process) = member.process.take() {
            process.kill().await?;
            if let Some(links) = links {
                links.ended(id);
            }
        }
        Ok(())
    }

    /// SIGTERM to one, and waits for its end.
    ///
    /// # Errors
    /// When there is no such node or it does not end within 20 s.
    pub async fn terminate(&mut self, id: u64) -> Result<(), ClusterError> {
        if let Some(process) = &mut self.member_mut(id)?.process
            && process.exited().is_none()
        {
            process.terminate()?;
            if timeout(READY_TIMEOUT, process.wait()).await.is_err() {
                return Err(io::Error::other(format!(
                    "node {id} does not end within {READY_TIMEOUT:?} of SIGTERM"
                ))
                .into());
            }
        }
        self.kill(id).await
    }

    /// SIGSTOP: nothing of it runs until [`Self::resume`], but its connections stay.
    ///
    /// # Errors
    /// When there is no such node or it does not run.
    pub fn pause(&mut self, id: u64) -> Result<(), ClusterError> {
        let member = self.member_mut(id)?;
        let process = member.process.as_ref().ok_or(ClusterError::NoNode(id))?;
        process.signal(rustix::process::Signal::STOP)?;
        member.stopped = true;
        Ok(())
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// When there is no such node or it does not run.
    pub fn resume(&mut self, id: u64) -> Result<(), ClusterError> {
        let member = self.member_mut(id)?;
        let process = member.process.as_ref().ok_or(ClusterError::NoNode(id))?;
        process.signal(rustix::process::Signal::CONT)?;
        member.stopped = false;
        Ok(())
    }

    /// Sets a node's wall clock this far off, at once. Its monotonic clock goes on.
    ///
    /// # Errors
    /// When there is no such node or no library for it.
    pub fn set_clock(&self, id: u64, offset_seconds: i64) -> Result<(), ClusterError> {
        let file = self.member(id)?.directory.join(CLOCK);
        // Never half a line, nor none.
        let new = file.with_extension("new");
        std::fs::write(&new, clock(offset_seconds))?;
        std::fs::rename(&new, &file)?;
        Ok(())
    }

    /// What is said of a node that ended by itself; it can be restarted then. None while it runs.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn take_ended(&mut self, id: u64) -> Result<Option<Ended>, ClusterError> {
        let links = self.settings.ground.links.clone();
        let member = self.member_mut(id)?;
        let Some(status) = member.process.as_mut().and_then(Process::exited) else {
            return Ok(None);
        };
        member.process = None;
        if let Some(links) = links {
            links.ended(id);
        }
        Ok(Some(Ended {
            status: status.to_string(),
            words: tail(&member.log()),
        }))
    }

    #[must_use]
    pub fn ground(&self) -> &Ground {
        &self.settings.ground
    }

    /// Runs this build from the node's next start on.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn install(&mut self, id: u64, executable: &Executable) -> Result<(), ClusterError> {
        self.member_mut(id)?.executable = Some(executable.clone());
        Ok(())
    }

    /// Waits until a node ends by itself.
    ///
    /// # Errors
    /// When there is no such node, or it still runs after 20 s: it is killed then.
    pub async fn end_of(&mut self, id: u64) -> Result<Refused, ClusterError> {
        let links = self.settings.ground.links.clone();
        let member = self.member_mut(id)?;
        let log = member.log();
        let mut process = member.process.take().ok_or(ClusterError::NoNode(id))?;
        let ended = end_of(id, &mut process, &log).await;
        if let Some(links) = links {
            links.ended(id);
        }
        ended
    }

    /// Starts a killed node from its directory.
    ///
    /// # Errors
    /// When it does not start.
    pub fn restart(&mut self, id: u64) -> Result<(), ClusterError> {
        self.spawn(id)
    }

    /// Starts a node with an empty directory under a new id, which joins as a learner.
    ///
    /// # Errors
    /// When it does not start.
    pub fn join(&mut self) -> Result<u64, ClusterError> {
        let id = self.next_id;
        self.next_id += 1;
        self.add_member(id)?;
        let peers: Vec<String> = self
            .members
            .iter()
            .filter(|member| member.is_running())
            .map(|member| member.peer.to_string())
            .collect();
        self.write_settings(
            id,
            ClusterTable {
                bootstrap: Vec::new(),
                join: peers.iter().map(String::as_str).collect(),
            },
        )?;
        self.spawn(id)?;
        Ok(id)
    }

    /// The node's disk is lost: it is killed, its directory removed, and a node with an empty directory joins under a
    /// new id in its place.
    ///
    /// # Errors
    /// When the new node does not start or the cluster refuses the change.
    pub async fn replace(&mut self, id: u64) -> Result<u64, ClusterError> {
        self.kill(id).await?;
        std::fs::remove_dir_all(self.member(id)?.data())?;
        let new_id = self.join()?;
        self.wait_until_member(new_id).await?;
        let client = self.client().await?;
        client
            .cluster()
            .replace_node(trireme_proto::api::ReplaceNodeRequest { old_id: id, new_id })
            .await?;
        let gone = self.members.extract_if(.., |member| member.id == id);
        self.former.extend(gone);
        Ok(new_id)
    }

    /// A replaced node comes back with an empty directory under its old id and asks to join; waits until it gives up.
    ///
    /// # Errors
    /// When there is no such former node, or it still runs after 20 s: it was let in.
    pub async fn return_of_former(&mut self, id: u64) -> Result<Refused, ClusterError> {
        let place = self.former.iter().position(|member| member.id == id);
        let former = self
            .former
            .swap_remove(place.ok_or(ClusterError::NoNode(id))?);
        let log = former.log();
        let peers: Vec<String> = self.members.iter().map(|m| m.peer.to_string()).collect();
        self.members.push(former);
        let join = peers.iter().map(String::as_str).collect();
        let started = self
            .write_settings(
                id,
                ClusterTable {
                    bootstrap: Vec::new(),
                    join,
                },
            )
            .and_then(|()| self.spawn(id));
        let former = self.members.pop();
        started?;
        let mut process = former
            .and_then(|mut former| {
                let process = former.process.take();
                self.former.push(former);
                process
            })
            .ok_or(ClusterError::NoNode(id))?;
        end_of(id, &mut process, &log).await
    }

    /// Waits until the node has applied all that another one has now.
    ///
    /// # Errors
    /// When it has not within 20 s, or a node ended by itself.
    pub async fn wait_until_caught_up(&mut self, id: u64) -> Result<(), ClusterError> {
        let leader = self.wait_for_leader().await?;
        let target = self.status(leader).await?.applied_index;
        let deadline = Instant::now() + READY_TIMEOUT;
        while Instant::now() < deadline {
            self.check_alive()?;
            if let Ok(status) = self.status(id).await
                && status.applied_index >= target
                && status.leader_id > 0
            {
                return Ok(());
            }
            sleep(ASK_PERIOD).await;
        }
        Err(ClusterError::Behind {
            node: id,
            target,
            bound: READY_TIMEOUT,
        })
    }

    /// Waits until the cluster's membership has the node.
    ///
    /// # Errors
    /// When it has not within 20 s, or a node ended by itself.
    pub async fn wait_until_member(&mut self, id: u64) -> Result<(), ClusterError> {
        let deadline = Instant::now() + READY_TIMEOUT;
        while Instant::now() < deadline {
            self.check_alive()?;
            if let Ok(client) = self.client().await
                && let Ok(status) = client.cluster().status(ClusterStatusRequest {}).await
                && status.get_ref().nodes.iter().any(|node| node.id == id)
            {
                return Ok(());
            }
            sleep(ASK_PERIOD).await;
        }
        Err(ClusterError::NoLeader(READY_TIMEOUT))
    }

    /// SIGTERM to all, and waits for their end.
    ///
    /// # Errors
    /// When a process cannot be waited for.
    pub async fn stop(&mut self) -> Result<(), ClusterError> {
        for member in &mut self.members {
            if let Some(process) = &mut member.process
                && process.exited().is_none()
            {
                process.terminate()?;
                // A stopped process would not hear of it.
                process.signal(rustix::process::Signal::CONT)?;
            }
        }
        for member in &mut self.members {
            if let Some(mut process) = member.process.take() {
                process.wait().await?;
            }
        }
        Ok(())
    }
}

async fn end_of(id: u64, process: &mut Process, log: &Path) -> Result<Refused, ClusterError> {
    match timeout(READY_TIMEOUT, process.wait()).await {
        Ok(status) => Ok(Refused {
            exit_code: status?.code(),
            words: tail(log),
        }),
        Err(_) => {
            process.kill().await?;
            Err(ClusterError::LetIn(id))
        }
    }
}

/// As libfaketime reads it.
fn clock(offset_seconds: i64) -> String {
    format!("{offset_seconds:+}\n")
}

/// The end of a log, for an error.
fn tail(log: &Path) -> String {
    const LINES: usize = 20;
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
