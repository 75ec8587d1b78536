//! A pull request as Tide judges it, whichever way it was learned of: from the mirror or from a search.

use std::collections::{BTreeMap, BTreeSet};

use trireme_forge::{
    CheckRun, StatusState,
    search::{MergeState, Mergeable, ReviewDecision, SearchedPullRequest},
};
use trireme_proto::state;

use crate::policy::ContextPolicy;

/// Tide's own context: never counted, written by the status side.
pub const TIDE_CONTEXT: &str = "tide";

/// One context of a head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    pub name: String,
    pub state: StatusState,
    pub description: String,
}

/// What decides whether and how a pull request merges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pull {
    pub org: String,
    pub repo: String,
    pub number: u64,
    pub title: String,
    pub body: String,
    pub author: String,
    pub author_is_bot: bool,
    /// Without `refs/heads/`.
    pub base_ref: String,
    pub head_ref: String,
    pub head_sha: String,
    pub labels: Vec<String>,
    pub milestone: Option<String>,
    pub draft: bool,
    pub mergeable: Mergeable,
    pub merge_state: MergeState,
    pub can_be_rebased: bool,
    pub review: Option<ReviewDecision>,
    /// Of the head. A name may come twice, as a status and as a check run: both must be good.
    pub contexts: Vec<Context>,
}

/// What the mirror does not hold and only a search tells; until one has, nothing is held against the pull request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchOnly {
    pub author_is_bot: bool,
    pub merge_state: MergeState,
    pub can_be_rebased: bool,
}

impl Default for SearchOnly {
    fn default() -> Self {
        Self {
            author_is_bot: false,
            merge_state: MergeState::Unknown,
            can_be_rebased: true,
        }
    }
}

impl From<&SearchedPullRequest> for SearchOnly {
    fn from(found: &SearchedPullRequest) -> Self {
        Self {
            author_is_bot: found.author.kind == trireme_forge::UserKind::Bot,
            merge_state: found.merge_state,
            can_be_rebased: found.can_be_rebased,
        }
    }
}

impl Pull {
    #[must_use]
    pub fn from_mirror(mirror: &state::PullRequest, more: &SearchOnly) -> Self {
        Self {
            org: mirror.org.clone(),
            repo: mirror.repo.clone(),
            number: mirror.number,
            title: mirror.title.clone(),
            body: mirror.body.clone(),
            author: mirror.author.clone(),
            author_is_bot: more.author_is_bot,
            base_ref: mirror.base_ref.clone(),
            head_ref: mirror.head_ref.clone(),
            head_sha: mirror.head_sha.clone(),
            labels: mirror.labels.clone(),
            milestone: Some(mirror.milestone.clone()).filter(|title| !title.is_empty()),
            draft: mirror.draft,
            mergeable: match mirror.mergeable() {
                state::Mergeable::Yes => Mergeable::Mergeable,
                state::Mergeable::Conflicting => Mergeable::Conflicting,
                state::Mergeable::Unknown => Mergeable::Unknown,
            },
            merge_state: more.merge_state,
            can_be_rebased: more.can_be_rebased,
            review: match mirror.review_decision.as_str() {
                "APPROVED" => Some(ReviewDecision::Approved),
                "CHANGES_REQUESTED" => Some(ReviewDecision::ChangesRequested),
                "" => None,
                _ => Some(ReviewDecision::ReviewRequired),
            },
            contexts: mirror
                .contexts
                .iter()
                .map(|(name, context)| Context {
                    name: name.clone(),
                    state: match context.state() {
                        state::ContextState::Success => StatusState::Success,
                        state::ContextState::Failure => StatusState::Failure,
                        state::ContextState::Error => StatusState::Error,
                        state::ContextState::Pending | state::ContextState::Unspecified => {
                            StatusState::Pending
                        }
                    },
                    description: context.description.clone(),
                })
                .collect(),
        }
    }

    /// `org/repo`
    #[must_use]
    pub fn full_repo(&self) -> String {
        format!("{}/{}", self.org, self.repo)
    }

    /// One of several names separated by commas, exactly as written (TIDE-063).
    #[must_use]
    pub fn has_one_of(&self, alternatives: &str) -> bool {
        alternatives
            .split(',')
            .any(|wanted| self.labels.iter().any(|label| label == wanted))
    }

    /// The contexts that keep it from merging: present ones that count and are not good, and required ones that are
    /// missing, as expected (TIDE-043).
    #[must_use]
    pub fn unsuccessful(&self, policy: &dyn ContextPolicy) -> Vec<Context> {
        let mut bad: Vec<Context> = self
            .contexts
            .iter()
            .filter(|context| {
                context.name != TIDE_CONTEXT
                    && context.state != StatusState::Success
                    && !policy.is_optional(&context.name)
            })
            .cloned()
            .collect();
        let missing = policy.missing_required(&self.context_names());
        bad.extend(missing.into_iter().map(|name| Context {
            name,
            state: StatusState::Expected,
            description: String::new(),
        }));
        bad
    }

    #[must_use]
    pub fn context_names(&self) -> BTreeSet<&str> {
        self.contexts
            .iter()
            .map(|context| context.name.as_str())
            .collect()
    }
}

/// Check runs as contexts: the best result of each name (TIDE-027).
#[must_use]
pub fn check_run_contexts(runs: &[CheckRun]) -> Vec<Context> {
    let mut best: BTreeMap<&str, StatusState> = BTreeMap::new();
    for run in runs.iter().filter(|run| !run.name.is_empty()) {
        let state = check_run_state(run);
        let entry = best.entry(&run.name).or_insert(state);
        if goodness(state) > goodness(*entry) {
            *entry = state;
        }
    }
    best.into_iter()
        .map(|(name, state)| Context {
            name: name.to_owned(),
            state,
            description: String::new(),
        })
        .collect()
}

fn check_run_state(run: &CheckRun) -> StatusState {
    match (run.status.as_str(), run.conclusion.as_str()) {
        ("COMPLETED", "SUCCESS" | "NEUTRAL" | "SKIPPED") => StatusState::Success,
        ("COMPLETED", _) => StatusState::Failure,
        _ => StatusState::Pending,
    }
}

fn goodness(state: StatusState) -> u8 {
    match state {
        StatusState::Expected => 0,
        StatusState::Error | StatusState::Failure => 1,
        StatusState::Pending => 2,
        StatusState::Success => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &str, status: &str, conclusion: &str) -> CheckRun {
        CheckRun {
            name: name.into(),
            status: status.into(),
            conclusion: conclusion.into(),
            app: String::new(),
        }
    }

    #[test]
    fn tide_027_of_check_runs_with_one_name_the_best_counts() {
        let runs = [
            run("a", "COMPLETED", "FAILURE"),
            run("a", "IN_PROGRESS", ""),
            run("b", "COMPLETED", "SKIPPED"),
            run("b", "COMPLETED", "CANCELLED"),
            run("", "COMPLETED", "FAILURE"),
        ];
        let states: Vec<_> = check_run_contexts(&runs)
            .into_iter()
            .map(|context| (context.name, context.state))
            .collect();
        assert_eq!(
            states,
            [
                ("a".to_owned(), StatusState::Pending),
                ("b".to_owned(), StatusState::Success)
            ]
        );
    }
}
