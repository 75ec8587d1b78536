//! Starting tests: jobs whose ids derive from what is tested, so that deciding twice starts them once (TIDE-155).

use std::collections::BTreeSet;

use jiff::Timestamp;
use trireme_config::in_repo::InRepoJobs;
use trireme_config::job::{batch_spec, presubmit_spec};
use trireme_office::run_record;
use trireme_proto::state::{CreateJobs, NewJob, command::Body};
use trireme_prowjob::{Pull as RefsPull, Refs, labels, new_prow_job};
use trireme_state::ids;

use crate::{
    facts::ORIGIN,
    merge::Outcome,
    pool::{Member, Required, Verdict, verdict},
    session::{Session, Trouble},
    sync::Scene,
};

/// Runs of one job for one batch on one base. Upstream starts a failed one again for ever.
const MAX_BATCH_RUNS: usize = 3;
/// Names this controller in ids.
const CREATOR: &str = "tide";
const GITHUB: &str = "https://github.com";

impl Session {
    /// Starts `tests` for these pull requests together, each context once (TIDE-081).
    pub(crate) async fn trigger(
        &self,
        scene: &Scene<'_>,
        numbers: &[u64],
        own: &InRepoJobs,
        tests: &[Required],
    ) -> Result<Outcome, Trouble> {
        let members: Vec<&Member> = numbers
            .iter()
            .filter_map(|number| scene.pool.member(*number))
            .collect();
        let refs = refs(scene, &members);
        let mut contexts = BTreeSet::new();
        let mut jobs = Vec::new();
        for test in tests {
            if contexts.insert(&test.context)
                && let Some(job) = self.new_job(scene, &members, &refs, own, test)?
            {
                jobs.push(job);
            }
        }
        if jobs.is_empty() {
            return Ok(Outcome::default());
        }
        let command = CreateJobs {
            jobs,
            cursors: Vec::new(),
        };
        let done = self.office.propose(Body::CreateJobs(command)).await?;
        if !done.created.is_empty() {
            tracing::info!(pool = %scene.pool.key, ?numbers, jobs = done.created.len(), "testing");
        }
        Ok(Outcome {
            changed: !done.created.is_empty(),
            ..Outcome::default()
        })
    }

    fn new_job(
        &self,
        scene: &Scene<'_>,
        members: &[&Member],
        refs: &Refs,
        own: &InRepoJobs,
        test: &Required,
    ) -> Result<Option<NewJob>, Trouble> {
        let Some(presubmit) = scene.rules.presubmit(own, test) else {
            return Ok(None);
        };
        let heads: Vec<(u64, String)> = members
            .iter()
            .map(|member| (member.number(), member.pull.head_sha.clone()))
            .collect();
        let batch = members.len() > 1;
        let mut ordinal = 0;
        if batch {
            let mut runs = 0;
            for run in scene.pool.batch_runs(&test.job, &heads) {
                if verdict(run.state) != Verdict::Failure {
                    return Ok(None);
                }
                runs += 1;
            }
            if runs >= MAX_BATCH_RUNS {
                tracing::debug!(pool = %scene.pool.key, job = test.job, runs, "failed too often for this batch, waiting for the base or the batch to change");
                return Ok(None);
            }
            ordinal = u32::try_from(runs).unwrap_or(u32::MAX);
        }
        let origin = origin(scene, &heads, &test.context);
        let id = ids::job_id(&origin, CREATOR, ordinal);
        let spec = if batch {
            batch_spec(presubmit, refs.clone())
        } else {
            presubmit_spec(presubmit, refs.clone())
        };
        let now = Timestamp::from_millisecond(self.office.now_ms()).unwrap_or_default();
        let mut own = presubmit.base.labels.clone();
        own.insert(labels::CREATED_BY_TIDE.to_owned(), "true".to_owned());
        let job = new_prow_job(spec, &own, &presubmit.base.annotations, id, now);
        let record = run_record(scene.rules.running, job, &origin)
            .map_err(|why| Trouble::Other(format!("cannot be recorded: {why}")))?;
        Ok(Some(NewJob {
            job: Some(Box::new(record)),
            unless_exists: false,
            supersede: !batch,
            ..NewJob::default()
        }))
    }
}

/// What is tested, in words that people can read too.
fn origin(scene: &Scene<'_>, heads: &[(u64, String)], context: &str) -> String {
    let heads: Vec<String> = heads
        .iter()
        .map(|(number, sha)| format!("{number}:{sha}"))
        .collect();
    let pool = &scene.pool;
    format!(
        "{ORIGIN}{}@{} {} {context}",
        pool.key,
        pool.base_sha,
        heads.join(",")
    )
}

/// TIDE-082
fn refs(scene: &Scene<'_>, members: &[&Member]) -> Refs {
    let key = &scene.pool.key;
    let host = &scene.rules.running.config.prow.github.link_url;
    let host = if host.is_empty() { GITHUB } else { host };
    let repo = format!("{host}/{}/{}", key.org, key.repo);
    Refs {
        org: key.org.clone(),
        repo: key.repo.clone(),
        base_ref: key.branch.clone(),
        base_sha: scene.pool.base_sha.clone(),
        base_link: format!("{repo}/tree/{}", scene.pool.base_sha),
        pulls: members
            .iter()
            .map(|member| {
                let pull = &member.pull;
                RefsPull {
                    number: i64::try_from(pull.number).unwrap_or(i64::MAX),
                    author: pull.author.clone(),
                    sha: pull.head_sha.clone(),
                    title: pull.title.clone(),
                    head_ref: pull.head_ref.clone(),
                    link: format!("{repo}/pull/{}", pull.number),
                    commit_link: format!("{repo}/commit/{}", pull.head_sha),
                    author_link: format!("{host}/{}", pull.author),
                    ..RefsPull::default()
                }
            })
            .collect(),
        repo_link: repo,
        ..Refs::default()
    }
}
