//! Carrying a plan out: its writes to the forge, in their order, each begun and ended by a command.

use std::sync::PoisonError;
use std::time::Duration;

use trireme_forge::{BotUser, CommitStatus, Forge, ForgeError, IssueComment, RepoId, StatusState};
use trireme_office::Work;
use trireme_proto::state::command::Body;
use trireme_proto::state::effect::Action;
use trireme_proto::state::{
    CommentEffect, Context, ContextState, Effect, EffectState, PeopleEffect, SettleEffect,
    StartEffect, Subject,
};
use trireme_state::next_effect;

use super::lanes::Lane;
use super::{MAX_TRIES, Session, not_recorded};
use crate::decision::describe;
use crate::plugin::outage;

/// A call that may have been sent can take effect for this long: the forge client ends it within 10 s.
const IN_FLIGHT: Duration = Duration::from_secs(15);
/// How far the forge's clock, which tells whole seconds, may be behind ours.
const CLOCK_SLACK: Duration = Duration::from_secs(5);

impl Session {
    /// Sends what is left of a committed plan.
    pub(super) async fn carry_out(&self, lane: &Lane, guid: &str) -> Result<(), Work> {
        loop {
            let view = self.office.view();
            let Some(plan) = view.plan(guid, &lane.plugin) else {
                return Ok(());
            };
            let Some(ordinal) = next_effect(plan) else {
                return Ok(());
            };
            let Some(effect) = plan.effects.get(ordinal as usize) else {
                return Ok(());
            };
            let Some(action) = &effect.action else {
                // The state refuses such plans.
                return Ok(());
            };
            let at = Place {
                guid,
                plugin: &lane.plugin,
                ordinal,
            };
            if effect.state() == EffectState::Started && self.took_effect(effect).await? {
                self.settle(&at, EffectState::Done, "").await?;
                continue;
            }
            self.send(&at, action).await?;
        }
    }

    /// Whether an attempt that was begun, perhaps by another node, has taken effect. If it still may, the lane waits.
    async fn took_effect(&self, effect: &Effect) -> Result<bool, Work> {
        // Anything else has the same result however often it is sent.
        let Some(Action::Comment(comment)) = &effect.action else {
            return Ok(false);
        };
        let forge = self.tools.forge.as_ref();
        let found = find_comment(forge, comment, effect.started_ms).await;
        if found.map_err(|error| observing(&error))? {
            return Ok(true);
        }
        let until = effect.started_ms.saturating_add(millis(IN_FLIGHT));
        match u64::try_from(until.saturating_sub(self.office.now_ms())) {
            Ok(left) if left > 0 => Err(Work::After(Duration::from_millis(left))),
            _ => Ok(false),
        }
    }

    async fn send(&self, at: &Place<'_>, action: &Action) -> Result<(), Work> {
        let start = StartEffect {
            guid: at.guid.to_owned(),
            plugin: at.plugin.to_owned(),
            ordinal: at.ordinal,
        };
        let started = self.office.propose(Body::StartEffect(start)).await;
        started.map_err(not_recorded)?;
        self.office.assert_held().await.map_err(not_recorded)?;
        let Err(error) = write(self.tools.forge.as_ref(), action).await else {
            self.forget_refusals(at);
            return self.settle(at, EffectState::Done, "").await;
        };
        let what = describe(action);
        let what = what.lines().next().unwrap_or_default();
        let text = error.to_string();
        if error.maybe_sent() {
            // Left as begun: the next look observes before it sends again.
            return Err(Work::Outage(text, error.retry_after()));
        }
        if let Some(pause) = outage(&error) {
            self.settle(at, EffectState::Waiting, &text).await?;
            return Err(Work::Outage(text, pause));
        }
        if self.count_refusal(at) >= MAX_TRIES {
            tracing::error!(guid = at.guid, plugin = at.plugin, what, text, "given up");
            self.forget_refusals(at);
            return self.settle(at, EffectState::Dead, &text).await;
        }
        self.settle(at, EffectState::Waiting, &text).await?;
        Err(Work::Retry(text))
    }

    async fn settle(&self, at: &Place<'_>, state: EffectState, error: &str) -> Result<(), Work> {
        let settle = SettleEffect {
            guid: at.guid.to_owned(),
            plugin: at.plugin.to_owned(),
            ordinal: at.ordinal,
            state: state.into(),
            error: error.to_owned(),
        };
        let settled = self.office.propose(Body::SettleEffect(settle)).await;
        settled.map(|_| ()).map_err(not_recorded)
    }

    /// Refusals so far, this one included. A new office counts anew.
    fn count_refusal(&self, at: &Place<'_>) -> u32 {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let count = refusals.entry(at.key()).or_insert(0);
        *count = count.saturating_add(1);
        *count
    }

    fn forget_refusals(&self, at: &Place<'_>) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        refusals.remove(&at.key());
    }
}

/// Which effect.
struct Place<'a> {
    guid: &'a str,
    plugin: &'a str,
    ordinal: u32,
}

