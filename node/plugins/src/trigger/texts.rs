//! What `trigger` says to people, byte for byte as Prow does (PLG-TRIGGER-013, 015, 031, 036, 037).

use trireme_forge::RepoId;

use crate::respond::ABOUT_THIS_BOT_WITHOUT_COMMANDS;

pub(super) const NOT_TRUSTED: &str = "Cannot trigger testing until a trusted user reviews the PR and leaves an `/ok-to-test` message.";
pub(super) const NEVER_TRUSTED: &str = "PRs from untrusted users cannot be marked as trusted with `/ok-to-test` in this repo meaning untrusted PR authors can never trigger tests themselves. Collaborators can still trigger tests on the PR using `/test`.";
pub(super) const ONLY_TRUSTED_REVOKE: &str = "Only trusted users can revoke `/ok-to-test`.";
pub(super) const DRAFT: &str = "Skipping CI for Draft Pull Request.\nIf you want CI signal for your change, please convert it to an actual PR.\nYou can still manually trigger a test run with `/test all`";
/// Told as the description of the aborted runs (PLG-TRIGGER-034).
pub(super) const ABORTED: &str = "Aborted by trigger plugin.";

/// What the plugin says about itself.
pub(super) const ABOUT: &str = "The trigger plugin starts jobs in reaction to various events.
<br>Presubmit jobs are run automatically on pull requests that are trusted and not in a draft state with file changes matching the file filters and targeting a branch matching the branch filters.
<br>A pull request is considered trusted if the author is a member of the 'trusted organization' for the repository or if such a member has left an '/ok-to-test' command on the PR.
<br>Trusted status granted by '/ok-to-test' can be revoked by a trusted user with '/ok-to-test cancel', which restores the 'needs-ok-to-test' label.
<br>Trigger will not automatically start jobs for a PR in draft state, and if a PR is changed to draft it cancels pending jobs.
<br>If jobs are not run automatically for a PR because it is not trusted or is in draft state, a trusted user can still start jobs manually via the '/test' command.
<br>The '/retest' command can be used to rerun jobs that have reported failure.
<br>The '/test-manual-required' command can be used to start required manually triggered presubmit jobs.
<br>Trigger starts postsubmit jobs when commits are pushed if the filters on the job match files and branches affected by that push.";

/// What the welcome to an unknown author says about joining.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Guidance {
    Plain,
    /// The author comes often: the configured message, empty for Prow's own.
    Prominent(String),
}

/// The first answer to a pull request of somebody who is not trusted.
pub(super) struct Welcome<'a> {
    pub(super) author: &'a str,
    pub(super) repo: &'a RepoId,
    /// The second organisation whose members are trusted; empty = none.
    pub(super) trusted_org: &'a str,
    /// Where to join; empty = the organisation's list of people.
    pub(super) join_org_url: &'a str,
    pub(super) ignore_ok_to_test: bool,
    pub(super) guidance: Guidance,
}

impl Welcome<'_> {
    pub(super) fn text(&self) -> String {
        let Self { author, repo, .. } = self;
        let org = &repo.org;
        let encoded = query_escape(&repo.to_string());
        let about = ABOUT_THIS_BOT_WITHOUT_COMMANDS;
        if self.ignore_ok_to_test {
            return format!(
                "Hi @{author}. Thanks for your PR.\n\n\
                 PRs from untrusted users cannot be marked as trusted with `/ok-to-test` in this repo meaning untrusted PR authors can never trigger tests themselves. Collaborators can still trigger tests on the PR using `/test all`.\n\n\
                 I understand the commands that are listed [here](https://go.k8s.io/bot-commands?repo={encoded}).\n\n\
                 <details>\n\n{about}\n</details>\n"
            );
        }
        let also = if self.trusted_org.is_empty() || self.trusted_org == org {
            String::new()
        } else {
            let trusted = self.trusted_org;
            format!("or [{trusted}](https://github.com/orgs/{trusted}/people) ")
        };
        let guidance = self.guidance_text();
        format!(
            "Hi @{author}. Thanks for your PR.\n\n\
             I'm waiting for a [{org}](https://github.com/orgs/{org}/people) {also}member to verify that this patch is reasonable to test. If it is, they should reply with `/ok-to-test` on its own line. Until that is done, I will not automatically test new commits in this PR, but the usual testing commands by org members will still work.\n\n\
             {guidance}\n\n\
             Once the patch is verified, the new status will be reflected by the `ok-to-test` label.\n\n\
             I understand the commands that are listed [here](https://go.k8s.io/bot-commands?repo={encoded}).\n\n\
             <details>\n\n{about}\n</details>\n"
        )
    }

    fn guidance_text(&self) -> String {
        let join = if self.join_org_url.is_empty() {
            format!("https://github.com/orgs/{}/people", self.repo.org)
        } else {
            self.join_org_url.to_owned()
        };
        match &self.guidance {
            Guidance::Plain => {
                format!("Regular contributors should [join the org]({join}) to skip this step.")
            }
            Guidance::Prominent(message) if message.is_empty() => format!(
                ">[!TIP]\n>**We noticed you've done this a few times! Consider [joining the org]({join}) to skip this step and gain `/lgtm` and other bot rights.** We recommend asking approvers on your previous PRs to sponsor you."
            ),
            Guidance::Prominent(message) => message.replace("{join_org_url}", &join),
        }
    }
}

