//! `mkpj`: a ProwJob for a job of the configuration, printed, or run in the cluster and waited for.

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::Args;
use trireme_api::client::Client;
use trireme_config::{
    gerrit,
    job::{AnyJob, periodic_spec, postsubmit_spec, presubmit_spec},
};
use trireme_forge::{PullRequest, PullRequests as _, RepoId, Repositories as _};
use trireme_proto::{
    api::{CreateJobRequest, GetJobRequest, WatchRequest, create_job_request::What},
    state::{Job, change::Record},
};
use trireme_prowjob::{ProwJob, ProwJobSpec, ProwJobState, Pull, Refs, new_prow_job, record};

use super::{
    ask::{Terminal, note},
    configured::{Configured, Found, Which, find, in_checkout, only},
    github::{Client as GitHub, GitHubArgs},
    request_id,
};
use crate::{
    exit::{NOT_FOUND, USAGE, coded},
    output::{Notation, print_document},
};

/// Connections in a row that end before the run does.
const MAX_LOST_CONNECTIONS: u32 = 10;
/// Before the second try; doubled for each further one, with half of it as jitter.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Make a ProwJob for a job of the configuration, and print it.
///
/// What flags do not say about the code under test is asked of GitHub, anonymously without a token, and of you if this is
/// a terminal:
///
///   trireme mkpj --config-path config.yaml --job-config-path jobs/ --job unit --pull-number 12
///   trireme mkpj --job nightly                       from the configuration that the cluster has in force
///   trireme mkpj --job unit --pull-number 12 --trigger-job --fail-with-job
///
/// With --trigger-job the job runs in the cluster of --server; its status is printed when it has ended.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct MkpjArgs {
    /// Name of the job.
    #[arg(long, value_name = "NAME")]
    pub job: String,
    #[command(flatten)]
    pub which: Which,
    /// Also look among the jobs of this checkout of --repo (.prow.yaml or .prow/).
    #[arg(long, requires = "repo", value_name = "DIR")]
    pub in_repo_checkout: Option<PathBuf>,
    /// Branch under test, or that the pull request asks to be merged into.
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "BRANCH"
    )]
    pub base_ref: String,
    /// Commit of that branch.
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "SHA"
    )]
    pub base_sha: String,
    /// Pull request under test.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
    pub pull_number: Option<i64>,
    /// Head commit of the pull request.
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "SHA"
    )]
    pub pull_sha: String,
    /// Login of the pull request's author.
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "LOGIN"
    )]
    pub pull_author: String,
    /// Branch that the pull request comes from.
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "BRANCH"
    )]
    pub pull_head_ref: String,
    /// Run the job in the cluster, wait until it has ended and print its status.
    #[arg(long)]
    pub trigger_job: bool,
    /// With --trigger-job: end with 1 unless the job succeeded.
    #[arg(long)]
    pub fail_with_job: bool,
    #[command(flatten)]
    pub configured: Configured,
    #[command(flatten)]
    pub github: GitHubArgs,
    #[command(flatten)]
    pub kube: KubeArgs,
    /// How the ProwJob or its status is written.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Notation,
}

/// Flags of Prow's programs that reach Prow through Kubernetes; taken so that scripts go on working.
#[derive(Debug, Args)]
pub struct KubeArgs {
    #[arg(long, hide = true)]
    pub kubeconfig: Option<String>,
    #[arg(long, hide = true)]
    pub kubeconfig_dir: Option<String>,
    #[arg(long, hide = true)]
    pub kubeconfig_suffix: Option<String>,
    #[arg(long, hide = true)]
    pub projected_token_file: Option<String>,
    #[arg(long, hide = true)]
    pub no_in_cluster_config: bool,
}

impl KubeArgs {
    fn any(&self) -> bool {
        self.kubeconfig.is_some()
            || self.kubeconfig_dir.is_some()
            || self.kubeconfig_suffix.is_some()
            || self.projected_token_file.is_some()
            || self.no_in_cluster_config
    }
}