impl Place<'_> {
    fn key(&self) -> (String, String, u32) {
        (self.guid.to_owned(), self.plugin.to_owned(), self.ordinal)
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A failed look leaves open what happened: never a reason to send again.
fn observing(error: &ForgeError) -> Work {
    Work::Outage(
        format!("cannot see whether a comment was made: {error}"),
        outage(error).flatten(),
    )
}

/// Whether the bot has made that comment since. Prow's texts carry no marker, so the text itself has to do.
async fn find_comment(
    forge: &dyn Forge,
    wanted: &CommentEffect,
    started_ms: i64,
) -> Result<bool, ForgeError> {
    let (repo, number) = subject(wanted.subject.as_ref());
    let bot = forge.bot_user().await?;
    let comments = match forge.comments(&repo, number).await {
        // What is gone cannot be commented: sending will say so.
        Err(error) if error.is_not_found() => return Ok(false),
        comments => comments?,
    };
    let since = started_ms.saturating_sub(millis(CLOCK_SLACK));
    let found = |comment: &IssueComment| is_ours(comment, &bot, &wanted.body, since);
    Ok(comments.iter().any(found))
}

fn is_ours(comment: &IssueComment, bot: &BotUser, body: &str, since_ms: i64) -> bool {
    // Forges may turn line ends and cut the end of a text.
    let plain = |text: &str| text.replace("\r\n", "\n").trim_end().to_owned();
    bot.is(&comment.author.login)
        && comment.created_at.as_millisecond() >= since_ms
        && plain(&comment.body) == plain(body)
}

fn subject(subject: Option<&Subject>) -> (RepoId, u64) {
    subject.map_or_else(
        || (RepoId::new("", ""), 0),
        |on| (RepoId::new(&on.org, &on.repo), on.number),
    )
}

fn logins(effect: &PeopleEffect) -> Vec<&str> {
    effect.logins.iter().map(String::as_str).collect()
}

async fn write(forge: &dyn Forge, action: &Action) -> Result<(), ForgeError> {
    match action {
        Action::Comment(effect) => {
            let (repo, number) = subject(effect.subject.as_ref());
            forge.create_comment(&repo, number, &effect.body).await?;
        }
        Action::EditComment(effect) => {
            let (repo, _) = subject(effect.subject.as_ref());
            let id = effect.comment_id;
            forge.edit_comment(&repo, id, &effect.body).await?;
        }
        Action::AddLabel(effect) => {
            let (repo, number) = subject(effect.subject.as_ref());
            forge.add_labels(&repo, number, &[&effect.label]).await?;
        }
        Action::RemoveLabel(effect) => {
            let (repo, number) = subject(effect.subject.as_ref());
            forge.remove_label(&repo, number, &effect.label).await?;
        }
        Action::Status(effect) => {
            let (repo, _) = subject(effect.subject.as_ref());
            let status = effect.status.as_ref().map(commit_status);
            if let Some(status) = status {
                forge.create_status(&repo, &effect.sha, &status).await?;
            }
        }
        Action::PruneComments(effect) => {
            let (repo, _) = subject(effect.subject.as_ref());
            for id in &effect.comment_ids {
                forge.delete_comment(&repo, *id).await?;
            }
        }
        Action::Assign(effect) => {
            let (repo, number) = subject(effect.subject.as_ref());
            let left = forge.assign(&repo, number, &logins(effect)).await?;
            note_left_out("assigned", &repo, number, &left);
        }
        Action::Unassign(effect) => {
            let (repo, number) = subject(effect.subject.as_ref());
            let left = forge.unassign(&repo, number, &logins(effect)).await?;
            note_left_out("unassigned", &repo, number, &left);
        }
        Action::RequestReview(effect) => {
            let (repo, number) = subject(effect.subject.as_ref());
            let left = forge.request_review(&repo, number, &logins(effect)).await?;
            note_left_out("asked for review", &repo, number, &left);
        }
        Action::Close(effect) => {
            let (repo, number) = subject(effect.subject.as_ref());
            forge.close_issue(&repo, number).await?;
        }
    }
    Ok(())
}

fn note_left_out(what: &str, repo: &RepoId, number: u64, logins: &[String]) {
    if !logins.is_empty() {
        tracing::info!(%repo, number, ?logins, "some could not be {what}");
    }
}

fn commit_status(context: &Context) -> CommitStatus {
    let state = match context.state() {
        ContextState::Success => StatusState::Success,
        ContextState::Failure => StatusState::Failure,
        ContextState::Error => StatusState::Error,
        ContextState::Pending | ContextState::Unspecified => StatusState::Pending,
    };
    CommitStatus {
        context: context.context.clone(),
        state,
        description: context.description.clone(),
        target_url: context.target_url.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{bot, bot_comment};

    #[test]
    fn a_comment_is_known_again_by_author_text_and_time() {
        let comment = bot_comment(1, "Hello\r\nyou\n");
        let ours =
            |comment: &IssueComment, body: &str, since| is_ours(comment, &bot(), body, since);
        assert!(ours(&comment, "Hello\nyou", 0));
        assert!(!ours(&comment, "Hello\nme", 0));
        // Made before the attempt began.
        assert!(!ours(&comment, "Hello\nyou", 1));
        let mut by_other = comment.clone();
        by_other.author.login = "alice".into();
        assert!(!ours(&by_other, "Hello\nyou", 0));
    }
}