/// As Go's `url.QueryEscape`.
fn query_escape(text: &str) -> String {
    use std::fmt::Write as _;
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                escaped.push(char::from(byte));
            }
            b' ' => escaped.push('+'),
            _ => {
                // Writing to a string cannot fail.
                let _ = write!(escaped, "%{byte:02X}");
            }
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn welcome(guidance: Guidance) -> String {
        Welcome {
            author: "newcomer",
            repo: &RepoId::new("org", "repo"),
            trusted_org: "",
            join_org_url: "",
            ignore_ok_to_test: false,
            guidance,
        }
        .text()
    }

    #[test]
    fn plg_trigger_036_welcome() {
        insta::assert_snapshot!(welcome(Guidance::Plain), @r"
        Hi @newcomer. Thanks for your PR.

        I'm waiting for a [org](https://github.com/orgs/org/people) member to verify that this patch is reasonable to test. If it is, they should reply with `/ok-to-test` on its own line. Until that is done, I will not automatically test new commits in this PR, but the usual testing commands by org members will still work.

        Regular contributors should [join the org](https://github.com/orgs/org/people) to skip this step.

        Once the patch is verified, the new status will be reflected by the `ok-to-test` label.

        I understand the commands that are listed [here](https://go.k8s.io/bot-commands?repo=org%2Frepo).

        <details>

        Instructions for interacting with me using PR comments are available [here](https://git.k8s.io/community/contributors/guide/pull-requests.md).  If you have questions or suggestions related to my behavior, please file an issue against the [kubernetes-sigs/prow](https://github.com/kubernetes-sigs/prow/issues/new?title=Prow%20issue:) repository.
        </details>
        ");
        let repo = RepoId::new("org", "repo");
        let configured = Welcome {
            author: "newcomer",
            repo: &repo,
            trusted_org: "friends",
            join_org_url: "https://example.com/join",
            ignore_ok_to_test: false,
            guidance: Guidance::Plain,
        };
        insta::assert_snapshot!(configured.text(), @r"
        Hi @newcomer. Thanks for your PR.

        I'm waiting for a [org](https://github.com/orgs/org/people) or [friends](https://github.com/orgs/friends/people) member to verify that this patch is reasonable to test. If it is, they should reply with `/ok-to-test` on its own line. Until that is done, I will not automatically test new commits in this PR, but the usual testing commands by org members will still work.

        Regular contributors should [join the org](https://example.com/join) to skip this step.

        Once the patch is verified, the new status will be reflected by the `ok-to-test` label.

        I understand the commands that are listed [here](https://go.k8s.io/bot-commands?repo=org%2Frepo).

        <details>

        Instructions for interacting with me using PR comments are available [here](https://git.k8s.io/community/contributors/guide/pull-requests.md).  If you have questions or suggestions related to my behavior, please file an issue against the [kubernetes-sigs/prow](https://github.com/kubernetes-sigs/prow/issues/new?title=Prow%20issue:) repository.
        </details>
        ");
        let never = Welcome {
            ignore_ok_to_test: true,
            ..configured
        };
        insta::assert_snapshot!(never.text(), @r"
        Hi @newcomer. Thanks for your PR.

        PRs from untrusted users cannot be marked as trusted with `/ok-to-test` in this repo meaning untrusted PR authors can never trigger tests themselves. Collaborators can still trigger tests on the PR using `/test all`.

        I understand the commands that are listed [here](https://go.k8s.io/bot-commands?repo=org%2Frepo).

        <details>

        Instructions for interacting with me using PR comments are available [here](https://git.k8s.io/community/contributors/guide/pull-requests.md).  If you have questions or suggestions related to my behavior, please file an issue against the [kubernetes-sigs/prow](https://github.com/kubernetes-sigs/prow/issues/new?title=Prow%20issue:) repository.
        </details>
        ");
    }

    #[test]
    fn plg_trigger_037_frequent_authors_are_told_to_join() {
        let paragraph = |guidance| {
            let text = welcome(guidance);
            text.split("\n\n").nth(2).unwrap().to_owned()
        };
        insta::assert_snapshot!(paragraph(Guidance::Prominent(String::new())), @r"
        >[!TIP]
        >**We noticed you've done this a few times! Consider [joining the org](https://github.com/orgs/org/people) to skip this step and gain `/lgtm` and other bot rights.** We recommend asking approvers on your previous PRs to sponsor you.
        ");
        insta::assert_snapshot!(paragraph(Guidance::Prominent("Join us: {join_org_url}!".into())), @"Join us: https://github.com/orgs/org/people!");
    }

    #[test]
    fn query_escape_is_gos() {
        assert_eq!(query_escape("org/re po~_.-é"), "org%2Fre+po~_.-%C3%A9");
    }
}