/// # Errors
/// When the job is not found, what is needed about the code under test cannot be had, or the cluster refuses the job.
pub async fn run(args: MkpjArgs) -> anyhow::Result<()> {
    if args.job.is_empty() {
        return Err(coded(USAGE, "--job is mandatory: it names the job"));
    }
    if args.fail_with_job && !args.trigger_job {
        note("--fail-with-job has no effect without --trigger-job: nothing is run");
    }
    if args.kube.any() {
        note(
            "flags about Kubernetes are not used: --trigger-job runs the job in the cluster of --server",
        );
    }
    let job = make(&args).await?;
    if !args.trigger_job {
        return print_document(&job, args.output);
    }
    let client = args.configured.client().await?;
    let ended = trigger(&client, &args.configured, &job).await?;
    print_document(&ended.status, args.output)?;
    if args.fail_with_job && ended.status.state != ProwJobState::Success {
        anyhow::bail!(
            "run {} ended with {}",
            ended.metadata.name,
            ended.status.state
        );
    }
    Ok(())
}

async fn make(args: &MkpjArgs) -> anyhow::Result<ProwJob> {
    let github = args.github.client()?;
    let in_force = args.configured.load().await?;
    let config = &in_force.config;
    let own = match (&args.in_repo_checkout, &args.which.repo) {
        (Some(checkout), Some(repo)) => Some((repo.as_str(), in_checkout(config, repo, checkout)?)),
        _ => None,
    };
    let own = own.as_ref().map(|(repo, jobs)| (*repo, jobs));
    let found = find(config, own, &args.job, &args.which)?;
    let mut code = Code {
        github,
        terminal: Terminal::of_process(),
        repo: None,
        pull_request: None,
        known: Known::of(args),
    };
    let found = code.pick(&found, &args.job).await?;
    let spec = code.spec(found).await?;
    let base = found.job.base();
    Ok(new_prow_job(
        spec,
        &base.labels,
        &base.annotations,
        uuid::Uuid::new_v4().to_string(),
        jiff::Timestamp::now(),
    )
    .requiring_scheduling(config.prow.scheduler.enabled))
}

/// What is known about the code under test; 0 and empty where it is not.
#[derive(Debug, Clone, Default)]
struct Known {
    base_ref: String,
    base_sha: String,
    number: i64,
    sha: String,
    author: String,
    head_ref: String,
}

impl Known {
    fn of(args: &MkpjArgs) -> Self {
        Self {
            base_ref: args.base_ref.clone(),
            base_sha: args.base_sha.clone(),
            number: args.pull_number.unwrap_or_default(),
            sha: args.pull_sha.clone(),
            author: args.pull_author.clone(),
            head_ref: args.pull_head_ref.clone(),
        }
    }
}

/// Finds out what is not known about the code under test (ADM-183).
struct Code {
    github: GitHub,
    terminal: Terminal,
    repo: Option<RepoId>,
    /// Asked for once.
    pull_request: Option<PullRequest>,
    known: Known,
}

