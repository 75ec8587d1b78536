//! What a pull request is told about its OWNERS files.

use trireme_forge::{BotUser, IssueComment, PullRequest};
use trireme_proto::state::ReviewLine;
use trireme_proto::state::effect::Action;

use super::newcomers::Untrusted;
use crate::decision::{Decision, Target};
use crate::label_names::INVALID_OWNERS_FILE;
use crate::respond::reply_to;

const INVALID_ALIASES: &str = "The content of OWNERS_ALIASES is invalid.";
const EMPTY_ALIASES: &str = "There are empty aliases in OWNER_ALIASES, cleanup is advised.";
const UNTRUSTED: &str = "The OWNERS file contains untrusted users, which makes it INVALID.";

/// A file that must not be merged as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) path: String,
    /// In its diff.
    pub(super) position: u32,
    pub(super) message: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Findings {
    pub(super) aliases_are_invalid: bool,
    pub(super) aliases_are_empty: bool,
    pub(super) wrong: Vec<Wrong>,
    pub(super) untrusted: Vec<Untrusted>,
}

/// What the pull request shows already.
pub(super) struct Shown<'a> {
    pub(super) labelled: bool,
    pub(super) bot: &'a BotUser,
    pub(super) comments: &'a [IssueComment],
    /// Path and text of what we said on lines.
    pub(super) on_lines: &'a [(String, String)],
}

impl<'a> Shown<'a> {
    /// Our comments that begin so, oldest first.
    fn ours(&self, beginning: &str) -> Vec<&'a IssueComment> {
        let ours = self.comments.iter();
        ours.filter(|comment| self.bot.is(&comment.author.login))
            .filter(|comment| comment.body.starts_with(beginning))
            .collect()
    }
}

/// `name` is that of OWNERS files, `join` where to become a member.
pub(super) fn decide(
    pr: &PullRequest,
    name: &str,
    join: &str,
    findings: &Findings,
    shown: &Shown<'_>,
) -> Decision {
    let on = Target::new(&pr.repo, pr.number);
    let mut effects = Vec::new();
    let label = || (!shown.labelled).then(|| on.add_label(INVALID_OWNERS_FILE));
    if findings.aliases_are_invalid {
        effects.extend(label());
        effects.extend(keep(&on, shown, INVALID_ALIASES, Some(INVALID_ALIASES)));
        return effects.into();
    }
    effects.extend(keep(&on, shown, INVALID_ALIASES, None));
    let empty = findings.aliases_are_empty.then_some(EMPTY_ALIASES);
    effects.extend(keep(&on, shown, EMPTY_ALIASES, empty));
    let fine = findings.wrong.is_empty() && findings.untrusted.is_empty();
    match fine {
        true if shown.labelled => effects.push(on.remove_label(INVALID_OWNERS_FILE)),
        true => {}
        false => effects.extend(label()),
    }
    effects.extend(review(pr, &on, name, findings, shown));
    let text = (!findings.untrusted.is_empty())
        .then(|| untrusted(&pr.repo.org, name, join, &findings.untrusted));
    effects.extend(keep(&on, shown, UNTRUSTED, text.as_deref()));
    effects.into()
}

/// One comment that begins so and says `text`, in its place; without a text none (PLG-VERIFYOWNERS-010).
fn keep(on: &Target, shown: &Shown<'_>, beginning: &str, text: Option<&str>) -> Vec<Action> {
    let mut ours = shown.ours(beginning);
    let mut effects = Vec::new();
    if let Some(text) = text {
        match ours.pop() {
            None => effects.push(on.comment(text)),
            Some(newest) if newest.body == text => {}
            Some(newest) => effects.push(on.edit_comment(newest.id, text)),
        }
    }
    effects.extend(on.prune(ours.iter().map(|comment| comment.id).collect()));
    effects
}

/// Unless all of it was said on these lines before.
fn review(
    pr: &PullRequest,
    on: &Target,
    name: &str,
    findings: &Findings,
    shown: &Shown<'_>,
) -> Option<Action> {
    let said = |wrong: &&Wrong| {
        let mut on_lines = shown.on_lines.iter();
        on_lines.any(|(path, body)| *path == wrong.path && *body == wrong.message)
    };
    let count = findings.wrong.len();
    let new: Vec<&Wrong> = findings.wrong.iter().filter(|wrong| !said(wrong)).collect();
    if new.is_empty() {
        return None;
    }
    let plural = if count == 1 { "" } else { "s" };
    let message = format!("{count} invalid {name} file{plural}");
    let body = reply_to(&pr.body, &pr.html_url, &pr.author.login, &message);
    let lines = new.into_iter().map(|wrong| ReviewLine {
        path: wrong.path.clone(),
        position: wrong.position,
        body: wrong.message.clone(),
    });
    Some(on.review(&pr.head.sha, body, lines.collect()))
}

