//! From what a forge tells to the mirror of pull requests: what is new in it, if anything.

use std::collections::BTreeMap;

use trireme_forge::{
    PullRequest as ForgePull, RepoId, StatusState,
    search::{Mergeable, ReviewDecision, SearchedPullRequest},
};
use trireme_proto::state::{
    self, Context as MirroredContext, ContextState, HeadContext, PullRequest,
};

use crate::pull::{Context, check_run_contexts};

/// The record as the search tells it; `None` if the mirror says the same or something newer.
#[must_use]
pub(crate) fn from_search(
    found: &SearchedPullRequest,
    former: Option<&PullRequest>,
) -> Option<PullRequest> {
    let same_person = |name: &str| bare_login(name) == bare_login(&found.author.login);
    let next = PullRequest {
        org: found.repo.org.clone(),
        repo: found.repo.repo.clone(),
        number: found.number,
        title: found.title.clone(),
        // Webhooks name apps `x[bot]`, searches `x`.
        author: former
            .map(|former| former.author.clone())
            .filter(|name| same_person(name))
            .unwrap_or_else(|| found.author.login.clone()),
        open: true,
        draft: found.draft,
        merged: false,
        mergeable: match found.mergeable {
            Mergeable::Mergeable => state::Mergeable::Yes,
            Mergeable::Conflicting => state::Mergeable::Conflicting,
            Mergeable::Unknown => state::Mergeable::Unknown,
        }
        .into(),
        base_ref: found.base_branch.clone(),
        head_ref: found.head_branch.clone(),
        head_sha: found.head_sha.clone(),
        labels: in_former_order(&found.labels, former),
        milestone: found.milestone.clone().unwrap_or_default(),
        review_decision: review_word(found.review_decision).to_owned(),
        body: found.body.clone(),
        updated_ms: found.updated_at.as_millisecond(),
        html_url: former
            .map(|former| former.html_url.clone())
            .unwrap_or_default(),
        ..PullRequest::default()
    };
    unless_known(next, former)
}

/// The same from the pull request itself, which does not tell of reviews.
#[must_use]
pub(crate) fn from_forge(found: &ForgePull, former: Option<&PullRequest>) -> Option<PullRequest> {
    let labels: Vec<String> = found
        .labels
        .iter()
        .map(|label| label.name.clone())
        .collect();
    let same_head = former.filter(|former| former.head_sha == found.head.sha);
    let next = PullRequest {
        org: found.repo.org.clone(),
        repo: found.repo.repo.clone(),
        number: found.number,
        title: found.title.clone(),
        author: found.author.login.clone(),
        open: found.is_open(),
        draft: found.draft,
        merged: found.merged,
        mergeable: match found.mergeable {
            Some(true) => state::Mergeable::Yes.into(),
            Some(false) => state::Mergeable::Conflicting.into(),
            None => same_head.map_or(0, |former| former.mergeable),
        },
        base_ref: found.base.branch.clone(),
        head_ref: found.head.branch.clone(),
        head_sha: found.head.sha.clone(),
        labels: in_former_order(&labels, former),
        milestone: found
            .milestone
            .as_ref()
            .map(|milestone| milestone.title.clone())
            .unwrap_or_default(),
        review_decision: former
            .map(|former| former.review_decision.clone())
            .unwrap_or_default(),
        body: found.body.clone(),
        updated_ms: found.updated_at.as_millisecond(),
        html_url: found.html_url.clone(),
        merge_commit_sha: found
            .merge_commit_sha
            .clone()
            .filter(|_| found.merged)
            .unwrap_or_default(),
        ..PullRequest::default()
    };
    unless_known(next, former)
}

/// What is no forge's to tell stays; `None` if nothing is new.
fn unless_known(mut next: PullRequest, former: Option<&PullRequest>) -> Option<PullRequest> {
    let Some(former) = former else {
        return Some(next);
    };
    if former.updated_ms > next.updated_ms {
        return None;
    }
    next.ready_since_ms = former.ready_since_ms;
    next.closed_ms = former.closed_ms;
    next.version = former.version;
    if next.head_sha == former.head_sha {
        next.contexts.clone_from(&former.contexts);
    }
    if next == *former {
        return None;
    }
    // Contexts travel by themselves: the state would take these as a newer report of each.
    next.contexts = BTreeMap::new();
    Some(next)
}

/// Sets in whatever order they come, so that order alone is no change.
fn in_former_order(labels: &[String], former: Option<&PullRequest>) -> Vec<String> {
    let sorted = |labels: &[String]| {
        let mut labels = labels.to_vec();
        labels.sort();
        labels
    };
    match former {
        Some(former) if sorted(&former.labels) == sorted(labels) => former.labels.clone(),
        _ => labels.to_vec(),
    }
}

fn bare_login(name: &str) -> &str {
    let name = name.strip_prefix("app/").unwrap_or(name);
    name.strip_suffix("[bot]").unwrap_or(name)
}

fn review_word(decision: Option<ReviewDecision>) -> &'static str {
    match decision {
        None => "",
        Some(ReviewDecision::Approved) => "APPROVED",
        Some(ReviewDecision::ChangesRequested) => "CHANGES_REQUESTED",
        Some(ReviewDecision::ReviewRequired) => "REVIEW_REQUIRED",
    }
}