impl Code {
    /// ADM-187: of several jobs of a name the one whose branch is meant. The type decides first (ADM-183).
    async fn pick<'a>(&mut self, found: &[Found<'a>], name: &str) -> anyhow::Result<Found<'a>> {
        let kind = found.first().map(|found| found.job.job_type());
        let of_kind: Vec<Found<'a>> = found
            .iter()
            .filter(|found| Some(found.job.job_type()) == kind)
            .copied()
            .collect();
        if let [only] = of_kind.as_slice() {
            return Ok(*only);
        }
        let repo = of_kind.first().and_then(|found| found.repo);
        if of_kind.iter().any(|found| found.repo != repo) {
            return only(&of_kind, name, "--repo");
        }
        // All of one repository: they differ by branch.
        if let Some(repo) = repo {
            self.repo = repo_id(repo);
            let presubmit = matches!(of_kind[0].job, AnyJob::Presubmit(_));
            self.need_base_ref(presubmit).await?;
        }
        let branch = &self.known.base_ref;
        let runs = |found: &&Found<'_>| match found.job {
            AnyJob::Presubmit(job) => job.could_run(branch),
            AnyJob::Postsubmit(job) => job.could_run(branch),
            AnyJob::Periodic(_) => true,
        };
        of_kind.iter().find(runs).copied().ok_or_else(|| {
            coded(
                NOT_FOUND,
                format!("{} jobs are called {name}, none runs on the branch {branch:?}; say which with --base-ref", of_kind.len()),
            )
        })
    }

    async fn spec(&mut self, found: Found<'_>) -> anyhow::Result<ProwJobSpec> {
        let (org, repo) = found
            .repo
            .map(|repo| {
                gerrit::split_repo(repo).ok_or_else(|| {
                    anyhow::anyhow!("{repo:?}, under which the job stands, is no repository")
                })
            })
            .transpose()?
            .unwrap_or_default();
        self.repo = found.repo.and_then(repo_id);
        let mut refs = Refs {
            org,
            repo,
            ..Refs::default()
        };
        match found.job {
            AnyJob::Presubmit(job) => {
                self.need_pull_request().await?;
                self.need_base().await?;
                refs.pulls = vec![Pull {
                    number: self.known.number,
                    author: self.known.author.clone(),
                    sha: self.known.sha.clone(),
                    head_ref: self.known.head_ref.clone(),
                    ..Pull::default()
                }];
                self.known.base_into(&mut refs);
                Ok(presubmit_spec(job, refs))
            }
            AnyJob::Postsubmit(job) => {
                self.need_base().await?;
                self.known.base_into(&mut refs);
                Ok(postsubmit_spec(job, refs))
            }
            AnyJob::Periodic(job) => Ok(periodic_spec(job)),
        }
    }

    fn need_number(&mut self) -> anyhow::Result<()> {
        if self.known.number == 0 {
            let answer = self.terminal.ask("PR Number: ", "--pull-number")?;
            self.known.number = answer
                .parse()
                .ok()
                .filter(|number| *number > 0)
                .ok_or_else(|| {
                    coded(USAGE, format!("{answer:?} is no number of a pull request"))
                })?;
        }
        Ok(())
    }

    async fn need_pull_request(&mut self) -> anyhow::Result<()> {
        self.need_number()?;
        if self.known.author.is_empty() {
            self.known.author = self
                .pull_request("--pull-author")
                .await?
                .author
                .login
                .clone();
        }
        if self.known.sha.is_empty() {
            self.known.sha = self.pull_request("--pull-sha").await?.head.sha.clone();
        }
        Ok(())
    }

    async fn need_base_ref(&mut self, presubmit: bool) -> anyhow::Result<()> {
        if !self.known.base_ref.is_empty() {
            return Ok(());
        }
        if presubmit {
            self.need_number()?;
        }
        self.known.base_ref = if self.known.number == 0 {
            let answer = self
                .terminal
                .ask("Base ref (e.g. master): ", "--base-ref")?;
            anyhow::ensure!(!answer.is_empty(), "no base ref was given");
            answer
        } else {
            self.pull_request("--base-ref").await?.base.branch.clone()
        };
        Ok(())
    }

    async fn need_base(&mut self) -> anyhow::Result<()> {
        self.need_base_ref(false).await?;
        if self.known.base_sha.is_empty() {
            self.known.base_sha = if self.known.number == 0 {
                let repo = self.on_github("--base-sha")?.clone();
                let branch = &self.known.base_ref;
                self.github
                    .ask(async |github| github.branch_head(&repo, branch).await)
                    .await
                    .map_err(|why| self.github.failed(why))
                    .with_context(|| {
                        format!("the commit of {repo}'s branch {branch} (say it with --base-sha)")
                    })?
            } else {
                self.pull_request("--base-sha").await?.base.sha.clone()
            };
        }
        Ok(())
    }

    fn on_github(&self, flag: &str) -> anyhow::Result<&RepoId> {
        self.repo.as_ref().ok_or_else(|| {
            coded(
                USAGE,
                format!("the job's repository is not on GitHub, so that nobody can be asked; give {flag}"),
            )
        })
    }

    async fn pull_request(&mut self, flag: &str) -> anyhow::Result<&PullRequest> {
        let known = match self.pull_request.take() {
            Some(known) => known,
            None => {
                let repo = self.on_github(flag)?;
                let number = u64::try_from(self.known.number)
                    .map_err(|_| coded(USAGE, format!("--pull-number {}", self.known.number)))?;
                self.github
                    .ask(async |github| {
                        github.pull_request(repo, number).await
                    })
                    .await
                    .map_err(|why| self.github.failed(why))
                    .with_context(|| {
                        format!("pull request {repo}#{number} (what is asked of it can be given with {flag})")
                    })?
            }
        };
        Ok(self.pull_request.insert(known))
    }
}

impl Known {
    fn base_into(&self, refs: &mut Refs) {
        refs.base_ref.clone_from(&self.base_ref);
        refs.base_sha.clone_from(&self.base_sha);
    }
}

/// A repository that GitHub may have.
fn repo_id(repo: &str) -> Option<RepoId> {
    (!gerrit::is_gerrit_org(repo)).then(|| repo.parse().ok())?
}