fn untrusted(org: &str, name: &str, join: &str, people: &[Untrusted]) -> String {
    let mut lines = vec![format!(
        "{UNTRUSTED} The following users are mentioned in {name} file(s) but are untrusted for the following reasons. One way to make the user trusted is to add them as [members]({join}) of the {org} org. You can then trigger verification by writing `/verify-owners` in a comment."
    )];
    for person in people {
        lines.push(format!("- {}", person.login));
        lines.push(format!("  - {}", person.reason));
        lines.extend(person.files.iter().map(|file| format!("  - {file}")));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{bot, bot_comment, pull_request};

    fn told(findings: &Findings, labelled: bool, said: &[&str], lines: &[(&str, &str)]) -> String {
        let comments = (1..).zip(said).map(|(id, body)| bot_comment(id, body));
        let comments: Vec<IssueComment> = comments.collect();
        let lines = lines
            .iter()
            .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()));
        let lines: Vec<(String, String)> = lines.collect();
        let shown = Shown {
            labelled,
            bot: &bot(),
            comments: &comments,
            on_lines: &lines,
        };
        let join = "https://github.com/orgs/org/people";
        decide(&pull_request(), "OWNERS", join, findings, &shown).to_string()
    }

    fn eve() -> Findings {
        Findings {
            untrusted: vec![Untrusted {
                login: "eve".into(),
                reason: "Because.".into(),
                files: ["OWNERS".into(), "a/OWNERS".into()].into(),
            }],
            ..Findings::default()
        }
    }

    #[test]
    fn plg_verifyowners_003_aliases() {
        let invalid = Findings {
            aliases_are_invalid: true,
            ..eve()
        };
        insta::assert_snapshot!(told(&invalid, false, &[], &[]), @r"
        +do-not-merge/invalid-owners-file
        comment: The content of OWNERS_ALIASES is invalid.
        ");
        assert_eq!(told(&invalid, true, &[INVALID_ALIASES], &[]), "nothing");
        let empty = Findings {
            aliases_are_empty: true,
            ..Findings::default()
        };
        insta::assert_snapshot!(told(&empty, false, &[], &[]), @"comment: There are empty aliases in OWNER_ALIASES, cleanup is advised.");
        assert_eq!(told(&empty, false, &[EMPTY_ALIASES], &[]), "nothing");
        assert_eq!(
            told(
                &Findings::default(),
                true,
                &[EMPTY_ALIASES, INVALID_ALIASES, "x"],
                &[]
            ),
            "delete [2]\ndelete [1]\n-do-not-merge/invalid-owners-file"
        );
    }

    fn wrong() -> Findings {
        let of = |path: &str, position, message: &str| Wrong {
            path: path.into(),
            position,
            message: message.into(),
        };
        Findings {
            wrong: vec![of("OWNERS", 1, "No."), of("a/OWNERS", 3, "Bad.")],
            ..Findings::default()
        }
    }

    #[test]
    fn plg_verifyowners_005_problems_are_one_review() {
        insta::assert_snapshot!(told(&wrong(), false, &[], &[]), @r"
        +do-not-merge/invalid-owners-file
        review of aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa: @author: 2 invalid OWNERS files

        <details>

        In response to [this](https://github.com/org/repo/pull/5):

        >Fixes #77


        Instructions for interacting with me using PR comments are available [here](https://git.k8s.io/community/contributors/guide/pull-requests.md).  If you have questions or suggestions related to my behavior, please file an issue against the [kubernetes-sigs/prow](https://github.com/kubernetes-sigs/prow/issues/new?title=Prow%20issue:) repository.
        </details>
        OWNERS:1: No.
        a/OWNERS:3: Bad.
        ");
        let mut one = wrong();
        one.wrong.pop();
        assert!(told(&one, true, &[], &[]).contains("1 invalid OWNERS file\n"));
        // PLG-VERIFYOWNERS-010: a push does not repeat it.
        let said = [("OWNERS", "No."), ("a/OWNERS", "Bad.")];
        assert_eq!(told(&wrong(), true, &[], &said), "nothing");
        let more = told(&wrong(), true, &[], &said[..1]);
        assert!(
            more.contains("2 invalid")
                && more.contains("a/OWNERS:3: Bad.")
                && !more.contains("OWNERS:1"),
            "{more}"
        );
    }

    /// PLG-VERIFYOWNERS-007, PLG-VERIFYOWNERS-009
    #[test]
    fn plg_verifyowners_007_untrusted_people_are_listed() {
        insta::assert_snapshot!(told(&eve(), false, &[], &[]), @r"
        +do-not-merge/invalid-owners-file
        comment: The OWNERS file contains untrusted users, which makes it INVALID. The following users are mentioned in OWNERS file(s) but are untrusted for the following reasons. One way to make the user trusted is to add them as [members](https://github.com/orgs/org/people) of the org org. You can then trigger verification by writing `/verify-owners` in a comment.
        - eve
          - Because.
          - OWNERS
          - a/OWNERS
        ");
        assert_eq!(
            told(
                &Findings::default(),
                true,
                &[&format!("{UNTRUSTED} The following")],
                &[]
            ),
            "-do-not-merge/invalid-owners-file\ndelete [1]"
        );
        assert_eq!(told(&Findings::default(), false, &["x"], &[]), "nothing");
    }

    #[test]
    fn plg_verifyowners_010_one_comment_is_edited_in_its_place() {
        let said = [format!("{UNTRUSTED} first"), format!("{UNTRUSTED} second")];
        let said: Vec<&str> = said.iter().map(String::as_str).collect();
        let text = told(&eve(), true, &said, &[]);
        assert!(
            text.starts_with("edit 2: The OWNERS file contains"),
            "{text}"
        );
        assert!(text.ends_with("\ndelete [1]"), "{text}");
        let same = untrusted(
            "org",
            "OWNERS",
            "https://github.com/orgs/org/people",
            &eve().untrusted,
        );
        assert_eq!(told(&eve(), true, &[&same], &[]), "nothing");
    }
}
