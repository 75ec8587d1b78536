//! GitHub's issue search: reading a query's terms and matching issues and pull requests against them.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::forge::{Forge, Issue, OpenState, Permission, Pull, Repo, StatusState, combined_state};

/// GitHub shows no more results than this of any search.
const MAX_RESULTS: usize = 1000;

/// One `name:value` of a query, or a bare word.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    negated: bool,
    /// Empty for a bare word.
    name: String,
    /// Several when separated by commas: any of them will do.
    values: Vec<String>,
}

/// A parsed query.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Search {
    terms: Vec<Term>,
    sort: Option<String>,
}

impl Search {
    /// Reads a query. Nothing is an error: what is no qualifier is a word to look for, as with GitHub.
    pub(crate) fn parse(query: &str) -> Self {
        let mut search = Self::default();
        for token in tokens(query) {
            let (negated, token) = match token.strip_prefix('-') {
                Some(rest) if !rest.is_empty() => (true, rest),
                _ => (false, token.as_str()),
            };
            let (name, value) = match token.split_once(':') {
                Some((name, value)) if !name.is_empty() && !name.contains('"') => {
                    (name.to_lowercase(), value)
                }
                _ => (String::new(), token),
            };
            if name == "sort" {
                search.sort = Some(value.to_lowercase());
                continue;
            }
            let values = values(value);
            search.terms.push(Term {
                negated,
                name,
                values,
            });
        }
        search
    }

    /// What matches among what the caller may see, in the order asked for (the newest first if none).
    pub(crate) fn run<'f>(
        &self,
        forge: &'f Forge,
        caller: Option<&str>,
    ) -> Vec<(&'f Repo, &'f Issue)> {
        let mut found = Vec::new();
        for repo in forge.repos() {
            let seen = forge.require(&repo.name, caller, Permission::Read).is_ok();
            if seen && self.matches_repo(repo) {
                let issues = repo.issues.values();
                found.extend(
                    issues
                        .filter(|issue| self.matches_issue(forge, repo, issue))
                        .map(|issue| (repo, issue)),
                );
            }
        }
        match self.sort.as_deref() {
            Some("updated-asc") => found.sort_by_key(|(_, i)| (i.updated_at, i.id)),
            Some("updated" | "updated-desc") => {
                found.sort_by_key(|(_, i)| std::cmp::Reverse((i.updated_at, i.id)));
            }
            Some("created-asc") => found.sort_by_key(|(_, i)| (i.created_at, i.id)),
            _ => found.sort_by_key(|(_, i)| std::cmp::Reverse((i.created_at, i.id))),
        }
        found.truncate(MAX_RESULTS);
        found
    }

    fn positive(&self, names: &'static [&'static str]) -> impl Iterator<Item = &Term> {
        self.terms
            .iter()
            .filter(move |t| !t.negated && names.contains(&t.name.as_str()))
    }

    /// Repositories and owners widen a search; what is excluded narrows it.
    fn matches_repo(&self, repo: &Repo) -> bool {
        let names = |term: &Term| {
            let mut values = term.values.iter();
            values.any(|value| match term.name.as_str() {
                "repo" => repo.name.to_string().eq_ignore_ascii_case(value),
                _ => repo.name.owner.eq_ignore_ascii_case(value),
            })
        };
        let scopes: &[&str] = &["repo", "org", "user"];
        let mut wanted = self.positive(&["repo", "org", "user"]).peekable();
        let in_scope = wanted.peek().is_none() || wanted.any(names);
        let excluded = self
            .terms
            .iter()
            .any(|t| t.negated && scopes.contains(&t.name.as_str()) && names(t));
        in_scope && !excluded
    }

    fn matches_issue(&self, forge: &Forge, repo: &Repo, issue: &Issue) -> bool {
        // Several of these mean any of them; several of any other mean all.
        for names in [&["author"][..], &["base"][..], &["head"][..]] {
            let mut wanted = self
                .terms
                .iter()
                .filter(|t| !t.negated && names.contains(&t.name.as_str()))
                .peekable();
            if wanted.peek().is_some() && !wanted.any(|t| holds(t, forge, repo, issue)) {
                return false;
            }
        }
        self.terms.iter().all(|term| match term.name.as_str() {
            "repo" | "org" | "user" => true,
            "author" | "base" | "head" if !term.negated => true,
            _ => holds(term, forge, repo, issue) != term.negated,
        })
    }
}

