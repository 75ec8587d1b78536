//! Prow's `github-reporter`: a status for every state, and one comment with a pull request's failures.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use trireme_forge::{Forge, ForgeError, RepoId};
use trireme_office::{ConfigFeed, Office, OfficeError, RunningConfig};
use trireme_prowjob::{ProwJob, ProwJobType};
use trireme_state::GITHUB_REPORTER;

use crate::{
    comment::{self, CommentPlan, Write},
    reporter::{Owed, Reporter, Told},
    settings::{CommentMode, comment_mode},
    status::{is_reported, job_types, owed_status},
};

/// A comment that a former holder of the office may have asked for shows within this time, or was never made.
const IN_FLIGHT: Duration = Duration::from_secs(15);

/// Statuses that were sent but not settled yet, remembered at most.
const MAX_SENT: usize = 10_000;

/// Refusals that no repetition helps: the commit is gone, or GitHub takes no further status for it (CRI-012).
const POINTLESS: [&str; 2] = [
    "This SHA and context has reached the maximum number of statuses",
    "No commit found for SHA",
];

/// Tells GitHub.
pub struct GitHubReporter {
    forge: Arc<dyn Forge>,
    feed: ConfigFeed,
    /// Job and state whose status is out while its comment is still owed, so that waiting for the comment does not
    /// use up the statuses that GitHub allows. Losing it costs repeated statuses.
    sent: Mutex<BTreeSet<(String, i32)>>,
}

impl GitHubReporter {
    #[must_use]
    pub fn new(forge: Arc<dyn Forge>, feed: ConfigFeed) -> Self {
        Self {
            forge,
            feed,
            sent: Mutex::default(),
        }
    }

    fn sent(&self) -> std::sync::MutexGuard<'_, BTreeSet<(String, i32)>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a job could not be told.
enum Failure {
    Office(OfficeError),
    Forge(ForgeError),
    Template(String),
}

impl From<OfficeError> for Failure {
    fn from(why: OfficeError) -> Self {
        Self::Office(why)
    }
}

impl From<ForgeError> for Failure {
    fn from(why: ForgeError) -> Self {
        Self::Forge(why)
    }
}

impl From<Failure> for Told {
    fn from(why: Failure) -> Self {
        match why {
            // Not recorded as told, so that the next holder does it.
            Failure::Office(why) => Self::Outage {
                why: why.to_string(),
                retry_after: None,
            },
            Failure::Forge(why) if why.is_outage() => Self::Outage {
                retry_after: why.retry_after(),
                why: why.to_string(),
            },
            Failure::Forge(why) => Self::Refused(why.to_string()),
            Failure::Template(why) => Self::Refused(why),
        }
    }
}

/// What the status step leaves for the comment step.
enum Status {
    /// The comment is next.
    Sent,
    /// Nothing more is to be done for this job.
    Settled(Told),
}

#[async_trait]
impl Reporter for GitHubReporter {
    fn name(&self) -> &'static str {
        GITHUB_REPORTER
    }

    async fn tell(&self, office: &Office, owed: &[Owed]) -> Vec<Told> {
        let running = match self.feed.clone().wait_for(Option::is_some).await {
            Ok(running) => running.clone(),
            Err(_) => None,
        };
        let Some(running) = running else {
            let away = Told::Outage {
                why: "no configuration is loaded".to_owned(),
                retry_after: None,
            };
            return vec![away; owed.len()];
        };
        let mut told: Vec<Option<Told>> = Vec::with_capacity(owed.len());
        for owed in owed {
            let status = self.send_status(office, &running, owed).await;
            told.push(match status {
                Ok(Status::Sent) => None,
                Ok(Status::Settled(told)) => Some(told),
                Err(why) => Some(why.into()),
            });
        }
        let types = job_types(&running.config.prow.github_reporter);
        let ended: Vec<&Owed> = owed
            .iter()
            .zip(&told)
            .filter(|(owed, told)| told.is_none() && is_commented(&owed.job, &types))
            .map(|(owed, _)| owed)
            .collect();
        let comment = match self.send_comment(office, &running, &ended).await {
            Ok(told) => told,
            Err(why) => why.into(),
        };
        owed.iter()
            .zip(told)
            .map(|(owed, told)| {
                let told = match told {
                    Some(told) => told,
                    None if is_commented(&owed.job, &types) => comment.clone(),
                    None => DELIVERED,
                };
                if matches!(told, Told::Delivered { .. }) {
                    self.sent()
                        .remove(&(owed.record.id.clone(), owed.report.owed));
                }
                told
            })
            .collect()
    }
}

/// Without a comment.
const DELIVERED: Told = Told::Delivered { comment_id: 0 };

/// Whether its result belongs into the comment.
fn is_commented(job: &ProwJob, types: &[ProwJobType]) -> bool {
    job.complete() && is_reported(job, types) && pull_of(job).is_some()
}

impl GitHubReporter {
    async fn send_status(
        &self,
        office: &Office,
        running: &RunningConfig,
        owed: &Owed,
    ) -> Result<Status, Failure> {
        let key = (owed.record.id.clone(), owed.report.owed);
        if self.sent().contains(&key) {
            return Ok(Status::Sent);
        }
        let Ok(status) = owed_status(&owed.job, &job_types(&running.config.prow.github_reporter))
        else {
            // Waits for its cluster: the next state is told.
            return Ok(Status::Settled(DELIVERED));
        };
        let Some(status) = status else {
            return Ok(Status::Sent);
        };
        office.assert_held().await?;
        let repo = RepoId::new(&owed.record.org, &owed.record.repo);
        let sent = self
            .forge
            .create_status(&repo, &status.sha, &status.status)
            .await;
        match sent {
            Ok(()) => {
                let mut sent = self.sent();
                if sent.len() >= MAX_SENT {
                    sent.pop_first();
                }
                sent.insert(key);
                Ok(Status::Sent)
            }
            Err(why) if is_pointless(&why) => {
                tracing::info!(job = owed.record.id, %why, "the status has no place any more");
                Ok(Status::Settled(DELIVERED))
            }
            Err(why) => Err(why.into()),
        }
    }

