//! Carrying a plan out: its effects in their order, each begun and ended by a command.

use std::sync::PoisonError;
use std::time::Duration;

use trireme_forge::{ForgeError, RepoId};
use trireme_office::Work;
use trireme_proto::state::command::Body;
use trireme_proto::state::effect::Action;
use trireme_proto::state::{
    Delivery, Effect, EffectOutcome, EffectState, Insert, Plan, SettleEffect, StartEffect, Subject,
};
use trireme_state::{EFFECTS_LEVEL, next_effect};

use super::lanes::Lane;
use super::pause::asks_forge;
use super::write::{Answer, Failure};
use super::{MAX_TRIES, Session, not_recorded, observed};
use crate::decision::{describe, filled, is_counted, joined, outcome_word, sha256_of};
use crate::plugin::outage;

/// A call that may have been sent can take effect for this long: the forge client ends it within 10 s.
const IN_FLIGHT: Duration = Duration::from_secs(15);
/// How far the forge's clock, which tells whole seconds, may be behind ours.
pub(super) const CLOCK_SLACK: Duration = Duration::from_secs(5);
/// A plan that is older than this when an effect's turn comes has waited: what it was decided on is looked at again.
const FRESH: Duration = Duration::from_secs(10);

impl Session {
    /// Sends what is left of a committed plan.
    pub(super) async fn carry_out(&self, lane: &Lane, guid: &str) -> Result<(), Work> {
        loop {
            let view = self.office.view();
            let (Some(plan), Some(delivery)) = (view.plan(guid, &lane.plugin), view.delivery(guid))
            else {
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
            if let Some(why) = unmet(plan, effect).or_else(|| untold(plan, action)) {
                self.settle(&at, EffectState::Skipped, &why, None).await?;
                continue;
            }
            let action = with_answers(plan, action);
            if asks_forge(&action) {
                self.ask_leave(&delivery.org)?;
            }
            if effect.state() == EffectState::Started
                && let Some(answer) = self.took_effect(&action, effect.started_ms).await?
            {
                let done = Some(&answer);
                self.settle(&at, EffectState::Done, "", done).await?;
                continue;
            }
            if let Some(why) = self.outdated(plan, delivery, effect, &action).await? {
                tracing::info!(guid, plugin = lane.plugin, why, "an effect is left out");
                self.settle(&at, EffectState::Skipped, &why, None).await?;
                continue;
            }
            self.send(&at, plan, delivery, &action).await?;
        }
    }

    /// What an attempt that was begun, perhaps by another node, has come to. If it may still take effect, the lane waits.
    async fn took_effect(&self, action: &Action, started_ms: i64) -> Result<Option<Answer>, Work> {
        let forge = self.tools.forge.as_ref();
        let since_ms = started_ms.saturating_sub(millis(CLOCK_SLACK));
        let found = match action {
            Action::Comment(comment) => {
                observed::comment(forge, comment.subject.as_ref(), &comment.body, since_ms).await
            }
            Action::Review(review) => observed::review(forge, review, since_ms).await,
            Action::OpenIssue(issue) => observed::issue(forge, issue, since_ms).await,
            // They look for themselves what is there, and would not see what is on its way.
            Action::CherryPick(_) | Action::Workflow(_) => Ok(None),
            // Anything else has the same result however often it is sent, or is looked for before it is.
            _ => return Ok(None),
        };
        if let Some(answer) = found.map_err(|error| observing(&error))? {
            return Ok(Some(answer));
        }
        let until = started_ms.saturating_add(millis(IN_FLIGHT));
        match u64::try_from(until.saturating_sub(self.office.now_ms())) {
            Ok(left) if left > 0 => Err(Work::After(Duration::from_millis(left))),
            _ => Ok(None),
        }
    }

    /// Why the effect of a plan that waited must not be sent any more: the pull request has another head, or a person
    /// has changed the text or the label meanwhile.
    async fn outdated(
        &self,
        plan: &Plan,
        delivery: &Delivery,
        effect: &Effect,
        action: &Action,
    ) -> Result<Option<String>, Work> {
        let age_ms = self.office.now_ms().saturating_sub(plan.planned_ms);
        let waited = effect.attempts > 0 || age_ms > millis(FRESH);
        if !waited || self.office.view().feature_level() < EFFECTS_LEVEL {
            return Ok(None);
        }
        let forge = self.tools.forge.as_ref();
        let head = match effect.head_sha.as_str() {
            "" => plan.head_sha.as_str(),
            head => head,
        };
        if !head.is_empty() && delivery.number > 0 {
            let repo = RepoId::new(&delivery.org, &delivery.repo);
            match forge.pull_request(&repo, delivery.number).await {
                Ok(pr) if pr.head.sha != head => {
                    return Ok(Some(format!(
                        "it was decided for {head}, the head is {} now",
                        pr.head.sha
                    )));
                }
                Ok(_) => {}
                Err(error) => return unless_outage(&error, "cannot see the head"),
            }
        }
        if let Some(why) = self.rewritten(action).await? {
            return Ok(Some(why));
        }
        let label = match action {
            Action::AddLabel(effect) | Action::RemoveLabel(effect) => effect,
            _ => return Ok(None),
        };
        let (repo, number) = subject(label.subject.as_ref());
        let read = async {
            let bot = forge.bot_user(&repo.org).await?;
            Ok((bot, forge.label_events(&repo, number).await?))
        };
        let (bot, events) = match read.await {
            Ok(read) => read,
            Err(error) => return unless_outage(&error, "cannot see who changed the label"),
        };
        let of_label = |event: &&trireme_forge::LabelEvent| {
            event.label.eq_ignore_ascii_case(&label.label)
                && event.at.as_millisecond() > plan.planned_ms
        };
        let last = events.iter().rev().find(of_label);
        Ok(last
            .filter(|event| !event.actor.login.is_empty() && !bot.is(&event.actor.login))
            .map(|event| {
                let did = if event.added { "put on" } else { "taken off" };
                format!(
                    "{} was {did} by {} since it was decided",
                    label.label, event.actor.login
                )
            }))
    }

    /// Why a text must not be replaced: it is gone, or is neither what the new one was made from nor the new one.
    async fn rewritten(&self, action: &Action) -> Result<Option<String>, Work> {
        let forge = self.tools.forge.as_ref();
        let (now, was, made) = match action {
            Action::EditComment(edit) if !edit.was_sha256.is_empty() => {
                let (repo, _) = subject(edit.subject.as_ref());
                let now = forge.comment(&repo, edit.comment_id).await;
                (
                    now.map(|comment| comment.body),
                    &edit.was_sha256,
                    &edit.body,
                )
            }
            Action::EditIssue(edit) if !edit.was_sha256.is_empty() => {
                let Some(made) = &edit.body else {
                    return Ok(None);
                };
                let (repo, number) = subject(edit.subject.as_ref());
                let now = forge.issue(&repo, number).await;
                (now.map(|issue| issue.body), &edit.was_sha256, made)
            }
            _ => return Ok(None),
        };
        match now {
            Ok(now) if now == *made || sha256_of(&now) == *was => Ok(None),
            Ok(_) => Ok(Some("the text was changed since it was decided".to_owned())),
            Err(error) if error.is_not_found() => Ok(Some("the text is gone".to_owned())),
            Err(error) => unless_outage(&error, "cannot see the text"),
        }
    }

    async fn send(
        &self,
        at: &Place<'_>,
        plan: &Plan,
        delivery: &Delivery,
        action: &Action,
    ) -> Result<(), Work> {
        let start = StartEffect {
            guid: at.guid.to_owned(),
            plugin: at.plugin.to_owned(),
            ordinal: at.ordinal,
        };
        let started = self.office.propose(Body::StartEffect(start)).await;
        started.map_err(not_recorded)?;
        self.office.assert_held().await.map_err(not_recorded)?;
        let failure = match self.write(action, plan, delivery).await {
            Ok(answer) => return self.settle(at, EffectState::Done, "", Some(&answer)).await,
            Err(failure) => failure,
        };
        let (text, outcome) = match failure {
            // Left as begun: the next look observes before it sends again.
            Failure::MaybeSent(text, pause) => return Err(Work::Outage(text, pause)),
            Failure::Outage(text, pause) => {
                self.settle(at, EffectState::Waiting, &text, None).await?;
                return Err(Work::Outage(text, pause));
            }
            Failure::Conflict(text) => (text, EffectOutcome::Conflict),
            Failure::Refused(text) => (text, EffectOutcome::Refused),
        };
        if is_asked_for(plan, at.ordinal, outcome) {
            // Somebody is told of it: an answer, not a failure.
            let answer = Answer {
                outcome,
                result: text,
            };
            return self.settle(at, EffectState::Done, "", Some(&answer)).await;
        }
        let what = describe(action);
        let what = what.lines().next().unwrap_or_default();
        if self.count_refusal(at) >= MAX_TRIES {
            tracing::error!(guid = at.guid, plugin = at.plugin, what, text, "given up");
            return self.settle(at, EffectState::Dead, &text, None).await;
        }
        self.settle(at, EffectState::Waiting, &text, None).await?;
        Err(Work::Retry(text))
    }

    async fn settle(
        &self,
        at: &Place<'_>,
        state: EffectState,
        error: &str,
        answer: Option<&Answer>,
    ) -> Result<(), Work> {
        let mut settle = SettleEffect {
            guid: at.guid.to_owned(),
            plugin: at.plugin.to_owned(),
            ordinal: at.ordinal,
            state: state.into(),
            error: error.to_owned(),
            ..SettleEffect::default()
        };
        if let Some(answer) = answer
            && self.office.view().feature_level() >= EFFECTS_LEVEL
        {
            settle.outcome = answer.outcome.into();
            settle.result.clone_from(&answer.result);
        }
        let settled = self.office.propose(Body::SettleEffect(settle)).await;
        settled.map_err(not_recorded)?;
        if state != EffectState::Waiting {
            self.forget_refusals(at);
        }
        Ok(())
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

/// What an effect came to; a dead one was refused.
fn outcome(effect: &Effect) -> EffectOutcome {
    match effect.state() {
        EffectState::Dead => EffectOutcome::Refused,
        EffectState::Done if effect.outcome() == EffectOutcome::Unspecified => EffectOutcome::Ok,
        EffectState::Done => effect.outcome(),
        _ => EffectOutcome::Unspecified,
    }
}

/// Why the effect's condition does not hold, if it has one that does not.
fn unmet(plan: &Plan, effect: &Effect) -> Option<String> {
    let condition = effect.condition.as_ref()?;
    let of = plan.effects.get(condition.ordinal as usize)?;
    let came_to = outcome(of);
    if condition.outcomes().any(|wanted| wanted == came_to) {
        return None;
    }
    Some(match of.state() {
        EffectState::Skipped => format!("effect {} was left out", condition.ordinal),
        _ => format!("effect {} was {}", condition.ordinal, outcome_word(came_to)),
    })
}

/// Whether a later effect waits for that outcome.
fn is_asked_for(plan: &Plan, ordinal: u32, outcome: EffectOutcome) -> bool {
    let conditions = plan
        .effects
        .iter()
        .filter_map(|effect| effect.condition.as_ref());
    conditions
        .filter(|condition| condition.ordinal == ordinal)
        .any(|condition| condition.outcomes().any(|wanted| wanted == outcome))
}

/// The action with what earlier effects answered put into its text.
fn with_answers(plan: &Plan, action: &Action) -> Action {
    let mut action = action.clone();
    let (body, inserts) = match &mut action {
        Action::Comment(comment) => (&mut comment.body, &mut comment.inserts),
        Action::OpenIssue(issue) => (&mut issue.body, &mut issue.inserts),
        _ => return action,
    };
    *body = filled(body, inserts, |insert| answers(plan, insert));
    inserts.clear();
    action
}

fn answers(plan: &Plan, insert: &Insert) -> String {
    joined(insert, &left(plan, insert))
}

/// The pieces of an insert that are told.
fn left<'a>(plan: &'a Plan, insert: &'a Insert) -> Vec<&'a str> {
    let pieces = insert.pieces.iter().filter_map(|piece| {
        let of = plan.effects.get(piece.ordinal as usize)?;
        match piece.text.as_str() {
            "" if of.state() == EffectState::Dead => Some(of.error.as_str()),
            "" => Some(of.result.as_str()),
            text => (outcome(of) == EffectOutcome::Ok).then_some(text),
        }
    });
    pieces.collect()
}

/// Why a comment has nothing to tell, if it has not.
fn untold(plan: &Plan, action: &Action) -> Option<String> {
    let Action::Comment(comment) = action else {
        return None;
    };
    let nothing = |insert: &&Insert| is_counted(insert) && left(plan, insert).is_empty();
    comment.inserts.iter().find(nothing)?;
    Some("nothing that it tells of was done".to_owned())
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A failed look leaves open what happened: never a reason to send again.
fn observing(error: &ForgeError) -> Work {
    Work::Outage(
        format!("cannot see what came of it: {error}"),
        outage(error).flatten(),
    )
}

/// What cannot be looked at is left to the write itself, which will be refused for the same reason.
fn unless_outage(error: &ForgeError, what: &str) -> Result<Option<String>, Work> {
    match outage(error) {
        Some(pause) => Err(Work::Outage(format!("{what}: {error}"), pause)),
        None => Ok(None),
    }
}

pub(super) fn subject(subject: Option<&Subject>) -> (RepoId, u64) {
    subject.map_or_else(
        || (RepoId::new("", ""), 0),
        |on| (RepoId::new(&on.org, &on.repo), on.number),
    )
}