/// Does the term hold, its negation aside?
fn holds(term: &Term, forge: &Forge, repo: &Repo, issue: &Issue) -> bool {
    let mut values = term.values.iter();
    values.any(|value| holds_value(&term.name, value, forge, repo, issue))
}

fn holds_value(name: &str, value: &str, forge: &Forge, repo: &Repo, issue: &Issue) -> bool {
    let pull = issue.pull.as_ref();
    let same = |text: &str| text.eq_ignore_ascii_case(value);
    let lower = value.to_lowercase();
    match name {
        "is" | "type" | "state" => is(&lower, repo, issue, pull),
        "archived" => repo.archived == (lower == "true"),
        "draft" => pull.is_some_and(|p| p.draft) == (lower == "true"),
        "author" => same(&issue.author),
        "assignee" => issue.assignees.iter().any(|a| same(a)),
        "label" => issue.labels.iter().any(|l| same(l)),
        "base" => pull.is_some_and(|p| p.base_branch == value),
        "head" => pull.is_some_and(|p| p.head_branch == value),
        "milestone" => issue
            .milestone
            .and_then(|n| repo.milestones.get(&n))
            .is_some_and(|m| same(&m.title)),
        "no" => match lower.as_str() {
            "label" => issue.labels.is_empty(),
            "assignee" => issue.assignees.is_empty(),
            "milestone" => issue.milestone.is_none(),
            _ => true,
        },
        "review" => {
            let decision = forge.review_decision(&repo.name, issue.number);
            match lower.as_str() {
                "approved" => decision == Some("APPROVED"),
                "changes_requested" => decision == Some("CHANGES_REQUESTED"),
                "none" => pull.is_some_and(|p| p.reviews.is_empty()),
                "required" => pull.is_some() && decision.is_none(),
                _ => false,
            }
        }
        "status" => pull.is_some_and(|p| {
            let statuses = forge.current_statuses(&repo.name, &p.head_sha);
            let state = combined_state(statuses.iter().copied());
            match lower.as_str() {
                "success" => state == StatusState::Success,
                "failure" => state == StatusState::Failure,
                "pending" => state == StatusState::Pending,
                _ => false,
            }
        }),
        "updated" => in_range(value, Some(issue.updated_at)),
        "created" => in_range(value, Some(issue.created_at)),
        "closed" => in_range(value, issue.closed_at),
        "merged" => in_range(value, pull.and_then(|p| p.merged.as_ref()).map(|m| m.at)),
        "in" => true,
        "" => mentions(issue, &lower) || has_commit(issue, &lower),
        // An unknown qualifier is text.
        other => mentions(issue, &format!("{other}:{lower}")),
    }
}

fn is(what: &str, repo: &Repo, issue: &Issue, pull: Option<&Pull>) -> bool {
    match what {
        "pr" | "pull-request" => pull.is_some(),
        "issue" => pull.is_none(),
        "open" => issue.state == OpenState::Open,
        "closed" => issue.state == OpenState::Closed,
        "merged" => pull.is_some_and(|p| p.merged.is_some()),
        "unmerged" => pull.is_some_and(|p| p.merged.is_none()),
        "draft" => pull.is_some_and(|p| p.draft),
        "public" => !repo.private,
        "private" => repo.private,
        "locked" => issue.locked,
        "unlocked" => !issue.locked,
        _ => false,
    }
}

fn mentions(issue: &Issue, lower: &str) -> bool {
    issue.title.to_lowercase().contains(lower)
        || issue
            .body
            .as_ref()
            .is_some_and(|body| body.to_lowercase().contains(lower))
}

/// Seven digits of a commit's id and more find the pull requests that have it.
fn has_commit(issue: &Issue, lower: &str) -> bool {
    const LEAST: usize = 7;
    lower.len() >= LEAST
        && lower.bytes().all(|byte| byte.is_ascii_hexdigit())
        && issue.pull.as_ref().is_some_and(|pull| {
            let merged = pull.merged.as_ref().map(|merged| &merged.commit);
            let commits = pull.head.commits.iter().map(|commit| &commit.sha);
            let mut all = commits.chain([&pull.head_sha]).chain(merged);
            all.any(|sha| sha.starts_with(lower))
        })
}

