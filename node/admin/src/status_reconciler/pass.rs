//! One pass over a repository's open pull requests: start, retire, move, in this order (ADM-097).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use trireme_config::job::{Filter, Presubmit};
use trireme_forge::{
    BotUser, CommitStatus, Forge, ForgeError, PullRequest, RepoId, StatusState, has_label,
};
use trireme_in_repo::{Commits, InRepo, InRepoError};
use trireme_office::{
    DeltaError, OK_TO_TEST, Office, OfficeError, PullRun, RecordError, RunningConfig, TrustRule,
    run_record,
};
use trireme_proto::state::{CreateJobs, Job, JobType, NewJob, command::Body};
use trireme_state::{GITHUB_REPORTER, State, ids::job_id, is_complete, is_owed};

use super::delta::{Added, BranchDelta, RepoDelta};
use super::metrics::{Action, Metrics, Outcome};
use super::settings::Options;

/// Names this controller in ids.
const CREATOR: &str = "status-reconciler";
/// Of runs that no event asked for (ADM-093).
const NO_EVENT: &str = "none";
const RETIRED: &str = "Context retired without replacement.";
/// Refusals that no repetition helps: the commit is gone, or GitHub takes no further status for it.
const POINTLESS: [&str; 2] = [
    "This SHA and context has reached the maximum number of statuses",
    "No commit found for SHA",
];

/// Why a pass, or a step of it, failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error(transparent)]
    Office(#[from] OfficeError),
    #[error(transparent)]
    Forge(#[from] ForgeError),
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The repository's own jobs cannot be read.
    #[error(transparent)]
    InRepo(InRepoError),
    #[error(transparent)]
    Delta(DeltaError),
    #[error("configuration: {0}")]
    Away(String),
}

impl From<DeltaError> for Trouble {
    fn from(why: DeltaError) -> Self {
        match why {
            DeltaError::Office(why) => Self::Office(why),
            DeltaError::Away(why) => Self::Away(why),
            why @ DeltaError::Cursor { .. } => Self::Delta(why),
        }
    }
}

/// A head of a pull request.
type Head = (u64, String);

/// How far the work from one version to another is in a repository; to lose it costs requests.
#[derive(Debug, Default)]
pub(super) struct Progress {
    versions: (u64, u64),
    started: BTreeSet<Head>,
    settled: BTreeSet<Head>,
    /// Contexts that runs under way will write once more.
    awaited: BTreeMap<Head, Vec<String>>,
}

impl Progress {
    pub(super) fn between(versions: (u64, u64)) -> Self {
        Self {
            versions,
            ..Self::default()
        }
    }

    pub(super) fn is_between(&self, versions: (u64, u64)) -> bool {
        self.versions == versions
    }
}

/// What a pass works with.
pub(super) struct Pass<'a> {
    pub(super) office: &'a Office,
    pub(super) forge: &'a Arc<dyn Forge>,
    pub(super) in_repo: &'a InRepo,
    pub(super) options: &'a Options,
    pub(super) metrics: &'a Metrics,
    pub(super) repo: &'a RepoId,
    pub(super) after: &'a RunningConfig,
    pub(super) delta: &'a RepoDelta,
}

/// What the forge has told, for one pass.
#[derive(Default)]
struct Known {
    bot: Option<BotUser>,
    /// Tips by branch.
    tips: BTreeMap<String, String>,
    /// (organisation, login)
    members: BTreeMap<(String, String), bool>,
    collaborators: BTreeMap<String, bool>,
}

enum Question {
    Member(String, String),
    Collaborator(String),
}

