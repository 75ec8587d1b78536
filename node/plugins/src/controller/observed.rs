//! Looking for what an attempt whose answer was lost has made. Prow's texts carry no marker, so author, text and time have
//! to do.

use jiff::Timestamp;
use trireme_forge::{BotUser, Forge, ForgeError};
use trireme_proto::state::{OpenIssueEffect, ReviewEffect, Subject};

use super::effects::subject;
use super::write::Answer;

type Found = Result<Option<Answer>, ForgeError>;

/// Issues of one title that are looked through.
const MAX_ISSUES: usize = 100;

pub(super) async fn comment(
    forge: &dyn Forge,
    on: Option<&Subject>,
    body: &str,
    since_ms: i64,
) -> Found {
    let (repo, number) = subject(on);
    let bot = forge.bot_user(&repo.org).await?;
    let comments = match forge.comments(&repo, number).await {
        // What is gone cannot be commented: sending will say so.
        Err(error) if error.is_not_found() => return Ok(None),
        comments => comments?,
    };
    let mut ours = comments.iter().map(|comment| Written {
        by: &comment.author.login,
        body: &comment.body,
        at: Some(comment.created_at),
    });
    Ok(ours
        .any(|written| written.is_ours(&bot, body, since_ms))
        .then(Answer::default))
}

pub(super) async fn review(forge: &dyn Forge, wanted: &ReviewEffect, since_ms: i64) -> Found {
    let (repo, number) = subject(wanted.subject.as_ref());
    let bot = forge.bot_user(&repo.org).await?;
    let reviews = match forge.reviews(&repo, number).await {
        Err(error) if error.is_not_found() => return Ok(None),
        reviews => reviews?,
    };
    let mut ours = reviews.iter().map(|review| Written {
        by: &review.author.login,
        body: &review.body,
        at: review.submitted_at,
    });
    Ok(ours
        .any(|written| written.is_ours(&bot, &wanted.body, since_ms))
        .then(Answer::default))
}

/// Searches lag behind by seconds; an attempt is looked for until it can no longer take effect, which is longer.
pub(super) async fn issue(forge: &dyn Forge, wanted: &OpenIssueEffect, since_ms: i64) -> Found {
    let (repo, _) = subject(wanted.subject.as_ref());
    let bot = forge.bot_user(&repo.org).await?;
    let quoted = wanted.title.replace('"', " ");
    let query = format!("repo:{repo} type:issue in:title \"{quoted}\"");
    let found = forge
        .find_issues(&query, Some(&repo.org), MAX_ISSUES)
        .await?;
    let ours = found.issues.iter().find(|issue| {
        let written = Written {
            by: &issue.author.login,
            body: &issue.title,
            at: Some(issue.created_at),
        };
        written.is_ours(&bot, &wanted.title, since_ms)
    });
    Ok(ours.map(|issue| Answer::made(issue.number)))
}

struct Written<'a> {
    by: &'a str,
    body: &'a str,
    at: Option<Timestamp>,
}

impl Written<'_> {
    fn is_ours(&self, bot: &BotUser, body: &str, since_ms: i64) -> bool {
        bot.is(self.by)
            && self.at.is_some_and(|at| at.as_millisecond() >= since_ms)
            && plain(self.body) == plain(body)
    }
}

/// Forges may turn line ends and cut the end of a text.
fn plain(text: &str) -> String {
    text.replace("\r\n", "\n").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::bot;

    #[test]
    fn what_was_written_is_known_again_by_author_text_and_time() {
        let written = |by| Written {
            by,
            body: "Hello\r\nyou\n",
            at: Some(Timestamp::UNIX_EPOCH),
        };
        let ours = written("k8s-ci-robot");
        assert!(ours.is_ours(&bot(), "Hello\nyou", 0));
        assert!(!ours.is_ours(&bot(), "Hello\nme", 0));
        // Made before the attempt began.
        assert!(!ours.is_ours(&bot(), "Hello\nyou", 1));
        assert!(!written("alice").is_ours(&bot(), "Hello\nyou", 0));
    }
}
