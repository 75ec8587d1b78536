//! One world with somebody who records: what every scenario is told on.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use tokio::time::sleep;
use trireme_harness::{ConfigText, Executable, Ground, Stage, StageSettings};
use trireme_proto::state::JobState;
use trireme_sandbox::{
    Logged,
    world::{Pr, World},
};

use crate::{
    History, Known, Merged, Recorder, Sent,
    recorder::{digests, read_all},
    sender::Sender,
};

/// Opens and pushes; a member.
pub const AUTHOR: &str = "author";
/// Named in OWNERS.
pub const APPROVER: &str = "approver";
/// The longest that any single step may take.
pub const STEP: Duration = Duration::from_secs(45);

const NODES: u64 = 3;
const AGENTS: usize = 2;
/// Runs that one agent takes at once.
const AGENT_CAPACITY: u32 = 6;
/// Looks for a moment at which nothing changes.
const MAX_LOOKS: usize = 50;
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Tells what happens as it happens.
pub type Teller = Box<dyn Fn(&str) + Send + Sync>;

/// Everything that runs, and the record of it.
pub struct Scene {
    pub stage: Stage,
    pub recorder: Recorder,
    sender: Sender,
    pings: Vec<Sent>,
    failovers: Vec<Duration>,
    pub(crate) teller: Teller,
    gate: PathBuf,
}

impl Scene {
    /// Three nodes with a configuration, two agents that have registered, a repository with one presubmit (`unit`,
    /// which ends when the gate is open) and one postsubmit (`publish`).
    ///
    /// # Errors
    /// When the world does not come up.
    pub async fn set(
        executable: Executable,
        directory: &Path,
        teller: Teller,
    ) -> anyhow::Result<Self> {
        Self::set_on(executable, directory, NODES, Ground::default(), teller).await
    }

    /// The same with so many nodes, on ground on which they can be disturbed.
    ///
    /// # Errors
    /// When the world does not come up.
    pub async fn set_on(
        executable: Executable,
        directory: &Path,
        nodes: u64,
        ground: Ground,
        teller: Teller,
    ) -> anyhow::Result<Self> {
        let world = World::builder().bound(STEP).file(
            "OWNERS",
            format!("approvers:\n- {APPROVER}\nreviewers:\n- reviewer\n- {APPROVER}\n"),
        );
        let settings = StageSettings {
            executable,
            directory: directory.to_owned(),
            nodes,
            agents: AGENTS,
            agent_capacity: AGENT_CAPACITY,
            ground,
        };
        let stage = Stage::set(world, settings).await?;
        let scene = Self {
            recorder: Recorder::start(stage.cluster.addresses()),
            stage,
            sender: Sender::new()?,
            pings: Vec::new(),
            failovers: Vec::new(),
            teller,
            gate: directory.join("gate"),
        };
        scene.configure().await?;
        scene
            .recorder
            .until("all agents to register", STEP, |known| {
                (known.agents.len() == AGENTS).then_some(())
            })
            .await?;
        scene.say(&format!("{nodes} nodes and {AGENTS} agents run"));
        Ok(scene)
    }

    async fn configure(&self) -> anyhow::Result<()> {
        let gate = self.gate.display().to_string();
        let file = |role, path, text: &str| ConfigText {
            role,
            path,
            text: text.replace("GATE", &gate),
        };
        let files = vec![
            file("main", "config.yaml", include_str!("sample/config.yaml")),
            file(
                "plugins",
                "plugins.yaml",
                include_str!("sample/plugins.yaml"),
            ),
            file("job", "jobs/widget.yaml", include_str!("sample/jobs.yaml")),
        ];
        self.stage.configure(files, "chaos", "chaos").await?;
        Ok(())
    }

    pub fn say(&self, text: &str) {
        (self.teller)(text);
    }

    #[must_use]
    pub fn world(&self) -> &World {
        &self.stage.world
    }

