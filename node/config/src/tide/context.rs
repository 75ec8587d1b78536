//! Which contexts of a head must pass before it merges (JOB-019 and Tide's `context_options`).

use std::collections::BTreeSet;

use super::ContextPolicyOptions;
use crate::go_regex::GoRegex;
use crate::job::{Presubmit, Requirements};
use crate::prow::ProwConfig;

object! {
    /// Contexts by their importance. As read, a layer; as returned by [`ProwConfig::context_policy`], the whole.
    pub struct ContextPolicy {
        /// Whether contexts that nobody knows are optional; else they are required.
        [omit "skip-unknown-contexts"] skip_unknown_contexts: Option<bool>,
        [omit "required-contexts"] required_contexts: Vec<String>,
        [omit "required-if-present-contexts"] required_if_present_contexts: Vec<String>,
        [omit "optional-contexts"] optional_contexts: Vec<String>,
        [omit "optional-regex-contexts"] optional_regex_contexts: Vec<String>,
        [derived] optional_regexes: Vec<GoRegex>,
        /// Whether branch protection's contexts are required too.
        [omit "from-branch-protection"] from_branch_protection: Option<bool>,
        [omit "overwrite-pending-contexts"] overwrite_pending_contexts: Option<bool>,
    }
}

impl ContextPolicy {
    /// Whether a context may fail.
    #[must_use]
    pub fn is_optional(&self, context: &str) -> bool {
        let named = |list: &[String]| list.iter().any(|c| c == context);
        if named(&self.optional_contexts)
            || self.optional_regexes.iter().any(|re| re.is_match(context))
        {
            return true;
        }
        if named(&self.required_contexts) || named(&self.required_if_present_contexts) {
            return false;
        }
        self.skip_unknown_contexts.unwrap_or(false)
    }

    /// Required contexts that a head does not have, sorted.
    #[must_use]
    pub fn missing_required_contexts<S: AsRef<str>>(&self, present: &[S]) -> Vec<String> {
        let present: BTreeSet<&str> = present.iter().map(AsRef::as_ref).collect();
        let required: BTreeSet<&str> = self.required_contexts.iter().map(String::as_str).collect();
        required
            .difference(&present)
            .map(|c| (*c).to_owned())
            .collect()
    }

    /// A layer over another: its switches win, lists are united and sorted.
    fn over(&self, below: &Self) -> Self {
        let union = |a: &[String], b: &[String]| sorted(a.iter().chain(b).cloned());
        Self {
            skip_unknown_contexts: self.skip_unknown_contexts.or(below.skip_unknown_contexts),
            required_contexts: union(&below.required_contexts, &self.required_contexts),
            required_if_present_contexts: union(
                &below.required_if_present_contexts,
                &self.required_if_present_contexts,
            ),
            optional_contexts: union(&below.optional_contexts, &self.optional_contexts),
            optional_regex_contexts: union(
                &below.optional_regex_contexts,
                &self.optional_regex_contexts,
            ),
            optional_regexes: Vec::new(),
            from_branch_protection: self.from_branch_protection.or(below.from_branch_protection),
            overwrite_pending_contexts: self
                .overwrite_pending_contexts
                .or(below.overwrite_pending_contexts),
        }
    }

    /// Refuses contradictions and compiles the expressions.
    fn settle(&mut self) -> Result<(), String> {
        let none_in_both = |a: &[String], b: &[String], what: &str| {
            let both: Vec<_> = sorted(a.iter().filter(|c| b.contains(c)).cloned());
            if both.is_empty() {
                Ok(())
            } else {
                Err(format!(
                    "contexts {} are defined as {what}",
                    both.join(", ")
                ))
            }
        };
        let (required, present) = (&self.required_contexts, &self.required_if_present_contexts);
        none_in_both(required, &self.optional_contexts, "required and optional")?;
        none_in_both(required, present, "required and required if present")?;
        none_in_both(
            &self.optional_contexts,
            present,
            "optional and required if present",
        )?;
        let mut regexes = Vec::new();
        for source in &self.optional_regex_contexts {
            let re = GoRegex::new(source)
                .map_err(|e| format!("optional context regex {source:?} doesn't compile: {e}"))?;
            if let Some(context) = required.iter().find(|c| re.is_match(c)) {
                return Err(format!(
                    "optional context regex {source:?} matches required context {context}"
                ));
            }
            if let Some(context) = present.iter().find(|c| re.is_match(c)) {
                return Err(format!(
                    "optional context regex {source:?} matches required if present context {context}"
                ));
            }
            regexes.push(re);
        }
        self.optional_regexes = regexes;
        Ok(())
    }
}

fn sorted(contexts: impl IntoIterator<Item = String>) -> Vec<String> {
    contexts
        .into_iter()
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}

impl ContextPolicyOptions {
    /// The layers for a branch, from general to narrow.
    #[must_use]
    pub fn layered(&self, org: &str, repo: &str, branch: &str) -> ContextPolicy {
        let mut policy = self.policy.clone();
        let Some(org) = self.orgs.get(org) else {
            return policy;
        };
        policy = org.policy.over(&policy);
        let Some(repo) = org.repos.get(repo) else {
            return policy;
        };
        policy = repo.policy.over(&policy);
        match repo.branches.get(branch) {
            Some(branch) => branch.over(&policy),
            None => policy,
        }
    }
}

impl ProwConfig {
    /// The policy for a branch: its options, branch protection if they say so, and its presubmits (in-repo ones
    /// included by the caller).
    ///
    /// # Errors
    /// A context that is required and optional at once.
    pub fn context_policy(
        &self,
        org: &str,
        repo: &str,
        branch: &str,
        presubmits: &[&Presubmit],
    ) -> Result<ContextPolicy, String> {
        let options = self.tide.context_options.layered(org, repo, branch);
        let mut required: Vec<String> = options.required_contexts.clone();
        let mut manual = false;
        if options.from_branch_protection == Some(true) {
            match self
                .branch_protection
                .for_branch(org, repo, branch, presubmits)
            {
                Ok(Some(policy)) => {
                    manual = policy.require_manually_triggered_jobs == Some(true);
                    if policy.protect == Some(true)
                        && let Some(checks) = policy.required_status_checks
                    {
                        required.extend(checks.contexts.into_iter().flatten());
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(org, repo, branch, %error, "cannot tell the branch protection")
                }
            }
        }
        let jobs = Requirements::of(branch, presubmits.iter().copied(), manual);
        let mut policy = ContextPolicy {
            required_contexts: sorted(required.into_iter().chain(jobs.required)),
            required_if_present_contexts: sorted(
                options
                    .required_if_present_contexts
                    .into_iter()
                    .chain(jobs.required_if_present),
            ),
            optional_contexts: sorted(options.optional_contexts.into_iter().chain(jobs.optional)),
            optional_regex_contexts: options.optional_regex_contexts,
            optional_regexes: Vec::new(),
            skip_unknown_contexts: options.skip_unknown_contexts,
            from_branch_protection: None,
            overwrite_pending_contexts: options.overwrite_pending_contexts,
        };
        policy.settle()?;
        Ok(policy)
    }
}