impl Pass<'_> {
    /// Whether nothing is left to do: false while runs under way will write contexts that nobody asks for any more.
    ///
    /// # Errors
    /// Without `continue_on_error` the first, with it all (ADM-097).
    pub(super) async fn run(&self, progress: &mut Progress) -> Result<bool, Vec<Trouble>> {
        if self.only_waits(progress) {
            return Ok(false);
        }
        progress.awaited.clear();
        let passed = self.over_all(progress).await;
        if passed.is_err() {
            // Not all that is left is to wait.
            progress.awaited.clear();
        }
        passed.map(|()| progress.awaited.is_empty())
    }

    async fn over_all(&self, progress: &mut Progress) -> Result<(), Vec<Trouble>> {
        let mut pulls = self
            .forge
            .open_pull_requests(self.repo)
            .await
            .map_err(|why| vec![why.into()])?;
        pulls.sort_by_key(|pull| pull.number);
        let mut troubles = Vec::new();
        let mut known = Known::default();
        if self.options.may_start(self.repo) {
            for pull in &pulls {
                if let Err(why) = self.start_once(pull, &mut known, progress).await {
                    self.note(pull, why, &mut troubles)?;
                }
            }
        }
        for pull in &pulls {
            if let Err(why) = self.settle_once(pull, &mut known, progress).await {
                self.note(pull, why, &mut troubles)?;
            }
        }
        if troubles.is_empty() {
            Ok(())
        } else {
            Err(troubles)
        }
    }

    fn note(
        &self,
        pull: &PullRequest,
        why: Trouble,
        troubles: &mut Vec<Trouble>,
    ) -> Result<(), Vec<Trouble>> {
        // The others would fare no better.
        let for_all = matches!(
            why,
            Trouble::Office(_) | Trouble::Forge(ForgeError::RateLimited { .. })
        );
        let ends = for_all || !self.options.continue_on_error;
        tracing::warn!(repo = %self.repo, number = pull.number, %why, "not brought in line");
        troubles.push(why);
        if ends {
            Err(std::mem::take(troubles))
        } else {
            Ok(())
        }
    }

    /// Whether everything is done but what runs under way will write, and they have not ended.
    fn only_waits(&self, progress: &Progress) -> bool {
        let view = self.office.view();
        !progress.awaited.is_empty()
            && progress.awaited.iter().all(|(head, contexts)| {
                contexts
                    .iter()
                    .any(|context| self.will_be_written(&view, head, context))
            })
    }

    async fn start_once(
        &self,
        pull: &PullRequest,
        known: &mut Known,
        progress: &mut Progress,
    ) -> Result<(), Trouble> {
        let head = (pull.number, pull.head.sha.clone());
        if pull.draft || progress.started.contains(&head) {
            return Ok(());
        }
        let delta = self.delta.on(&pull.base.branch);
        if !delta.added.is_empty() {
            self.start(pull, &delta, known).await?;
        }
        progress.started.insert(head);
        Ok(())
    }

    /// ADM-093
    async fn start(
        &self,
        listed: &PullRequest,
        delta: &BranchDelta<'_>,
        known: &mut Known,
    ) -> Result<(), Trouble> {
        let jobs: Vec<&Presubmit> = delta.added.iter().map(|added| added.job).collect();
        let (branch, number) = (&listed.base.branch, listed.number);
        let filter = Filter::TestAll;
        let mut files = Vec::new();
        if filter.wants_changed_files(branch, jobs.iter().copied()) {
            let changed = self.forge.changed_files(self.repo, number).await?;
            files = changed.into_iter().map(|file| file.path).collect();
        }
        let applies = |added: &&Added<'_>| {
            let one: [&Presubmit; 1] = [added.job];
            !filter.select(branch, &files, one).is_empty()
        };
        let mut added: Vec<&Added<'_>> = delta.added.iter().filter(applies).collect();
        if added.is_empty() {
            return Ok(());
        }
        // Lists do not tell whether it can be merged.
        let pull = self.forge.pull_request(self.repo, number).await?;
        let moved = pull.head.sha != listed.head.sha || pull.base.branch != listed.base.branch;
        if !pull.is_open() || pull.draft || moved || pull.mergeable == Some(false) {
            // What moves is an event, which starts what the newest version asks for.
            return Ok(());
        }
        if !self.is_trusted(&pull, known).await? {
            return Ok(());
        }
        let base_sha = self.tip(branch, known).await?;
        let head = (number, pull.head.sha.clone());
        let view = self.office.view();
        let ran = |added: &&Added<'_>| {
            let mut runs = self.runs(&view, &head, &added.job.reporter.context);
            runs.any(|run| tells(run) && run.config_version >= self.after.version)
        };
        // An event may have started what the newest version asks for meanwhile, whatever came of it.
        added.retain(|added| !ran(added));
        drop(view);
        if added.is_empty() {
            return Ok(());
        }
        let new = self.records(&pull, &base_sha, &added)?;
        let names: Vec<&str> = added
            .iter()
            .map(|added| added.job.base.name.as_str())
            .collect();
        let repo = self.repo;
        if self.options.dry_run {
            tracing::info!(%repo, number, head = pull.head.sha, jobs = ?names, "would start newly required jobs");
            self.metrics
                .count(Action::Trigger, Outcome::Planned, names.len());
            return Ok(());
        }
        let command = CreateJobs {
            jobs: new,
            cursors: Vec::new(),
        };
        let done = self.office.propose(Body::CreateJobs(command)).await?;
        if !done.created.is_empty() {
            tracing::info!(%repo, number, head = pull.head.sha, jobs = ?names, created = done.created.len(), "started newly required jobs");
            self.metrics
                .count(Action::Trigger, Outcome::Applied, done.created.len());
        }
        Ok(())
    }

    fn records(
        &self,
        pull: &PullRequest,
        base_sha: &str,
        added: &[&Added<'_>],
    ) -> Result<Vec<NewJob>, RecordError> {
        let (repo, number, sha) = (self.repo, pull.number, &pull.head.sha);
        let origin = format!(
            "status-reconciler config/{} {repo}#{number} {sha}",
            self.after.version
        );
        let labels = BTreeMap::new();
        let on = PullRun {
            pull_request: pull,
            base_sha,
            guid: NO_EVENT,
            labels: &labels,
            now: Timestamp::from_millisecond(self.office.now_ms()).unwrap_or_default(),
        };
        let view = self.office.view();
        let record = |added: &&Added<'_>| {
            // The context, not the place: places change with the version's other jobs, of which some may be done already.
            let made = format!("{origin} {}", added.job.reporter.context);
            let prow_job = on.prow_job(added.job, job_id(&made, CREATOR, 0));
            let job = run_record(self.after, prow_job, &origin)?;
            let head = (number, sha.clone());
            let context = &added.job.reporter.context;
            let silent =
                added.was_silent && !self.runs(&view, &head, context).any(|run| tells(run));
            Ok(NewJob {
                job: Some(Box::new(job)),
                // A run that told nobody is no result.
                unless_exists: !silent,
                supersede: true,
                cause: format!(
                    "configuration {} asks for it on open pull requests",
                    self.after.version
                ),
            })
        };
        added.iter().map(record).collect()
    }

    /// PLG-TRIGGER-012
    async fn is_trusted(&self, pull: &PullRequest, known: &mut Known) -> Result<bool, Trouble> {
        let bot = match known.bot.take() {
            Some(bot) => bot,
            None => self.forge.bot_user(&self.repo.org).await?,
        };
        let author = pull.author.login.as_str();
        let is_bot = bot.is(author);
        known.bot = Some(bot);
        if is_bot || has_label(&pull.labels, OK_TO_TEST) {
            return Ok(true);
        }
        let section = self
            .after
            .plugins
            .trigger_for(&self.repo.org, &self.repo.repo);
        let rule = TrustRule {
            trusted_apps: &section.trusted_apps,
            trusted_org: &section.trusted_org,
            only_org_members: section.only_org_members,
        };
        loop {
            let answer = rule.trusts(
                author,
                &self.repo.org,
                |org, login| {
                    let key = (org.to_owned(), login.to_owned());
                    let is = known.members.get(&key).copied();
                    is.ok_or(Question::Member(key.0, key.1))
                },
                |login| {
                    let is = known.collaborators.get(login).copied();
                    is.ok_or_else(|| Question::Collaborator(login.to_owned()))
                },
            );
            match answer {
                Ok(trusted) => return Ok(trusted),
                // Each is asked once, and there are three.
                Err(Question::Member(org, login)) => {
                    let is = self.forge.is_org_member(&org, &login).await?;
                    known.members.insert((org, login), is);
                }
                Err(Question::Collaborator(login)) => {
                    let is = self.forge.is_collaborator(self.repo, &login).await?;
                    known.collaborators.insert(login, is);
                }
            }
        }
    }

    async fn tip(&self, branch: &str, known: &mut Known) -> Result<String, Trouble> {
        if let Some(tip) = known.tips.get(branch) {
            return Ok(tip.clone());
        }
        let tip = self.forge.branch_head(self.repo, branch).await?;
        known.tips.insert(branch.to_owned(), tip.clone());
        Ok(tip)
    }

    /// Contexts that jobs in the repository itself report on this pull request: a job may have moved there. None where they
    /// cannot be known until the pull request or its base changes, which keep it from merging meanwhile.
    async fn own_contexts(
        &self,
        pull: &PullRequest,
        known: &mut Known,
    ) -> Result<Option<BTreeSet<String>>, Trouble> {
        let config = &self.after.config;
        let repo = self.repo.to_string();
        if !config.prow.in_repo_config_enabled(&repo) {
            return Ok(Some(BTreeSet::new()));
        }
        let branch = &pull.base.branch;
        let base = self.tip(branch, known).await?;
        let heads = [pull.head.sha.as_str()];
        let at = Commits {
            base: &base,
            heads: &heads,
        };
        match self.in_repo.jobs(config, &repo, at).await {
            Ok(own) => {
                let jobs = own.jobs.presubmits.iter();
                let reporting =
                    jobs.filter(|job| job.could_run(branch) && !job.reporter.skip_report);
                let contexts = reporting.map(|job| job.reporter.context.clone());
                Ok(Some(contexts.collect()))
            }
            Err(why @ (InRepoError::Conflict { .. } | InRepoError::Broken { .. })) => {
                tracing::info!(repo, number = pull.number, %why, "contexts are left as they are");
                Ok(None)
            }
            Err(why) => Err(Trouble::InRepo(why)),
        }
    }

    async fn settle_once(
        &self,
        pull: &PullRequest,
        known: &mut Known,
        progress: &mut Progress,
    ) -> Result<(), Trouble> {
        let head = (pull.number, pull.head.sha.clone());
        if progress.settled.contains(&head) {
            return Ok(());
        }
        let delta = self.delta.on(&pull.base.branch);
        let mut awaited = Vec::new();
        if delta.has_old_contexts() {
            awaited = self.settle(pull, &head, delta, known).await?;
        }
        if awaited.is_empty() {
            progress.settled.insert(head);
        } else {
            progress.awaited.insert(head, awaited);
        }
        Ok(())
    }

    /// ADM-094, ADM-095. Gives the contexts that will be written once more by a run under way.
    async fn settle(
        &self,
        pull: &PullRequest,
        head: &Head,
        mut delta: BranchDelta<'_>,
        known: &mut Known,
    ) -> Result<Vec<String>, Trouble> {
        let (number, sha) = head;
        let Some(own) = self.own_contexts(pull, known).await? else {
            return Ok(Vec::new());
        };
        delta.retired.retain(|context| !own.contains(*context));
        delta.moved.retain(|context, _| !own.contains(*context));
        // Asked before the look at the statuses: what is said after it is looked at once more. In a dry run nothing is undone.
        let view = self.office.view();
        let olds = delta.retired.iter().chain(delta.moved.keys());
        let awaited: BTreeSet<&str> = olds
            .copied()
            .filter(|old| !self.options.dry_run && self.will_be_written(&view, head, old))
            .collect();
        drop(view);
        let present = self.forge.combined_status(self.repo, sha).await?.statuses;
        for context in &delta.retired {
            if let Some(status) = retirement(&present, context) {
                self.write(*number, sha, &status, Action::Retire).await?;
            }
        }
        for (from, to) in &delta.moved {
            // What it has to say is copied when it has said it.
            if awaited.contains(from) {
                continue;
            }
            for status in migration(&present, from, to) {
                self.write(*number, sha, &status, Action::Migrate).await?;
            }
        }
        Ok(awaited.into_iter().map(str::to_owned).collect())
    }

    async fn write(
        &self,
        number: u64,
        sha: &str,
        status: &CommitStatus,
        action: Action,
    ) -> Result<(), Trouble> {
        let (repo, context, description) = (self.repo, &status.context, &status.description);
        if self.options.dry_run {
            tracing::info!(%repo, number, head = sha, context, state = status.state.as_str(), description, "would set a status");
            self.metrics.count(action, Outcome::Planned, 1);
            return Ok(());
        }
        self.office.assert_held().await?;
        match self.forge.create_status(repo, sha, status).await {
            Ok(()) => {
                tracing::info!(%repo, number, head = sha, context, state = status.state.as_str(), description, "set a status");
                self.metrics.count(action, Outcome::Applied, 1);
                Ok(())
            }
            Err(why) if is_pointless(&why) => {
                tracing::warn!(%repo, number, head = sha, context, %why, "the status has no place any more");
                Ok(())
            }
            Err(why) => Err(why.into()),
        }
    }

    fn runs<'s>(
        &self,
        state: &'s State,
        head: &'s Head,
        context: &'s str,
    ) -> impl Iterator<Item = &'s Arc<Job>> {
        let (number, sha) = head;
        let runs = state.jobs_of_pull(&self.repo.org, &self.repo.repo, *number);
        runs.filter(move |run| {
            run.r#type() == JobType::Presubmit
                && run.context == context
                && run.pulls.iter().any(|pull| pull.head_sha == *sha)
        })
    }

    /// Whether a run of ours has not said its last about the context.
    fn will_be_written(&self, state: &State, head: &Head, context: &str) -> bool {
        self.runs(state, head, context).any(|run| {
            let report = state.report(&run.id, GITHUB_REPORTER);
            tells(run) && (!is_complete(run) || report.is_some_and(|report| is_owed(report)))
        })
    }
}

