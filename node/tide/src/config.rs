//! The configuration as Tide reads it.

use trireme_config::{
    Template, TemplatePull,
    in_repo::InRepoJobs,
    job::Presubmit,
    tide::{ContextPolicy as ConfiguredPolicy, MergeBlocksPolicy},
};
use trireme_forge::MergeMethod;
use trireme_in_repo::CONTEXT;
use trireme_office::RunningConfig;

use crate::{
    decide::Settings,
    merging::{MergeBlocks, MethodLabels},
    policy::ContextPolicy,
    pool::{PoolKey, Required},
    pull::Pull,
};

impl ContextPolicy for ConfiguredPolicy {
    fn is_optional(&self, context: &str) -> bool {
        Self::is_optional(self, context)
    }

    fn missing_required(&self, present: &std::collections::BTreeSet<&str>) -> Vec<String> {
        let present: Vec<&str> = present.iter().copied().collect();
        self.missing_required_contexts(&present)
    }
}

/// What the configuration says about one pool.
pub(crate) struct Rules<'a> {
    pub(crate) running: &'a RunningConfig,
    key: &'a PoolKey,
    full_repo: String,
    /// Those that the configuration has for the repository, whatever the branch. Where methods ask for `own` ones, these
    /// are the repository's at some state, which come after them.
    pub(crate) presubmits: Vec<&'a Presubmit>,
    /// Jobs that wait for a command are required too (TIDE-023).
    manual: bool,
}

impl<'a> Rules<'a> {
    pub(crate) fn new(running: &'a RunningConfig, key: &'a PoolKey) -> Self {
        let full_repo = format!("{}/{}", key.org, key.repo);
        let presubmits = running.config.presubmits(&full_repo).collect();
        let mut rules = Self {
            running,
            key,
            full_repo,
            presubmits,
            manual: false,
        };
        rules.manual = rules.requires_manual_jobs();
        rules
    }

    fn requires_manual_jobs(&self) -> bool {
        let prow = &self.running.config.prow;
        let PoolKey { org, repo, branch } = self.key;
        let options = prow.tide.context_options.layered(org, repo, branch);
        options.from_branch_protection == Some(true)
            && matches!(
                prow.branch_protection.for_branch(org, repo, branch, &[]),
                Ok(Some(policy)) if policy.require_manually_triggered_jobs == Some(true)
            )
    }

    /// `org/repo`
    pub(crate) fn repo(&self) -> &str {
        &self.full_repo
    }

    pub(crate) fn has_own_jobs(&self) -> bool {
        let prow = &self.running.config.prow;
        prow.in_repo_config_enabled(&self.full_repo)
    }

    pub(crate) fn all<'o>(&'o self, own: &'o InRepoJobs) -> impl Iterator<Item = &'o Presubmit> {
        self.presubmits.iter().copied().chain(&own.presubmits)
    }

    pub(crate) fn policy(&self, own: &InRepoJobs) -> Result<ConfiguredPolicy, String> {
        let PoolKey { org, repo, branch } = self.key;
        let prow = &self.running.config.prow;
        let presubmits: Vec<&Presubmit> = self.all(own).collect();
        let mut policy = prow.context_policy(org, repo, branch, &presubmits)?;
        // It is about some former base, and this look is at the newest one; only who names it wants it.
        let named = |list: &[String]| list.iter().any(|context| context == CONTEXT);
        if self.has_own_jobs()
            && !named(&policy.required_contexts)
            && !named(&policy.required_if_present_contexts)
        {
            policy.optional_contexts.push(CONTEXT.to_owned());
        }
        Ok(policy)
    }

    /// Whether [`Self::required`] looks at the changed files.
    pub(crate) fn wants_changed_files(&self, own: &InRepoJobs) -> bool {
        let branch = &self.key.branch;
        self.tested(own)
            .any(|job| job.wants_changed_files(branch, self.forced(job)))
    }

