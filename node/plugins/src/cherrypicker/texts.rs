//! What the plugin says, as Prow does, byte for byte.

use trireme_forge::IssueComment;

use crate::decision::Text;
use crate::respond::reply_with;
use crate::text::commands;

commands! {
    RELEASE_NOTE = r"(?s)(?:Release note\*\*:\s*(?:<!--[^<>]*-->\s*)?```(?:release-note)?|```release-note)(.+?)```";
}

/// How a request came, which decides how it is answered.
#[derive(Debug, Clone, Copy)]
pub(super) enum Request<'a> {
    Text {
        body: &'a str,
        url: &'a str,
        login: &'a str,
    },
    Label,
}

impl<'a> Request<'a> {
    pub(super) fn comment(comment: &'a IssueComment) -> Self {
        Self::Text {
            body: &comment.body,
            url: &comment.html_url,
            login: &comment.author.login,
        }
    }

    /// PLG-CHERRYPICK-006
    pub(super) fn answer(self, message: impl Into<Text>) -> Text {
        match self {
            Self::Text { body, url, login } => reply_with(body, url, login, message),
            Self::Label => Text::from("In response to a cherrypick label: ").and(message),
        }
    }
}

pub(super) fn not_a_member(org: &str, login: &str) -> String {
    format!(
        "only [{org}](https://github.com/orgs/{org}/people) org members may request cherry picks. If you are already part of the org, make sure to [change](https://github.com/orgs/{org}/people?query={login}) your membership to public. Otherwise you can still do the cherry-pick manually. "
    )
}

pub(super) fn onto_its_base(base: &str) -> String {
    format!("I cannot cherry-pick the present PR on top of its base branch (`{base}`).")
}

pub(super) fn same_branch(base: &str, target: &str) -> String {
    format!("base branch ({base}) needs to differ from target branch ({target})")
}

/// `base` if it was asked for too.
pub(super) fn once_merged(targets: &[&str], base: Option<&str>) -> String {
    let names: Vec<String> = targets.iter().map(|name| format!("`{name}`")).collect();
    let mut text = match names.as_slice() {
        [name] => format!(
            "once the present PR merges, I will cherry-pick it on top of {name} in a new PR and assign it to you."
        ),
        names => format!(
            "once the present PR merges, I will cherry-pick it on top of {} in new PRs and assign them to you.",
            names.join(", ")
        ),
    };
    if let Some(base) = base {
        text.push_str(&format!(
            " I cannot cherry-pick it on top of `{base}` because that is already its base branch."
        ));
    }
    text
}

/// PLG-CHERRYPICK-008. A backport of a backport names only where it goes.
pub(super) fn title(target: &str, base: &str, title: &str) -> String {
    let title = title.replacen(&format!("[{base}] "), "", usize::from(!base.is_empty()));
    format!("[{target}] {title}")
}

/// PLG-CHERRYPICK-008
pub(super) fn body(
    number: u64,
    assignee: Option<&str>,
    parent: &str,
    chain: &[String],
    kinds: &[&str],
) -> String {
    let mut parts = vec![format!("This is an automated cherry-pick of #{number}")];
    parts.extend(assignee.map(|login| format!("/assign {login}")));
    parts.extend(release_note(parent));
    if !chain.is_empty() {
        parts.push(format!("/cherrypick {}", chain.join(" ")));
    }
    if !kinds.is_empty() {
        let lines: Vec<String> = kinds.iter().map(|kind| format!("/kind {kind}")).collect();
        parts.push(lines.join("\n"));
    }
    parts.join("\n\n")
}

fn release_note(body: &str) -> Option<String> {
    let note = RELEASE_NOTE.captures(body)?.get(1)?.as_str().trim();
    Some(format!("```release-note\n{note}\n```"))
}

/// A string as Go's `%q` writes it; names of branches hold nothing that needs more.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PLG-CHERRYPICK-008
    #[test]
    fn plg_cherrypick_008_titles_and_descriptions() {
        assert_eq!(title("v1", "main", "Fix"), "[v1] Fix");
        assert_eq!(title("v1", "v2", "[v2] Fix [v2] it"), "[v1] Fix [v2] it");
        assert_eq!(
            body(5, None, "", &[], &[]),
            "This is an automated cherry-pick of #5"
        );
        let parent =
            "Fixes it.\n\n**Release note**:\n<!-- say it -->\n```release-note\nIt works.\n```\n";
        let chain = ["v2".to_owned(), "v1".to_owned()];
        insta::assert_snapshot!(body(5, Some("ann"), parent, &chain, &["bug", "cleanup"]), @r"
        This is an automated cherry-pick of #5

        /assign ann

        ```release-note
        It works.
        ```

        /cherrypick v2 v1

        /kind bug
        /kind cleanup
        ");
        assert_eq!(
            release_note("```release-note\nNONE\n```").unwrap(),
            "```release-note\nNONE\n```"
        );
        assert_eq!(
            release_note("Release note**:\n```\nNew.\n```").unwrap(),
            "```release-note\nNew.\n```"
        );
        assert_eq!(release_note("```\nno note\n```"), None);
    }
}