/// Whether GitHub is told of the run.
fn tells(run: &Job) -> bool {
    run.reporters
        .iter()
        .any(|reporter| reporter == GITHUB_REPORTER)
}

fn is_pointless(why: &ForgeError) -> bool {
    let text = why.to_string();
    why.is_not_found() || POINTLESS.iter().any(|known| text.contains(known))
}

fn of<'s>(present: &'s [CommitStatus], context: &str) -> Option<&'s CommitStatus> {
    present.iter().find(|status| status.context == context)
}

/// ADM-094: the status to set, if the head has the context and it is not set already.
fn retirement(present: &[CommitStatus], context: &str) -> Option<CommitStatus> {
    let was = of(present, context)?;
    let status = CommitStatus {
        context: context.to_owned(),
        state: StatusState::Success,
        description: RETIRED.to_owned(),
        target_url: String::new(),
    };
    (*was != status).then_some(status)
}

/// ADM-095: the statuses to set, in this order. A pass that was broken off between the two is gone on with.
fn migration(present: &[CommitStatus], from: &str, to: &str) -> Vec<CommitStatus> {
    let Some(old) = of(present, from) else {
        return Vec::new();
    };
    let moved = CommitStatus {
        context: from.to_owned(),
        state: StatusState::Success,
        description: moved_to(to),
        target_url: String::new(),
    };
    let copy = CommitStatus {
        context: to.to_owned(),
        ..old.clone()
    };
    match of(present, to) {
        None if *old != moved => vec![copy, moved],
        Some(new) if *new == copy => vec![moved],
        _ => Vec::new(),
    }
}