/// Statuses and check runs of one head as a search or two calls bring them. Of a status and a check run with one name
/// the worse counts, because both must be good.
#[must_use]
pub(crate) fn contexts(
    statuses: &[trireme_forge::CommitStatus],
    runs: &[trireme_forge::CheckRun],
) -> Vec<Context> {
    let mut by_name: BTreeMap<String, Context> = BTreeMap::new();
    let statuses = statuses.iter().map(|status| Context {
        name: status.context.clone(),
        state: status.state,
        description: status.description.clone(),
    });
    for context in statuses.chain(check_run_contexts(runs)) {
        let entry = by_name
            .entry(context.name.clone())
            .or_insert_with(|| context.clone());
        if entry.state == StatusState::Success && context.state != StatusState::Success {
            *entry = context;
        }
    }
    by_name.into_values().collect()
}

/// Those that the mirror does not show so, as seen at `seen_ms`; what a webhook told later stays.
#[must_use]
pub(crate) fn new_contexts(
    repo: &RepoId,
    head_sha: &str,
    seen: &[Context],
    former: Option<&PullRequest>,
    seen_ms: i64,
) -> Vec<HeadContext> {
    let known = former.filter(|former| former.head_sha == head_sha);
    seen.iter()
        .filter_map(|context| {
            let state = mirrored_state(context.state);
            let known = known.and_then(|known| known.contexts.get(&context.name));
            let is_new = known.is_none_or(|known| {
                known.updated_ms < seen_ms
                    && (known.state() != state || known.description != context.description)
            });
            is_new.then(|| HeadContext {
                org: repo.org.clone(),
                repo: repo.repo.clone(),
                sha: head_sha.to_owned(),
                context: Some(MirroredContext {
                    context: context.name.clone(),
                    state: state.into(),
                    description: context.description.clone(),
                    target_url: known
                        .map(|known| known.target_url.clone())
                        .unwrap_or_default(),
                    updated_ms: seen_ms,
                }),
            })
        })
        .collect()
}

/// An expected one is as good as pending: the mirror knows no other word.
#[must_use]
pub(crate) fn mirrored_state(state: StatusState) -> ContextState {
    match state {
        StatusState::Success => ContextState::Success,
        StatusState::Failure => ContextState::Failure,
        StatusState::Error => ContextState::Error,
        StatusState::Pending | StatusState::Expected => ContextState::Pending,
    }
}

#[cfg(test)]
mod tests {
    use trireme_forge::{User, search::MergeState};

    use super::*;

    fn found() -> SearchedPullRequest {
        SearchedPullRequest {
            repo: RepoId::new("o", "r"),
            number: 1,
            title: "t".into(),
            body: String::new(),
            author: User::new("dependabot"),
            base_branch: "main".into(),
            base_prefix: "refs/heads/".into(),
            head_branch: "fix".into(),
            head_sha: "head".into(),
            draft: false,
            mergeable: Mergeable::Mergeable,
            merge_state: MergeState::Clean,
            can_be_rebased: true,
            review_decision: None,
            labels: vec!["b".into(), "a".into()],
            milestone: None,
            updated_at: jiff::Timestamp::from_millisecond(5_000).unwrap(),
            last_commits: Vec::new(),
        }
    }

    #[test]
    fn tide_016_what_the_mirror_knows_already_is_not_written_again() {
        let first = from_search(&found(), None).unwrap();
        let known = PullRequest {
            author: "dependabot[bot]".into(),
            labels: vec!["a".into(), "b".into()],
            html_url: "https://x/1".into(),
            version: 7,
            ..first.clone()
        };
        assert_eq!(from_search(&found(), Some(&known)), None);
        let newer = PullRequest {
            updated_ms: 6_000,
            title: "new".into(),
            ..known.clone()
        };
        assert_eq!(from_search(&found(), Some(&newer)), None);
        let older = PullRequest {
            updated_ms: 4_000,
            title: "old".into(),
            ..known
        };
        assert_eq!(from_search(&found(), Some(&older)).unwrap().title, "t");
    }

    #[test]
    fn a_webhooks_newer_context_is_not_overwritten_by_a_search() {
        let seen = [Context {
            name: "unit".into(),
            state: StatusState::Pending,
            description: String::new(),
        }];
        let repo = RepoId::new("o", "r");
        let with = |state: ContextState, updated_ms| {
            let context = MirroredContext {
                context: "unit".into(),
                state: state.into(),
                updated_ms,
                ..Default::default()
            };
            PullRequest {
                head_sha: "head".into(),
                contexts: [("unit".to_owned(), context)].into(),
                ..Default::default()
            }
        };
        let new = |former: &PullRequest| new_contexts(&repo, "head", &seen, Some(former), 10).len();
        assert_eq!(new(&with(ContextState::Success, 11)), 0);
        assert_eq!(new(&with(ContextState::Success, 9)), 1);
        assert_eq!(new(&with(ContextState::Pending, 9)), 0);
        assert_eq!(
            new(&PullRequest {
                head_sha: "other".into(),
                ..Default::default()
            }),
            1
        );
    }
}
