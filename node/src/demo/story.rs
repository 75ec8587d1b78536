//! What happens in the demo, step by step; each step fails when what it waits for does not come.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, ensure};
use hmac::{Hmac, KeyInit as _, Mac as _};
use tokio::time::{Instant, sleep, timeout};
use trireme_proto::state::{IntentState, JobState, JobType};
use trireme_sandbox::{
    FileChange,
    world::{Pr, WEBHOOK_SECRET},
};

use super::{
    stage::{APPROVER, NEWCOMER, REVIEWER, Stage},
    summary::acknowledged,
    timeline::{Kind, Timeline},
    witness::{Facts, SeenJob, Witness},
};

/// The longest that any single step may take; the whole story has a bound of its own.
const STEP: Duration = Duration::from_secs(30);
/// Between two tries of a write while there is no leader.
const PROBE: Duration = Duration::from_millis(10);

/// What the steps found out that only they can.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// SIGKILL of the leader to the next 200 of a webhook, each time.
    pub(super) failovers: Vec<Duration>,
    /// Pull requests in order: the newcomer's, then the two of the batch.
    pub(super) pulls: Vec<u64>,
    pub(super) rest: Rest,
}

/// Both sides' books at one moment at which nothing was under way: what comes later, a periodic that starts, is not
/// held against them.
#[derive(Debug, Default)]
pub(super) struct Rest {
    pub(super) facts: Facts,
    /// How often each delivery was answered with 200.
    pub(super) acknowledged: BTreeMap<String, usize>,
}

pub(super) struct Story<'a> {
    pub(super) stage: &'a mut Stage,
    pub(super) witness: &'a Witness,
    pub(super) timeline: &'a Timeline,
    pub(super) kill_leader: bool,
}

