//! `/link-issue` and `/unlink-issue`: the line that makes GitHub close issues with the pull request (PLG-ISSUEMGMT-002,
//! PLG-ISSUEMGMT-003).

use std::collections::BTreeSet;

use trireme_forge::RepoId;
use trireme_forge::webhook::GenericComment;

use super::say;
use crate::decision::{Decision, Outcome, Target};
use crate::plugin::{PlanError, Planning};
use crate::respond::answer;
use crate::text::commands;

commands! {
    FIXES = r"(?i)^fixes\s+(.*)$";
}

const ONLY_PULL_REQUESTS: &str =
    "`/link-issue` and `/unlink-issue` can only be used on pull requests.";
const NO_MEMBER: &str = "You must be an org member to use this command.";
/// References of one text beyond these are left alone.
const MAX_REFERENCES: usize = 100;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Reference {
    repo: RepoId,
    number: i64,
}

/// What a reference leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Issue,
    PullRequest,
    NoIssue,
    NoRepository,
}

pub(super) async fn plan(
    cx: &Planning<'_>,
    text: &GenericComment,
    link: &[String],
    unlink: &[String],
) -> Result<Decision, PlanError> {
    if !text.is_pr {
        return Ok(say(text, ONLY_PULL_REQUESTS));
    }
    let member = cx.forge.is_org_member(&text.repo.org, &text.user.login);
    if !member.await? {
        return Ok(say(text, NO_MEMBER));
    }
    let mut linked = Vec::new();
    for word in link.iter().take(MAX_REFERENCES) {
        let found = match reference(word, &text.repo) {
            None => None,
            Some(at) => Some((look_up(cx, text, &at).await?, at)),
        };
        linked.push((word.as_str(), found));
    }
    // The text's copy may be older than what somebody else has linked since.
    let (adds, _) = sorted_out(&linked, &text.repo);
    let body = match adds.is_empty() && unlink.is_empty() {
        true => text.issue_body.clone(),
        false => cx.forge.pull_request(&text.repo, text.number).await?.body,
    };
    Ok(decide(text, &body, &linked, unlink))
}

async fn look_up(
    cx: &Planning<'_>,
    text: &GenericComment,
    at: &Reference,
) -> Result<Found, PlanError> {
    if at.repo != text.repo {
        match cx.forge.repository(&at.repo).await {
            Ok(_) => {}
            Err(error) if error.is_outage() => return Err(error.into()),
            Err(_) => return Ok(Found::NoRepository),
        }
    }
    let Ok(number) = u64::try_from(at.number) else {
        return Ok(Found::NoIssue);
    };
    match cx.forge.issue(&at.repo, number).await {
        Ok(issue) if issue.is_pull_request => Ok(Found::PullRequest),
        Ok(_) => Ok(Found::Issue),
        Err(error) if error.is_outage() => Err(error.into()),
        Err(_) => Ok(Found::NoIssue),
    }
}

/// `123`, or `org/repo#123`.
fn reference(word: &str, here: &RepoId) -> Option<Reference> {
    let (repo, number) = match word.parse() {
        Ok(number) => (here.clone(), number),
        Err(_) => {
            let (repo, number) = word.split_once('#')?;
            let (org, repo) = repo.split_once('/')?;
            if repo.contains('/') {
                return None;
            }
            (RepoId::new(org, repo), number.parse().ok()?)
        }
    };
    Some(Reference { repo, number })
}

fn written(at: &Reference, here: &RepoId) -> String {
    match at.repo == *here {
        true => format!("#{}", at.number),
        false => format!("{}#{}", at.repo, at.number),
    }
}

type Linked<'a> = (&'a str, Option<(Found, Reference)>);

