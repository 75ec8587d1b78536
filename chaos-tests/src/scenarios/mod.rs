//! The scenarios, each named for what must survive.

mod agents;
mod leaders;
mod nodes;
mod upgrades;
mod webhooks;

use std::{
    io,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::time::timeout;
use trireme_harness::Executable;

use crate::{
    Verdict,
    checks::judge,
    scene::{Scene, Teller},
    verdict::Counts,
};

/// The longest that a scenario may take, without coming to rest.
const BOUND: Duration = Duration::from_secs(240);

/// How a scenario is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// How often a leader is killed where that can be repeated.
    pub rounds: u32,
    /// Keeps the history of what passed too.
    pub keep: bool,
    /// A build of a lower feature level, from which a cluster is upgraded.
    pub former: Option<Executable>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    LeaderKilledDuringIngestion,
    LeaderKilledDuringBatch,
    LeaderKilledBetweenMergeAndAnswer,
    WebhookLostWhileAllNodesAreDown,
    FollowerReplacedAfterLostDisk,
    AgentKilledDuringRun,
    RollingUpgrade,
}

impl Scenario {
    pub const ALL: [Self; 7] = [
        Self::LeaderKilledDuringIngestion,
        Self::LeaderKilledDuringBatch,
        Self::LeaderKilledBetweenMergeAndAnswer,
        Self::WebhookLostWhileAllNodesAreDown,
        Self::FollowerReplacedAfterLostDisk,
        Self::AgentKilledDuringRun,
        Self::RollingUpgrade,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::LeaderKilledDuringIngestion => "leader-killed-during-ingestion",
            Self::LeaderKilledDuringBatch => "leader-killed-during-batch",
            Self::LeaderKilledBetweenMergeAndAnswer => "leader-killed-between-merge-and-answer",
            Self::WebhookLostWhileAllNodesAreDown => "webhook-lost-while-all-nodes-are-down",
            Self::FollowerReplacedAfterLostDisk => "follower-replaced-after-lost-disk",
            Self::AgentKilledDuringRun => "agent-killed-during-run",
            Self::RollingUpgrade => "rolling-upgrade",
        }
    }

    #[must_use]
    pub fn about(self) -> &'static str {
        match self {
            Self::LeaderKilledDuringIngestion => {
                "a stream of webhooks goes on while the leader is killed, again and again; no acknowledged one is lost"
            }
            Self::LeaderKilledDuringBatch => {
                "the leader is killed while a batch is under test; the batch merges"
            }
            Self::LeaderKilledBetweenMergeAndAnswer => {
                "the forge has merged, the answer is never heard; the merge is observed, not sent again"
            }
            Self::WebhookLostWhileAllNodesAreDown => {
                "nobody takes a webhook; it is asked for again after the restart, once"
            }
            Self::FollowerReplacedAfterLostDisk => {
                "a follower's disk is lost; a node with a new id takes its place, the old id is refused"
            }
            Self::AgentKilledDuringRun => {
                "an agent dies with its run; the run is leased again or ends in error, once"
            }
            Self::RollingUpgrade => {
                "nodes of an older build (--former) are upgraded one by one in a stream of webhooks; one that goes back stops"
            }
        }
    }

    /// Whether it can be told with these options.
    #[must_use]
    pub fn is_possible(self, options: &Options) -> bool {
        self != Self::RollingUpgrade || options.former.is_some()
    }

    async fn tell(
        self,
        scene: &mut Scene,
        executable: &Executable,
        options: &Options,
    ) -> anyhow::Result<()> {
        match self {
            Self::LeaderKilledDuringIngestion => {
                leaders::during_ingestion(scene, options.rounds).await
            }
            Self::LeaderKilledDuringBatch => leaders::during_batch(scene).await,
            Self::LeaderKilledBetweenMergeAndAnswer => {
                leaders::between_merge_and_answer(scene).await
            }
            Self::WebhookLostWhileAllNodesAreDown => webhooks::lost_while_all_are_down(scene).await,
            Self::FollowerReplacedAfterLostDisk => nodes::follower_replaced(scene).await,
            Self::AgentKilledDuringRun => agents::killed_during_run(scene).await,
            Self::RollingUpgrade => {
                let former = options.former.as_ref();
                let former = former.context("give an older build with --former")?;
                upgrades::rolling(scene, former, executable).await
            }
        }
    }

    /// Runs it below `directory` and judges its history, which is kept there unless it passed.
    ///
    /// # Errors
    /// When the directory cannot be used; everything else is in the verdict.
    pub async fn run(
        self,
        executable: Executable,
        directory: &Path,
        options: &Options,
        teller: Teller,
    ) -> io::Result<Verdict> {
        std::fs::create_dir_all(directory)?;
        let started = Instant::now();
        let mut verdict = Verdict {
            scenario: self.name(),
            passed: false,
            seconds: 0.0,
            counts: Counts::default(),
            failure: None,
            violations: Vec::new(),
            kept: Some(directory.to_owned()),
        };
        let first = match (self, &options.former) {
            (Self::RollingUpgrade, Some(former)) => former,
            _ => &executable,
        };
        match Scene::set(first.clone(), directory, teller).await {
            Err(why) => verdict.failure = Some(format!("{why:#}")),
            Ok(mut scene) => {
                let told = timeout(BOUND, self.tell(&mut scene, &executable, options)).await;
                let told =
                    told.unwrap_or_else(|_| Err(anyhow::anyhow!("it took longer than {BOUND:?}")));
                let (history, failovers, read) = scene.end(told.is_ok()).await;
                verdict.failure = told.and(read).err().map(|why| format!("{why:#}"));
                verdict.counts = Counts::of(&history, &failovers);
                verdict.violations = judge(&history);
                verdict.passed = verdict.failure.is_none() && verdict.violations.is_empty();
                if options.keep || !verdict.passed {
                    history.keep(&directory.join("history"))?;
                }
            }
        }
        verdict.seconds = started.elapsed().as_secs_f64();
        if verdict.passed && !options.keep {
            verdict.kept = None;
            std::fs::remove_dir_all(directory)?;
        }
        Ok(verdict)
    }
}