impl Story<'_> {
    fn person(&self, text: impl AsRef<str>) {
        self.timeline.say(Kind::Person, text);
    }

    fn comment(&self, login: &str, pr: &Pr, body: &str) -> anyhow::Result<()> {
        self.person(format!(
            "{login} comments on #{}: {}",
            pr.number,
            body.replace('\n', ", ")
        ));
        self.stage
            .world
            .user(login)
            .comment(&pr.repo, pr.number, body)?;
        Ok(())
    }

    pub(super) async fn tell(mut self) -> anyhow::Result<Told> {
        let mut told = Told::default();
        let world = self.stage.world.clone();

        // 1. A newcomer's change is not tested before somebody vouches for it.
        let first = world
            .pr("fix-draught")
            .title("Correct the draught of the Argo")
            .file("ships/argo", "name: Argo\ndraught: deep\n")
            .try_opened_by(NEWCOMER)
            .await?;
        told.pulls.push(first.number);
        self.person(format!("{NEWCOMER} opens #{} from a fork", first.number));
        world.until_label(&first, "needs-ok-to-test").await?;
        self.comment(REVIEWER, &first, "/ok-to-test")?;

        // 2. One job fails, the author pushes while the other still runs, the old run is aborted.
        self.run_of("unit", &first, |seen| {
            seen.record.state() == JobState::Failure
        })
        .await?;
        world.until_comment(&first, "test report").await?;
        self.run_of("lint", &first, |seen| {
            seen.record.state() == JobState::Pending
        })
        .await?;
        let fixed = world
            .push_fix(
                &first,
                vec![FileChange::write("ships/argo", "name: Argo\ndraught: 4\n")],
            )
            .await;
        self.person(format!("{NEWCOMER} pushes a fix to #{}", first.number));
        self.run_of("lint", &first, |seen| {
            seen.record.state() == JobState::Aborted
        })
        .await?;
        for job in ["unit", "lint"] {
            self.run_of(job, &first, |seen| {
                seen.record.state() == JobState::Success && at_head(seen, &fixed)
            })
            .await?;
        }

        // 3. Two more changes are ready but held, so that they wait for the first.
        let second = world
            .pr("second-ship")
            .title("Add the Tarshish")
            .file("ships/tarshish", "name: Tarshish\ndraught: 5\n")
            .try_opened_by(REVIEWER)
            .await?;
        let third = world
            .pr("third-ship")
            .title("Add the Olympias")
            .file("ships/olympias", "name: Olympias\ndraught: 1\n")
            .try_opened_by(REVIEWER)
            .await?;
        told.pulls.extend([second.number, third.number]);
        self.person(format!(
            "{REVIEWER} opens #{} and #{}",
            second.number, third.number
        ));
        for pr in [&second, &third] {
            self.comment(APPROVER, pr, "/lgtm\n/approve\n/hold")?;
        }
        for pr in [&second, &third] {
            for label in ["lgtm", "approved", "do-not-merge/hold"] {
                world.until_label(pr, label).await?;
            }
            for job in ["unit", "lint"] {
                self.run_of(job, pr, |seen| seen.record.state() == JobState::Success)
                    .await?;
            }
        }

        // 4. Review, approval, merge; the merge commit is published.
        self.comment(REVIEWER, &first, "/lgtm")?;
        self.comment(APPROVER, &first, "/approve")?;
        world.until_label(&first, "lgtm").await?;
        world.until_label(&first, "approved").await?;
        let merge = world.until_merged(&first).await?;
        self.witness
            .until("the postsubmit of the first merge", STEP, |facts| {
                facts
                    .jobs
                    .values()
                    .find(|seen| {
                        seen.record.r#type() == JobType::Postsubmit
                            && seen.record.base_sha == merge
                            && seen.record.state() == JobState::Success
                    })
                    .map(|_| ())
            })
            .await?;

        // 5. The two that waited are tested together on the new base and merged as one batch.
        for pr in [&second, &third] {
            self.comment(APPROVER, pr, "/hold cancel")?;
        }
        let batch = [second.number, third.number];
        self.witness
            .until("the batch under test", STEP, |facts| {
                let runs = facts.jobs.values().filter(|seen| {
                    seen.record.r#type() == JobType::Batch
                        && seen.record.state() == JobState::Pending
                        && batch.iter().all(|number| {
                            seen.record.pulls.iter().any(|pull| pull.number == *number)
                        })
                });
                (runs.count() > 0).then_some(())
            })
            .await?;
        if self.kill_leader {
            let killed = self
                .kill_leader("while the batch is under test", &mut told)
                .await?;
            self.bring_back(killed).await?;
            self.kill_between_merge_and_answer(&mut told).await?;
        }
        for pr in [&second, &third] {
            world.until_merged(pr).await?;
        }
        told.rest = self.settle(&told).await?;
        Ok(told)
    }

    async fn run_of(
        &self,
        job: &str,
        pr: &Pr,
        fits: impl Fn(&SeenJob) -> bool,
    ) -> anyhow::Result<()> {
        let what = format!("a run of {job} on #{} as the story has it", pr.number);
        self.witness
            .until(&what, STEP, |facts| {
                facts
                    .runs_of(job, pr.number)
                    .find(|seen| fits(seen))
                    .map(|_| ())
            })
            .await
            .with_context(|| self.stage.world.describe(pr))
    }

    /// SIGKILL, then the time until a webhook is acknowledged again.
    async fn kill_leader(&mut self, when: &str, told: &mut Told) -> anyhow::Result<u64> {
        let leader = self.stage.cluster.wait_for_leader().await?;
        let pid = self.stage.cluster.member(leader)?.pid().unwrap_or_default();
        self.timeline.say(
            Kind::Fault,
            format!("SIGKILL to the leader, node {leader} (pid {pid}), {when}"),
        );
        self.stage.cluster.kill(leader).await?;
        let killed = Instant::now();
        if self.stage.cluster.members().len() > 1 {
            self.next_acknowledged(leader).await?;
            let took = killed.elapsed();
            self.timeline.say(
                Kind::Cluster,
                format!(
                    "a write is acknowledged again {} ms after the kill",
                    took.as_millis()
                ),
            );
            told.failovers.push(took);
        }
        Ok(leader)
    }

    /// Sends signed pings to the nodes that live until one is committed.
    async fn next_acknowledged(&self, dead: u64) -> anyhow::Result<()> {
        let doors: Vec<String> = self
            .stage
            .cluster
            .members()
            .iter()
            .filter(|member| member.id != dead)
            .map(|member| format!("{}/hook", member.url()))
            .collect();
        let client = reqwest::Client::builder().no_proxy().build()?;
        let body = "{\"zen\":\"Speak like a human.\"}";
        let mac = Hmac::<sha2::Sha256>::new_from_slice(WEBHOOK_SECRET.as_bytes())?;
        let signature = format!(
            "sha256={}",
            hex::encode(mac.chain_update(body).finalize().into_bytes())
        );
        let knock = async {
            for turn in 0.. {
                let guid = uuid::Uuid::new_v4().to_string();
                let answer = client
                    .post(&doors[turn % doors.len()])
                    .header("X-GitHub-Event", "ping")
                    .header("X-GitHub-Delivery", guid)
                    .header("X-Hub-Signature-256", &signature)
                    .header("content-type", "application/json")
                    .body(body)
                    .send()
                    .await;
                if answer.is_ok_and(|answer| answer.status().is_success()) {
                    return;
                }
                sleep(PROBE).await;
            }
        };
        timeout(STEP, knock)
            .await
            .context("no write was acknowledged after the leader's death")
    }

    async fn bring_back(&mut self, id: u64) -> anyhow::Result<()> {
        self.stage.cluster.restart(id)?;
        self.timeline.say(
            Kind::Cluster,
            format!("node {id} is started again from its directory"),
        );
        self.stage.cluster.wait_until_caught_up(id).await?;
        Ok(())
    }

    /// The forge merges, but whoever asked for it dies before he hears so.
    async fn kill_between_merge_and_answer(&mut self, told: &mut Told) -> anyhow::Result<()> {
        let faults = self.stage.sandbox().faults().clone();
        let barrier = faults.hold_merge_answers("demo", Some(1))?;
        timeout(STEP, barrier.arrived(1))
            .await
            .context("no merge call was made for the batch")?;
        let killed = self
            .kill_leader("between a merge call and its answer", told)
            .await?;
        barrier.release();
        self.witness
            .until("the intent to be observed", STEP, |facts| {
                facts
                    .intents
                    .values()
                    .find(|intent| intent.state() == IntentState::Observed)
                    .map(|_| ())
            })
            .await?;
        self.bring_back(killed).await
    }

    /// Waits until nothing is under way: every delivery handled, every run complete, every report made.
    async fn settle(&self, told: &Told) -> anyhow::Result<Rest> {
        self.stage.sandbox().until_delivered(STEP).await?;
        self.witness
            .until("the postsubmits of all merges", STEP, |facts| {
                let done = facts.jobs.values().filter(|seen| {
                    seen.record.r#type() == JobType::Postsubmit
                        && seen.record.state() == JobState::Success
                });
                // A batch's merges may reach the branch in one push.
                (done.count() >= told.pulls.len() - 1).then_some(())
            })
            .await?;
        // What a report changes on the forge is a webhook again, under way before the report is known as made: at rest is
        // only what stays so once all of those are answered.
        let deadline = Instant::now() + STEP;
        let mut known = acknowledged(self.stage.sandbox());
        let rest = loop {
            let facts = self
                .witness
                .until("everything to come to rest", STEP, |facts| {
                    let seen = known.keys().all(|guid| facts.deliveries.contains_key(guid));
                    (seen && facts.unrest().is_none()).then(|| facts.clone())
                })
                .await
                .with_context(|| self.witness.facts().unrest().unwrap_or_default())?;
            self.stage.sandbox().until_delivered(STEP).await?;
            let now = acknowledged(self.stage.sandbox());
            if now.len() == known.len() {
                break Rest {
                    facts,
                    acknowledged: now,
                };
            }
            known = now;
            ensure!(Instant::now() < deadline, "webhooks do not come to an end");
        };
        ensure!(
            periodics(&rest.facts) > 0,
            "no periodic ran in the whole story"
        );
        Ok(rest)
    }
}

fn at_head(seen: &SeenJob, head: &str) -> bool {
    seen.record.pulls.iter().any(|pull| pull.head_sha == head)
}

fn periodics(facts: &Facts) -> usize {
    facts
        .jobs
        .values()
        .filter(|seen| seen.record.r#type() == JobType::Periodic && seen.is_complete())
        .count()
}