/// What is to be linked, and what is wrong with the rest.
fn sorted_out(linked: &[Linked<'_>], here: &RepoId) -> (Vec<String>, Vec<String>) {
    let (mut adds, mut wrong) = (Vec::new(), Vec::new());
    for (word, found) in linked {
        let Some((found, at)) = found else {
            wrong.push(format!("Invalid format for issue **{word}**. Supported formats are **issue-number** (e.g., `123`) and **organization/repository#issue-number** (e.g., `kubernetes/test-infra#456`)"));
            continue;
        };
        let Reference { repo, number } = at;
        match found {
            Found::Issue => adds.push(written(at, here)),
            Found::PullRequest => wrong.push(format!(
                "Skipped issue #{number} of **{repo}** as it is a ***pull request***."
            )),
            Found::NoIssue => wrong.push(format!(
                "Issue **#{number}** in repository **{repo}** does not exist."
            )),
            Found::NoRepository => wrong.push(format!("Repository **{repo}** does not exist.")),
        }
    }
    (adds, wrong)
}

fn decide(text: &GenericComment, body: &str, linked: &[Linked<'_>], unlink: &[String]) -> Decision {
    let on = Target::new(&text.repo, text.number);
    let (adds, wrong) = sorted_out(linked, &text.repo);
    let removes: Vec<String> = unlink
        .iter()
        .map(|word| match reference(word, &text.repo) {
            Some(at) => written(&at, &text.repo),
            None => word.clone(),
        })
        .collect();
    let mut decision = Decision::nothing();
    let mut told = String::new();
    let mut edited = None;
    if !adds.is_empty() || !removes.is_empty() {
        let changed = with_fixes(body, &adds, &removes);
        if changed == body {
            told.push_str("The PR body is already up-to-date. No changes were made.");
        } else {
            edited = Some(decision.push(on.rewrite_body(body, changed)));
            told.push_str("Updated the `Fixes` line in the pull request body.");
        }
    }
    if !wrong.is_empty() {
        if !told.is_empty() {
            told.push_str("\n\nHowever, ");
        }
        told.push_str("there are one or more errors with issue references provided. Please cross check and retry.\n");
        for why in wrong {
            told.push_str(&format!("* {why}\n"));
        }
    }
    match edited {
        Some(edited) => decision.push_if(edited, &[Outcome::Ok], answer(text, told)),
        None => decision.push(answer(text, told)),
    };
    decision
}

/// The text with the first line of its kind, or a new last one, naming these issues.
fn with_fixes(body: &str, adds: &[String], removes: &[String]) -> String {
    let mut lines: Vec<String> = body.split('\n').map(str::to_owned).collect();
    let at = lines.iter().position(|line| FIXES.is_match(line));
    let named = at.and_then(|at| FIXES.captures(&lines[at]));
    let mut issues: BTreeSet<String> = named
        .map(|found| found[1].split_whitespace().map(str::to_owned).collect())
        .unwrap_or_default();
    issues.retain(|issue| !removes.contains(issue));
    issues.extend(adds.iter().cloned());
    let issues: Vec<String> = issues.into_iter().collect();
    let line = format!("Fixes {}", issues.join(" "));
    match at {
        Some(at) if issues.is_empty() => {
            lines.remove(at);
        }
        None if issues.is_empty() => {}
        Some(at) => lines[at] = line,
        None => {
            if lines.last().is_some_and(|last| !last.is_empty()) {
                lines.push(String::new());
            }
            lines.push(line);
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::comment;

    fn owned(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    /// PLG-ISSUEMGMT-002
    #[test]
    fn plg_issuemgmt_002_the_line_of_fixes_names_what_is_linked() {
        for (body, adds, removes, expected) in [
            ("Text", &["#1"][..], &[][..], "Text\n\nFixes #1"),
            ("", &["#1"], &[], "\nFixes #1"),
            ("Text\n", &["#2", "#1"], &[], "Text\n\nFixes #1 #2"),
            (
                "a\nfixes #3\nFixes #9",
                &["o/r#1"],
                &[],
                "a\nFixes #3 o/r#1\nFixes #9",
            ),
            ("a\nFixes #3\nb", &[], &["#3"], "a\nb"),
            ("a\nFixes #3\r\nb", &[], &["#4"], "a\nFixes #3\nb"),
            ("a", &[], &["#4"], "a"),
            ("a\nFixes #3", &["#3"], &["#3"], "a\nFixes #3"),
        ] {
            let found = with_fixes(body, &owned(adds), &owned(removes));
            assert_eq!(found, expected, "{body:?}");
        }
    }

    #[test]
    fn plg_issuemgmt_002_references() {
        let here = RepoId::new("org", "repo");
        let told = |word| match reference(word, &here) {
            Some(at) => written(&at, &here),
            None => "none".to_owned(),
        };
        for (word, expected) in [
            ("12", "#12"),
            ("org/repo#12", "#12"),
            ("o/r#3", "o/r#3"),
            ("#12", "none"),
            ("r#3", "none"),
            ("o/r/x#3", "none"),
            ("o/r#3#4", "none"),
            ("o/r#x", "none"),
        ] {
            assert_eq!(told(word), expected, "{word}");
        }
    }

    /// PLG-ISSUEMGMT-003
    #[test]
    fn plg_issuemgmt_003_what_is_wrong_is_told_and_the_rest_done() {
        let text = comment("ann", "/link-issue x");
        let here = &text.repo;
        let found =
            |word: &'static str, found| (word, Some((found, reference(word, here).unwrap())));
        let linked = [
            found("1", Found::Issue),
            found("2", Found::PullRequest),
            found("3", Found::NoIssue),
            found("o/r#4", Found::NoRepository),
            ("x", None),
        ];
        let told = decide(&text, "Text", &linked, &owned(&["junk"])).to_string();
        let told = told.split("\n\n<details>").next().unwrap();
        insta::assert_snapshot!(told, @r"
        body: Text

        Fixes #1
        if 0 is done: comment: @ann: Updated the `Fixes` line in the pull request body.

        However, there are one or more errors with issue references provided. Please cross check and retry.
        * Skipped issue #2 of **org/repo** as it is a ***pull request***.
        * Issue **#3** in repository **org/repo** does not exist.
        * Repository **o/r** does not exist.
        * Invalid format for issue **x**. Supported formats are **issue-number** (e.g., `123`) and **organization/repository#issue-number** (e.g., `kubernetes/test-infra#456`)
        ");
        let same = decide(&text, "Fixes #1", &linked[..1], &[]).to_string();
        assert_eq!(
            same.lines().next().unwrap(),
            "comment: @ann: The PR body is already up-to-date. No changes were made."
        );
    }
}