/// Splits at spaces outside of quotes.
fn tokens(query: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut token = String::new();
    let mut quoted = false;
    for character in query.chars() {
        if character == '"' {
            quoted = !quoted;
        }
        if character.is_whitespace() && !quoted {
            if !token.is_empty() {
                tokens.push(std::mem::take(&mut token));
            }
        } else {
            token.push(character);
        }
    }
    if !token.is_empty() {
        tokens.push(token);
    }
    tokens
}

/// Splits at commas outside of quotes and takes the quotes off.
fn values(text: &str) -> Vec<String> {
    let mut values = vec![String::new()];
    let mut quoted = false;
    for character in text.chars() {
        match character {
            '"' => quoted = !quoted,
            ',' if !quoted => values.push(String::new()),
            _ => {
                if let Some(last) = values.last_mut() {
                    last.push(character);
                }
            }
        }
    }
    values
}

/// `a..b`, `*..b`, `a..*`, `>=a`, `>a`, `<=a`, `<a` or one time; a date stands for its whole day.
fn in_range(range: &str, at: Option<Timestamp>) -> bool {
    let Some(at) = at else {
        return false;
    };
    if let Some((from, to)) = range.split_once("..") {
        let after = from == "*" || span(from).is_some_and(|(start, _)| at >= start);
        let before = to == "*" || span(to).is_some_and(|(_, end)| at <= end);
        return after && before;
    }
    let bound = |text: &str| span(text);
    if let Some(text) = range.strip_prefix(">=") {
        bound(text).is_some_and(|(start, _)| at >= start)
    } else if let Some(text) = range.strip_prefix("<=") {
        bound(text).is_some_and(|(_, end)| at <= end)
    } else if let Some(text) = range.strip_prefix('>') {
        bound(text).is_some_and(|(_, end)| at > end)
    } else if let Some(text) = range.strip_prefix('<') {
        bound(text).is_some_and(|(start, _)| at < start)
    } else {
        bound(range).is_some_and(|(start, end)| start <= at && at <= end)
    }
}

/// First and last second of a time or date.
fn span(text: &str) -> Option<(Timestamp, Timestamp)> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some((at, at));
    }
    let date: Date = text.parse().ok()?;
    let midnight = date.at(0, 0, 0, 0);
    let start = TimeZone::UTC.to_timestamp(midnight).ok()?;
    let day = SignedDuration::from_secs(24 * 60 * 60 - 1);
    Some((start, start.checked_add(day).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(query: &str) -> String {
        let search = Search::parse(query);
        let mut lines: Vec<String> = Vec::new();
        for term in &search.terms {
            let sign = if term.negated { "not " } else { "" };
            lines.push(format!("{sign}{} = {}", term.name, term.values.join(" | ")));
        }
        lines.extend(search.sort.iter().map(|sort| format!("sort {sort}")));
        lines.join("\n")
    }

    #[test]
    fn a_tide_query_is_read_term_by_term() {
        let query = r#"is:pr state:open archived:false repo:"o/r" -repo:"o/x" label:"lgtm" -label:"do-not-merge/hold" label:"a","b c" base:"main" milestone:"v1 beta" sort:updated-asc word"#;
        insta::assert_snapshot!(shown(query), @r"
        is = pr
        state = open
        archived = false
        repo = o/r
        not repo = o/x
        label = lgtm
        not label = do-not-merge/hold
        label = a | b c
        base = main
        milestone = v1 beta
         = word
        sort updated-asc
        ");
    }

    #[test]
    fn ranges_include_their_ends_and_a_date_is_a_whole_day() {
        let at: Timestamp = "2024-05-01T12:00:00Z".parse().unwrap();
        for (range, expected) in [
            ("2024-05-01T12:00:00Z..2024-05-02T00:00:00Z", true),
            ("2024-05-01T11:00:00+00:00..2024-05-01T12:00:00Z", true),
            ("*..2024-05-01T11:59:59Z", false),
            ("2024-05-01..*", true),
            (">=2024-05-01T12:00:00Z", true),
            (">2024-05-01T12:00:00Z", false),
            (">2024-04-30", true),
            ("<=2024-05-01", true),
            ("<2024-05-01", false),
            ("2024-05-01", true),
            ("nonsense", false),
        ] {
            assert_eq!(in_range(range, Some(at)), expected, "{range}");
        }
        assert!(!in_range("*..*", None));
    }
}
