//! Tide's queries, judged against the mirror as GitHub's search would.

use trireme_config::tide::TideQuery;
use trireme_forge::search::ReviewDecision;

use crate::pull::Pull;

/// What GitHub's search answers, from the mirror (TIDE-016). As there, case does not matter in names of labels,
/// milestones, people.
#[must_use]
pub(crate) fn matches(query: &TideQuery, pull: &Pull) -> bool {
    let labelled = |name: &str| pull.labels.iter().any(|label| same(label, name));
    let in_milestone = |title: &String| same(title, &query.milestone);
    query.covers(&pull.org, &pull.repo)
        && query.covers_branch(&pull.base_ref)
        && (query.author.is_empty() || same(login(&query.author), login(&pull.author)))
        && query.labels.iter().all(|any| any.split(',').any(labelled))
        && !query.missing_labels.iter().any(|label| labelled(label))
        && (query.milestone.is_empty() || pull.milestone.as_ref().is_some_and(in_milestone))
        && (!query.review_approved_required || pull.review == Some(ReviewDecision::Approved))
}

fn same(a: &str, b: &str) -> bool {
    a.to_lowercase() == b.to_lowercase()
}

/// Searches name apps as `app/x` or `x[bot]`, pull requests may carry either or the bare name.
fn login(name: &str) -> &str {
    let name = name.strip_prefix('@').unwrap_or(name);
    let name = name.strip_prefix("app/").unwrap_or(name);
    name.strip_suffix("[bot]").unwrap_or(name)
}
