//! How plugins answer people (HOOK-023). Other tools read these texts: they are Prow's, byte for byte.

use trireme_forge::webhook::GenericComment;
use trireme_forge::{BotUser, IssueComment};
use trireme_proto::state::effect::Action;

use crate::decision::{Target, Text};

/// Where to learn about the bot, without the list of commands.
pub(crate) const ABOUT_THIS_BOT_WITHOUT_COMMANDS: &str = "Instructions for interacting with me using PR comments are available [here](https://git.k8s.io/community/contributors/guide/pull-requests.md).  If you have questions or suggestions related to my behavior, please file an issue against the [kubernetes-sigs/prow](https://github.com/kubernetes-sigs/prow/issues/new?title=Prow%20issue:) repository.";

/// The same, with the list of commands.
pub(crate) const ABOUT_THIS_BOT: &str = "Instructions for interacting with me using PR comments are available [here](https://git.k8s.io/community/contributors/guide/pull-requests.md).  If you have questions or suggestions related to my behavior, please file an issue against the [kubernetes-sigs/prow](https://github.com/kubernetes-sigs/prow/issues/new?title=Prow%20issue:) repository. I understand the commands that are listed [here](https://go.k8s.io/bot-commands).";

/// Something said to nobody in particular that needs no reason.
pub(crate) fn simple_reply(message: &str) -> String {
    format!("{message}\n\n<details>\n\n{ABOUT_THIS_BOT_WITHOUT_COMMANDS}\n</details>")
}

/// An answer to `login` with a reason folded away beneath it.
pub(crate) fn reply(login: &str, message: &str, reason: &str) -> String {
    format!("@{login}: {message}{}", folded(reason))
}

fn folded(reason: &str) -> String {
    format!("\n\n<details>\n\n{reason}\n\n{ABOUT_THIS_BOT_WITHOUT_COMMANDS}\n</details>")
}

/// An answer to a text somebody wrote, which is linked and quoted.
pub(crate) fn reply_to(body: &str, url: &str, login: &str, message: &str) -> String {
    reply(login, message, &in_response_to(body, url))
}

fn in_response_to(body: &str, url: &str) -> String {
    let quoted: Vec<String> = body.split('\n').map(|line| format!(">{line}")).collect();
    format!("In response to [this]({url}):\n\n{}\n", quoted.join("\n"))
}

/// The same where the text stands; the message may tell what came of earlier effects.
pub(crate) fn answer(comment: &GenericComment, message: impl Into<Text>) -> Action {
    let on = Target::new(&comment.repo, comment.number);
    let (body, url, login) = (&comment.body, &comment.html_url, &comment.user.login);
    answer_to(&on, body, url, login, message)
}

/// The same to what `login` wrote elsewhere.
pub(crate) fn answer_to(
    on: &Target,
    body: &str,
    url: &str,
    login: &str,
    message: impl Into<Text>,
) -> Action {
    on.comment(reply_with(body, url, login, message))
}

/// What we said on an issue or pull request that `is_stale`.
pub(crate) fn stale(
    bot: &BotUser,
    comments: &[IssueComment],
    is_stale: impl Fn(&str) -> bool,
) -> Vec<u64> {
    let ours = comments
        .iter()
        .filter(|comment| bot.is(&comment.author.login));
    ours.filter(|comment| is_stale(&comment.body))
        .map(|comment| comment.id)
        .collect()
}

/// An answer as that of [`reply_to`]; the message may tell what came of earlier effects.
pub(crate) fn reply_with(body: &str, url: &str, login: &str, message: impl Into<Text>) -> Text {
    let text = Text::from(format!("@{login}: ")).and(message);
    text.and(folded(&in_response_to(body, url)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hook_023_a_simple_reply_only_tells_about_the_bot() {
        insta::assert_snapshot!(simple_reply("Hello."), @r"
        Hello.

        <details>

        Instructions for interacting with me using PR comments are available [here](https://git.k8s.io/community/contributors/guide/pull-requests.md).  If you have questions or suggestions related to my behavior, please file an issue against the [kubernetes-sigs/prow](https://github.com/kubernetes-sigs/prow/issues/new?title=Prow%20issue:) repository.
        </details>
        ");
        assert!(ABOUT_THIS_BOT.starts_with(ABOUT_THIS_BOT_WITHOUT_COMMANDS));
    }

    #[test]
    fn hook_023_a_reply_quotes_every_line_of_what_it_answers() {
        insta::assert_snapshot!(
            reply_to("/lgtm\nthanks\r\n", "https://github.com/o/r/pull/1#issuecomment-2", "alice", "no."),
            @r"
        @alice: no.

        <details>

        In response to [this](https://github.com/o/r/pull/1#issuecomment-2):

        >/lgtm
        >thanks
        >


        Instructions for interacting with me using PR comments are available [here](https://git.k8s.io/community/contributors/guide/pull-requests.md).  If you have questions or suggestions related to my behavior, please file an issue against the [kubernetes-sigs/prow](https://github.com/kubernetes-sigs/prow/issues/new?title=Prow%20issue:) repository.
        </details>
        "
        );
    }
}