    /// One comment for all of these, which have ended and are about one pull request.
    async fn send_comment(
        &self,
        office: &Office,
        running: &RunningConfig,
        owed: &[&Owed],
    ) -> Result<Told, Failure> {
        let Some((repo, number)) = owed.first().and_then(|owed| pull_of(&owed.job)) else {
            return Ok(DELIVERED);
        };
        let prow = &running.config.prow;
        let mode = comment_mode(&prow.github_reporter, &repo.org, &repo.repo);
        let jobs = match mode {
            CommentMode::Off => return Ok(DELIVERED),
            CommentMode::PerJob => newest_per_context(owed.iter().map(|owed| owed.job.clone())),
            CommentMode::Summary => {
                let types = job_types(&prow.github_reporter);
                match summary(&office.view(), &repo, number, &types) {
                    Some(jobs) => jobs,
                    None => return Ok(DELIVERED),
                }
            }
        };
        let bot = self.forge.bot_user(&repo.org).await?;
        let comments = self.forge.comments(&repo, number).await?;
        let template = |job: &ProwJob| {
            let plank = &prow.plank.controller;
            plank.report_text(&repo.org, &repo.repo, job)
        };
        let jobs: Vec<&ProwJob> = jobs.iter().collect();
        let is_bot = |login: &str| bot.is(login);
        let must_create = mode == CommentMode::Summary;
        let plan = comment::plan(&jobs, &comments, is_bot, template, must_create)
            .map_err(|why| Failure::Template(format!("the report template of {repo}: {why}")))?;
        if let Some(wait) = self.inherited_wait(office, owed, &plan) {
            return Ok(Told::Later(wait));
        }
        self.carry_out(office, &repo, number, plan).await
    }

    /// A former holder may have asked for the same comment just before it left: its request may still be under way.
    fn inherited_wait(
        &self,
        office: &Office,
        ended: &[&Owed],
        plan: &CommentPlan,
    ) -> Option<Duration> {
        let creates = matches!(plan.write, Some(Write::Create(_)));
        let inherited = ended
            .iter()
            .any(|owed| owed.report.owed_since_ms <= office.taken_ms());
        if !creates || !inherited {
            return None;
        }
        let in_flight = i64::try_from(IN_FLIGHT.as_millis()).unwrap_or(i64::MAX);
        let left = office.taken_ms().saturating_add(in_flight) - office.now_ms();
        u64::try_from(left)
            .ok()
            .filter(|left| *left > 0)
            .map(Duration::from_millis)
    }

    /// The new comment first: a crash in between leaves two, which the next report puts together, and never none.
    async fn carry_out(
        &self,
        office: &Office,
        repo: &RepoId,
        number: u64,
        plan: CommentPlan,
    ) -> Result<Told, Failure> {
        let mut comment_id = 0;
        if let Some(write) = plan.write {
            office.assert_held().await?;
            let written = match &write {
                Write::Create(body) => self.forge.create_comment(repo, number, body).await,
                Write::Edit { id, body } => self.forge.edit_comment(repo, *id, body).await,
            };
            match written {
                Ok(comment) => comment_id = comment.id,
                // It may be there: the next look tells.
                Err(why) if why.maybe_sent() => {
                    tracing::warn!(%repo, number, %why, "looking whether the comment was made");
                    return Ok(Told::Later(IN_FLIGHT));
                }
                Err(why) => return Err(why.into()),
            }
        }
        for id in plan.delete {
            office.assert_held().await?;
            self.forge.delete_comment(repo, id).await?;
        }
        Ok(Told::Delivered { comment_id })
    }
}

fn is_pointless(why: &ForgeError) -> bool {
    let text = why.to_string();
    why.is_not_found() || POINTLESS.iter().any(|known| text.contains(known))
}

fn pull_of(job: &ProwJob) -> Option<(RepoId, u64)> {
    let refs = job.spec.refs.as_ref()?;
    let [pull] = refs.pulls.as_slice() else {
        return None;
    };
    let number = u64::try_from(pull.number).ok()?;
    Some((RepoId::new(&refs.org, &refs.repo), number))
}

/// Of jobs in the order in which they ended, the last of each context: its row is the one that counts.
fn newest_per_context(jobs: impl Iterator<Item = ProwJob>) -> Vec<ProwJob> {
    let mut kept: Vec<ProwJob> = Vec::new();
    for job in jobs {
        kept.retain(|other| other.spec.context != job.spec.context);
        kept.push(job);
    }
    kept
}

/// The newest run of each job of the pull request, once all of them have ended (CRI-017).
fn summary(
    state: &trireme_state::State,
    repo: &RepoId,
    number: u64,
    types: &[ProwJobType],
) -> Option<Vec<ProwJob>> {
    let mut newest: Vec<ProwJob> = Vec::new();
    let single = |record: &&Arc<trireme_proto::state::Job>| record.pulls.len() == 1;
    for record in state
        .jobs_of_pull(&repo.org, &repo.repo, number)
        .filter(single)
    {
        if record.completed_ms == 0 {
            return None;
        }
        let Ok(job) = trireme_prowjob::record::prow_job(record) else {
            continue;
        };
        if job.spec.report {
            newest.retain(|other| other.spec.job != job.spec.job);
            newest.push(job);
        }
    }
    newest.retain(|job| is_commented(job, types));
    Some(newest)
}