    /// Runs of `unit` end well from now on.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn open_gate(&self) -> anyhow::Result<()> {
        Ok(std::fs::write(&self.gate, "")?)
    }

    /// Runs of `unit` that start from now on go on until the gate is open.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn close_gate(&self) -> anyhow::Result<()> {
        Ok(std::fs::remove_file(&self.gate)?)
    }

    /// # Errors
    /// The forge's refusal.
    pub async fn open_pull(&self, branch: &str) -> anyhow::Result<Pr> {
        Ok(self.world().pr(branch).try_opened_by(AUTHOR).await?)
    }

    /// # Errors
    /// The forge's refusal.
    pub fn comment(&self, login: &str, pr: &Pr, body: &str) -> anyhow::Result<()> {
        self.world()
            .user(login)
            .comment(&pr.repo, pr.number, body)?;
        Ok(())
    }

    /// Waits until a run on the pull request has that state.
    ///
    /// # Errors
    /// When none gets there, with how the pull request looks.
    pub async fn until_run(&self, pr: &Pr, state: JobState) -> anyhow::Result<()> {
        let what = format!("a run on #{} to be {state:?}", pr.number);
        self.recorder
            .until(&what, STEP, |known| {
                known.has_run(pr.number, state).then_some(())
            })
            .await
            .with_context(|| self.world().describe(pr))
    }

    /// SIGKILL to the leader, then waits until a write is acknowledged again. Gives the leader's id.
    ///
    /// # Errors
    /// When no write is acknowledged within 30 s.
    pub async fn kill_leader(&mut self, when: &str) -> anyhow::Result<u64> {
        let leader = self.stage.cluster.wait_for_leader().await?;
        self.stage.cluster.kill(leader).await?;
        let killed = Instant::now();
        let sent = self.sender.knock(&self.living_doors()).await?;
        let took = killed.elapsed();
        self.pings.extend(sent);
        self.failovers.push(took);
        self.say(&format!(
            "leader {leader} killed {when}; the next write was acknowledged {} ms later",
            took.as_millis()
        ));
        Ok(leader)
    }

    fn living_doors(&self) -> Vec<String> {
        let members = self.stage.cluster.members().iter();
        members
            .filter(|member| member.is_running())
            .map(|member| format!("{}/hook", member.url()))
            .collect()
    }

    /// Starts a killed node from its directory and waits until it has caught up.
    ///
    /// # Errors
    /// When it does not.
    pub async fn bring_back(&mut self, id: u64) -> anyhow::Result<()> {
        self.stage.cluster.restart(id)?;
        self.stage.cluster.wait_until_caught_up(id).await?;
        self.say(&format!("node {id} is back from its directory"));
        Ok(())
    }

    /// Everything that was sent, by the forge and by us.
    #[must_use]
    pub fn sent(&self) -> Vec<Sent> {
        let log = self.stage.sandbox().log_after(0);
        let of_forge = log.into_iter().filter_map(|entry| match entry.what {
            Logged::Delivered {
                guid,
                event,
                status_code,
                redelivery,
                ..
            } => Some(Sent {
                guid,
                event,
                status: status_code,
                redelivery,
                at_ms: entry.at.as_millisecond(),
            }),
            _ => None,
        });
        of_forge.chain(self.pings.iter().cloned()).collect()
    }

    /// How many attempts of the forge were acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        let sent = self.sent();
        sent.iter().filter(|sent| sent.status == 200).count()
    }

    /// Merge calls that the forge was sent.
    #[must_use]
    pub fn merge_calls(&self) -> u64 {
        let sandbox = self.stage.sandbox();
        sandbox.calls("PUT", "/repos/{}/{}/pulls/{}/merge")
    }

    /// Waits until nothing is under way: webhooks answered, deliveries handled, runs complete, reports made.
    ///
    /// # Errors
    /// Naming what does not come to rest.
    pub async fn settle(&self) -> anyhow::Result<()> {
        for _ in 0..MAX_LOOKS {
            self.stage.sandbox().until_delivered(STEP).await?;
            let at_rest = self
                .recorder
                .until("everything to come to rest", STEP, |known| {
                    known.unrest().is_none().then_some(())
                })
                .await;
            at_rest.with_context(|| self.recorder.known().unrest().unwrap_or_default())?;
            let in_flight = self
                .stage
                .sandbox()
                .read(trireme_sandbox::forge::Forge::deliveries_in_flight);
            if in_flight == 0 && self.all_known(&self.recorder.known()) {
                return Ok(());
            }
            sleep(LOOK_AGAIN).await;
        }
        // What is still missing, the checks name.
        Ok(())
    }

    fn all_known(&self, known: &Known) -> bool {
        self.sent()
            .iter()
            .filter(|sent| sent.status == 200)
            .all(|sent| known.deliveries.contains_key(&sent.guid))
    }

    /// Waits for rest, then reads everything at a moment at which nothing changes, and stops all processes.
    pub(crate) async fn end(mut self, quiet: bool) -> (History, Vec<Duration>, anyhow::Result<()>) {
        let mut history = History {
            nodes: self
                .stage
                .cluster
                .members()
                .iter()
                .map(|one| one.id)
                .collect(),
            ..History::default()
        };
        let read = if quiet {
            self.read_at_rest(&mut history).await
        } else {
            // The scenario failed: whatever can be had.
            match read_all(&self.stage.cluster).await {
                Ok(last) => {
                    history.last = last;
                    Ok(())
                }
                Err(why) => Err(why),
            }
        };
        history.sent = self.sent();
        history.merge_calls = self.merge_calls();
        for entry in self.stage.sandbox().log_after(0) {
            if let Logged::Merged {
                number,
                head_sha,
                commit,
                ..
            } = entry.what
            {
                history.merged.push(Merged {
                    number,
                    head_sha,
                    commit,
                });
            }
        }
        let struck = self.stage.strike().await;
        history.watched = self.recorder.stop().await;
        let read = read.and_then(|()| struck.context("stopping the processes"));
        (history, self.failovers, read)
    }

    async fn read_at_rest(&mut self, history: &mut History) -> anyhow::Result<()> {
        for _ in 0..MAX_LOOKS {
            self.settle().await?;
            self.stage.cluster.check_alive()?;
            let before = self.recorder.known().revision;
            history.last = read_all(&self.stage.cluster).await?;
            history.digests.extend(digests(&self.stage.cluster).await?);
            let jobs = history.last.jobs.iter().map(|job| job.version);
            let deliveries = history.last.deliveries.iter().map(|one| one.version);
            let newest = jobs.chain(deliveries).max().unwrap_or_default();
            self.recorder.caught_up(newest.max(before)).await?;
            if self.recorder.known().revision == before {
                return Ok(());
            }
            sleep(LOOK_AGAIN).await;
        }
        bail!("something changes all the time: nothing can be judged")
    }
}