    /// The tests that must pass, given the changed files (TIDE-022, TIDE-071).
    pub(crate) fn required(&self, own: &InRepoJobs, files: &[String]) -> Vec<Required> {
        let branch = &self.key.branch;
        self.tested(own)
            .filter(|job| job.should_run(branch, files, self.forced(job), false))
            .map(|job| Required {
                job: job.base.name.clone(),
                context: job.reporter.context.clone(),
            })
            .collect()
    }

    fn tested<'o>(&'o self, own: &'o InRepoJobs) -> impl Iterator<Item = &'o Presubmit> {
        self.all(own)
            .filter(|job| job.context_required() || job.run_before_merge)
    }

    fn forced(&self, job: &Presubmit) -> bool {
        let by_hand = self.manual && job.context_required() && job.needs_explicit_trigger();
        by_hand || job.run_before_merge
    }

    pub(crate) fn presubmit<'o>(
        &'o self,
        own: &'o InRepoJobs,
        required: &Required,
    ) -> Option<&'o Presubmit> {
        self.all(own).find(|job| {
            job.base.name == required.job
                && job.reporter.context == required.context
                && job.could_run(&self.key.branch)
        })
    }

    pub(crate) fn settings(&self) -> Settings {
        let PoolKey { org, repo, .. } = self.key;
        let tide = &self.running.config.prow.tide;
        Settings {
            priority: tide
                .priority
                .iter()
                .map(|entry| entry.labels.clone())
                .collect(),
            batch_size_limit: tide.batch_size_limit(org, repo),
            prioritize_existing_batches: tide.prioritizes_existing_batches(org, repo),
        }
    }

    pub(crate) fn blocks(&self) -> MergeBlocks {
        let PoolKey { org, repo, .. } = self.key;
        match self.running.config.prow.tide.merge_blocks_policy(org, repo) {
            MergeBlocksPolicy::Ignore => MergeBlocks::Ignore,
            MergeBlocksPolicy::Permit => MergeBlocks::Permit,
            MergeBlocksPolicy::Block => MergeBlocks::Block,
        }
    }

    pub(crate) fn method(&self, pull: &Pull) -> Option<MergeMethod> {
        use trireme_config::tide::MergeMethod as Word;
        let PoolKey { org, repo, branch } = self.key;
        let tide = &self.running.config.prow.tide;
        let configured = match tide.merge_method(org, repo, branch) {
            Word::Merge => MergeMethod::Merge,
            Word::Squash => MergeMethod::Squash,
            Word::Rebase => MergeMethod::Rebase,
        };
        let labels = MethodLabels {
            merge: tide.merge_label.clone(),
            squash: tide.squash_label.clone(),
            rebase: tide.rebase_label.clone(),
        };
        crate::merging::method(pull, configured, &labels)
    }

    pub(crate) fn target_url(&self, pull: &Pull) -> String {
        let PoolKey { org, repo, .. } = self.key;
        let tide = &self.running.config.prow.tide;
        let configured = tide.target_url(org, repo);
        crate::explain::target_url(pull, configured, tide.pr_status_base_url(org, repo))
    }

    /// Title and message of the merge commit; none leaves the forge's own (TIDE-003).
    pub(crate) fn commit_texts(&self, pull: &Pull) -> (Option<String>, Option<String>) {
        let PoolKey { org, repo, .. } = self.key;
        let tide = &self.running.config.prow.tide;
        let Some(templates) = tide.merge_commit_template(org, repo) else {
            return (None, None);
        };
        let subject = TemplatePull {
            org: &pull.org,
            repo: &pull.repo,
            number: i64::try_from(pull.number).unwrap_or(i64::MAX),
            title: &pull.title,
            body: &pull.body,
            author_login: &pull.author,
            base_ref_name: &pull.base_ref,
            head_ref_name: &pull.head_ref,
            head_ref_oid: &pull.head_sha,
        };
        let render = |template: &Option<Template>| match template.as_ref()?.for_pull(&subject) {
            Ok(text) => Some(text),
            Err(why) => {
                tracing::error!(pool = %self.key, number = pull.number, %why, "the commit template failed, the forge's own text is used");
                None
            }
        };
        (
            render(&templates.title_template),
            render(&templates.body_template),
        )
    }
}