/// GitHub takes 140 characters.
fn moved_to(context: &str) -> String {
    const MAX: usize = 140;
    let whole = format!("Context retired. Status moved to \"{context}\".");
    if whole.chars().count() <= MAX {
        return whole;
    }
    let room = MAX - "Context retired. Status moved to \"...\".".chars().count();
    let cut: String = context.chars().take(room).collect();
    format!("Context retired. Status moved to \"{cut}...\".")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(context: &str, state: StatusState, description: &str, url: &str) -> CommitStatus {
        CommitStatus {
            context: context.to_owned(),
            state,
            description: description.to_owned(),
            target_url: url.to_owned(),
        }
    }

    fn told(statuses: &[CommitStatus]) -> String {
        let lines = statuses.iter().map(|status| {
            let CommitStatus {
                context,
                state,
                description,
                target_url,
            } = status;
            format!(
                "{context} {} {description:?} {target_url:?}",
                state.as_str()
            )
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn adm_094_a_context_is_retired_where_it_is_and_once() {
        let present = [status(
            "unit",
            StatusState::Failure,
            "It failed.",
            "http://x",
        )];
        let retired = retirement(&present, "unit").unwrap();
        insta::assert_snapshot!(told(std::slice::from_ref(&retired)), @r#"unit success "Context retired without replacement." """#);
        assert_eq!(retirement(&[retired], "unit"), None);
        assert_eq!(retirement(&present, "other"), None);
    }

    #[test]
    fn adm_095_a_context_is_copied_before_it_is_retired() {
        let old = status("unit", StatusState::Failure, "It failed.", "http://x");
        let both = migration(std::slice::from_ref(&old), "unit", "ci/unit");
        insta::assert_snapshot!(told(&both), @r#"
        ci/unit failure "It failed." "http://x"
        unit success "Context retired. Status moved to \"ci/unit\"." ""
        "#);
        // Broken off between the two.
        let half = [old.clone(), both[0].clone()];
        assert_eq!(migration(&half, "unit", "ci/unit"), both[1..]);
        assert_eq!(migration(&both, "unit", "ci/unit"), []);
        // The new one has spoken for itself.
        let ran = [old, status("ci/unit", StatusState::Pending, "It runs.", "")];
        assert_eq!(migration(&ran, "unit", "ci/unit"), []);
        assert_eq!(migration(&[], "unit", "ci/unit"), []);
    }

    #[test]
    fn what_github_would_not_take_is_cut() {
        let long = moved_to(&"x".repeat(200));
        assert_eq!(long.chars().count(), 140);
        assert!(long.ends_with("x...\"."), "{long}");
    }
}