/// ADM-184: makes the run and waits until it has ended, over as many connections as it takes.
async fn trigger(
    client: &Client,
    configured: &Configured,
    job: &ProwJob,
) -> anyhow::Result<ProwJob> {
    let request = CreateJobRequest {
        request_id: request_id(),
        what: Some(What::Prowjob(serde_json::to_vec(job)?.into())),
    };
    let made = client.jobs().create_job(request).await?.into_inner();
    note(&format!(
        "run {}; follow it with: trireme logs -f {}",
        made.id, made.id
    ));
    let mut connected = Some(client.clone());
    let mut after = made.revision;
    let mut lost = 0;
    loop {
        let why = match connected.take() {
            Some(client) => match until_ended(&client, &made.id, &mut after).await {
                Ok(ended) => return Ok(record::prow_job(&ended)?),
                Err(Ended::Never) => anyhow::bail!(
                    "run {} left the cluster's memory before its end was seen",
                    made.id
                ),
                Err(Ended::Lost { why, progressed }) => {
                    if progressed {
                        lost = 0;
                    }
                    anyhow::Error::from(why)
                }
            },
            None => anyhow::anyhow!("not connected"),
        };
        lost += 1;
        if lost > MAX_LOST_CONNECTIONS {
            return Err(why.context(format!(
                "gave up waiting for run {}; look with `trireme get job {}`",
                made.id, made.id
            )));
        }
        tokio::time::sleep(wait(lost)).await;
        connected = match configured.client().await {
            Ok(client) => Some(client),
            Err(why) => {
                note(&format!("{why:#}"));
                None
            }
        };
    }
}

/// Why a run's end was not seen.
enum Ended {
    /// It is not there any more.
    Never,
    /// The connection ended first.
    Lost {
        why: tonic::Status,
        progressed: bool,
    },
}

impl From<tonic::Status> for Ended {
    fn from(why: tonic::Status) -> Self {
        match why.code() {
            tonic::Code::NotFound => Self::Never,
            _ => Self::Lost {
                why,
                progressed: false,
            },
        }
    }
}

fn has_ended(job: &Job) -> bool {
    record::prow_state(job.state()).is_final()
}

/// Looks once, then watches. `after` becomes the last revision that was seen.
async fn until_ended(client: &Client, id: &str, after: &mut u64) -> Result<Job, Ended> {
    let asked = GetJobRequest {
        id: id.to_owned(),
        read: Some(trireme_proto::api::ReadOptions {
            at_least_revision: *after,
            ..Default::default()
        }),
    };
    let seen = client.jobs().get_job(asked).await?.into_inner();
    if let Some(job) = seen.job.filter(has_ended) {
        return Ok(job);
    }
    *after = seen.revision;
    let request = WatchRequest {
        after_revision: *after,
        kinds: vec!["job".to_owned()],
        ..WatchRequest::default()
    };
    let mut stream = client.watch().watch(request).await?.into_inner();
    let mut progressed = false;
    loop {
        let message = match stream.message().await {
            Ok(Some(message)) => message,
            Ok(None) => {
                let why = tonic::Status::unavailable("the watch ended");
                return Err(Ended::Lost { why, progressed });
            }
            Err(why) => return Err(Ended::Lost { why, progressed }),
        };
        progressed = true;
        let batch = message.batch.unwrap_or_default();
        *after = batch.revision;
        for change in batch.changes {
            let Some(Record::Job(job)) = change.record else {
                continue;
            };
            if job.id != id {
                continue;
            }
            if change.removed {
                return Err(Ended::Never);
            }
            if has_ended(&job) {
                return Ok(job);
            }
        }
    }
}

/// Between two connections.
fn wait(lost: u32) -> Duration {
    let full = FIRST_WAIT
        .saturating_mul(2_u32.saturating_pow(lost.saturating_sub(1)))
        .min(LONGEST_WAIT);
    let random = uuid::Uuid::new_v4().as_u128() % 1000;
    full / 2 + full.mul_f64(random as f64 / 2000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound() {
        for lost in 1..=MAX_LOST_CONNECTIONS {
            let waited = wait(lost);
            assert!(
                waited >= FIRST_WAIT / 2 && waited <= LONGEST_WAIT,
                "{lost}: {waited:?}"
            );
        }
        assert!(wait(MAX_LOST_CONNECTIONS) >= LONGEST_WAIT / 2);
    }
}
