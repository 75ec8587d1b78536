//! The `tide` status of a pull request: why it merges, or what is in its way (section 11 of the checklist).

use std::collections::BTreeSet;

use trireme_config::tide::TideQuery;
use trireme_forge::{
    StatusState, norm_login,
    search::{MergeState, ReviewDecision},
};

use crate::{merging::MergeBlocks, policy::ContextPolicy, pull::Pull};

/// What GitHub takes at most, in bytes.
pub const MAX_DESCRIPTION: usize = 140;

/// Names in one text, in characters; the first one always fits.
const MAX_NAMES: usize = 50;
/// Weight of a query for another branch.
const WRONG_BRANCH: u32 = 2000;
const WRONG_AUTHOR: u32 = 1000;
const WRONG_MILESTONE: u32 = 100;
const BLOCKED_BY_GITHUB: u32 = 100;
const NOT_APPROVED: u32 = 50;

/// How far a pull request is from a query: 0 = it meets it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Difference {
    pub weight: u32,
    /// The gravest part, with a leading space.
    pub text: String,
}

impl Difference {
    fn add(&mut self, weight: u32, text: impl FnOnce() -> String) {
        self.weight += weight;
        if weight > 0 && self.text.is_empty() {
            self.text = text();
        }
    }
}

/// TIDE-114, TIDE-115, TIDE-135
#[must_use]
pub fn requirement_difference(
    pull: &Pull,
    query: &TideQuery,
    policy: &dyn ContextPolicy,
    blocks: MergeBlocks,
) -> Difference {
    let mut difference = Difference::default();
    let branch = &pull.base_ref;
    if !query.covers_branch(branch) {
        difference.add(WRONG_BRANCH, || {
            format!(" Merging to branch {branch} is forbidden.")
        });
    }
    let author = norm_login(&query.author);
    if !author.is_empty() && norm_login(&pull.author) != author {
        difference.add(WRONG_AUTHOR, || format!(" Must be by author {author}."));
    }
    let milestone = &query.milestone;
    if !milestone.is_empty() && pull.milestone.as_ref() != Some(milestone) {
        difference.add(WRONG_MILESTONE, || {
            format!(" Must be in milestone {milestone}.")
        });
    }
    let missing = query.labels.iter().filter(|any| !pull.has_one_of(any));
    let missing: Vec<String> = missing.map(|any| any.replace(',', " or ")).collect();
    difference.add(count(&missing), || match fitting(missing) {
        (names, true) => format!(" Needs {names} label."),
        (names, false) => format!(" Needs {names} labels."),
    });
    let present = query.missing_labels.iter();
    let present: Vec<String> = present
        .filter(|label| pull.labels.contains(label))
        .cloned()
        .collect();
    difference.add(count(&present), || match fitting(present) {
        (names, true) => format!(" Should not have {names} label."),
        (names, false) => format!(" Should not have {names} labels."),
    });
    // A missing required context counts twice, as upstream.
    let mut contexts: Vec<String> = pull
        .unsuccessful(policy)
        .into_iter()
        .map(|context| context.name)
        .collect();
    contexts.extend(policy.missing_required(&pull.context_names()));
    difference.add(count(&contexts), || {
        contexts.sort();
        contexts.dedup();
        match fitting(contexts) {
            (names, true) => format!(" Job {names} has not succeeded."),
            (names, false) => format!(" Jobs {names} have not succeeded."),
        }
    });
    if query.review_approved_required && pull.review != Some(ReviewDecision::Approved) {
        difference.add(NOT_APPROVED, || {
            " PullRequest is missing sufficient approving GitHub review(s)".to_owned()
        });
    }
    if blocks == MergeBlocks::Block && pull.merge_state == MergeState::Blocked {
        difference.add(BLOCKED_BY_GITHUB, || {
            " Blocked by GitHub (branch rulesets or protection)".to_owned()
        });
    }
    difference
}

fn count(items: &[String]) -> u32 {
    u32::try_from(items.len()).unwrap_or(u32::MAX)
}

/// As many names as fit, sorted, and whether that is just one (TIDE-116).
fn fitting(mut names: Vec<String>) -> (String, bool) {
    names.sort();
    let mut length = names.first().map_or(0, String::len);
    let mut shown = 1;
    while let Some(name) = names.get(shown) {
        if length + name.len() > MAX_NAMES {
            break;
        }
        length += name.len() + ", ".len();
        shown += 1;
    }
    names.truncate(shown);
    (names.join(", "), names.len() == 1)
}

/// All that the `tide` status of one pull request depends on.
pub struct Standing<'a> {
    pub pull: &'a Pull,
    /// From [`crate::merging::forbidden`].
    pub forbidden: Option<String>,
    pub in_pool: bool,
    /// Numbers of the issues that hold up its branch.
    pub blockers: &'a [u64],
    /// The queries that cover its repository.
    pub queries: &'a [&'a TideQuery],
    /// Contexts of its required presubmits included.
    pub policy: &'a dyn ContextPolicy,
    pub blocks: MergeBlocks,
    pub display_all_queries: bool,
    /// Contexts with a good result for its head on the newest base.
    pub up_to_date: BTreeSet<&'a str>,
}

/// State and description as owed (TIDE-112, TIDE-113); the description may be longer than GitHub takes, see [`cut`].
#[must_use]
pub fn expected_status(standing: &Standing<'_>) -> (StatusState, String) {
    if let Some(reason) = &standing.forbidden {
        return (StatusState::Error, format!("Not mergeable. {reason}"));
    }
    if !standing.in_pool {
        if !standing.blockers.is_empty() {
            let numbers: Vec<String> = standing.blockers.iter().map(u64::to_string).collect();
            let plural = if numbers.len() > 1 { "s" } else { "" };
            let numbers = numbers.join(", ");
            return (
                StatusState::Error,
                format!("Not mergeable. Merging is blocked by issue{plural} {numbers}."),
            );
        }
        // Meets a query and is not in the pool yet: told like one in the pool, or the status would flap.
        if let Some(text) = nearest_query(standing) {
            return (StatusState::Pending, format!("Not mergeable.{text}"));
        }
    }
    let retested = standing.policy.missing_required(&standing.up_to_date);
    if !retested.is_empty() {
        return (StatusState::Pending, retesting(&retested));
    }
    let blocked = standing.pull.merge_state == MergeState::Blocked;
    if blocked && standing.blocks == MergeBlocks::Permit {
        return (
            StatusState::Success,
            "In merge pool (despite BLOCKED).".to_owned(),
        );
    }
    (StatusState::Success, "In merge pool.".to_owned())
}

/// What is missing for the query that is nearest, or for all; `None` if one is met (TIDE-117).
fn nearest_query(standing: &Standing<'_>) -> Option<String> {
    let mut least: Option<Difference> = None;
    let mut all = String::new();
    for query in standing.queries {
        let difference =
            requirement_difference(standing.pull, query, standing.policy, standing.blocks);
        if difference.weight == 0 {
            return None;
        }
        if standing.display_all_queries {
            if difference.weight >= WRONG_BRANCH {
                continue;
            }
            if !all.is_empty() {
                if all.ends_with('.') {
                    all.pop();
                }
                all.push_str(" OR");
            }
            all.push_str(&difference.text);
        } else if least
            .as_ref()
            .is_none_or(|least| difference.weight < least.weight)
        {
            least = Some(difference);
        }
    }
    if !standing.display_all_queries {
        return Some(least.unwrap_or_default().text);
    }
    if all.is_empty() {
        let branch = &standing.pull.base_ref;
        return Some(format!(" No Tide query for branch {branch} found."));
    }
    Some(all)
}

fn retesting(contexts: &[String]) -> String {
    let all = format!("Not mergeable. Retesting: {}", contexts.join(" "));
    if all.len() <= MAX_DESCRIPTION {
        return all;
    }
    let plural = if contexts.len() > 1 { "s" } else { "" };
    format!("Not mergeable. Retesting {} job{plural}.", contexts.len())
}

/// Cut to what GitHub takes.
#[must_use]
pub fn cut(description: &str) -> String {
    if description.len() <= MAX_DESCRIPTION {
        return description.to_owned();
    }
    let kept = &description.as_bytes()[..MAX_DESCRIPTION - "...".len()];
    format!("{}...", String::from_utf8_lossy(kept))
}

/// The page a status links to: the configured one, else the dashboard's for this pull request, else none (TIDE-118).
#[must_use]
pub fn target_url(pull: &Pull, configured: &str, dashboard: &str) -> String {
    if !configured.is_empty() || dashboard.is_empty() {
        return configured.to_owned();
    }
    let app = if pull.author_is_bot && !pull.author.starts_with("app/") {
        "app/"
    } else {
        ""
    };
    let query = format!(
        "is:pr repo:{} author:{app}{} head:{}",
        pull.full_repo(),
        pull.author,
        pull.head_ref
    );
    with_query_parameter(dashboard, "query", &query)
}

/// As Go's `url.Values` does it: parameters sorted by key, the old value replaced.
fn with_query_parameter(url: &str, key: &str, value: &str) -> String {
    let (rest, fragment) = url
        .split_once('#')
        .map_or((url, None), |(rest, fragment)| (rest, Some(fragment)));
    let (location, old) = rest.split_once('?').unwrap_or((rest, ""));
    let mut parameters: Vec<(String, String)> = old
        .split('&')
        .filter(|pair| !pair.is_empty() && !pair.contains(';'))
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .filter_map(|(name, value)| Some((query_unescape(name)?, query_unescape(value)?)))
        .filter(|(name, _)| name != key)
        .collect();
    parameters.push((key.to_owned(), value.to_owned()));
    parameters.sort_by(|a, b| a.0.cmp(&b.0));
    let pairs: Vec<String> = parameters
        .iter()
        .map(|(name, value)| format!("{}={}", query_escape(name), query_escape(value)))
        .collect();
    let fragment = fragment.map_or_else(String::new, |text| format!("#{text}"));
    format!("{location}?{}{fragment}", pairs.join("&"))
}

fn query_escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else if byte == b' ' {
            out.push('+');
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn query_unescape(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                let digits = std::str::from_utf8(&digits).ok()?;
                u8::from_str_radix(digits, 16).ok()?
            }
            other => other,
        });
    }
    Some(String::from_utf8_lossy(&out).into_owned())
}
