//! Carrying a plan out: its effects in their order, each begun and ended by a command. One that waits for a place other than
//! the forge, where sending twice changes nothing, is begun once for all its tries: hours of outage do not fill the log.

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
use crate::decision::{describe, filled, is_counted, joined, outcome_word};
use crate::plugin::outage;

/// A call that may have been sent can take effect for this long: the forge client ends it within 10 s.
const IN_FLIGHT: Duration = Duration::from_secs(15);
/// How far the forge's clock, which tells whole seconds, may be behind ours.
pub(super) const BEHIND: Duration = Duration::from_secs(5);

impl Session {
    /// Sends what is left of a committed plan.
    pub(super) async fn carry_out(&self, lane: &Lane, guid: &str) -> Result<(), Work> {
        let mut looked = None;
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
            let mut action = with_answers(plan, action);
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
            if let Some(why) = self
                .outdated(plan, delivery, effect, &mut action, &mut looked)
                .await?
            {
                tracing::info!(guid, plugin = lane.plugin, why, "an effect is left out");
                self.settle(&at, EffectState::Skipped, &why, None).await?;
                continue;
            }
            self.send(&at, plan, delivery, effect, &action).await?;
        }
    }

    /// What an attempt that was begun, perhaps by another node, has come to. If it may still take effect, the lane waits.
    async fn took_effect(&self, action: &Action, started_ms: i64) -> Result<Option<Answer>, Work> {
        let forge = self.tools.forge.as_ref();
        let since_ms = started_ms.saturating_sub(millis(BEHIND));
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

    async fn send(
        &self,
        at: &Place<'_>,
        plan: &Plan,
        delivery: &Delivery,
        effect: &Effect,
        action: &Action,
    ) -> Result<(), Work> {
        // Who is away for hours does not fill the log: the first try in vain stands for those that follow.
        let is_known_away = is_waiting_elsewhere(effect, action);
        if !is_known_away {
            self.start(at).await?;
        }
        self.office.assert_held().await.map_err(not_recorded)?;
        let failure = match self.write(action, plan, delivery).await {
            Ok(answer) => return self.settle(at, EffectState::Done, "", Some(&answer)).await,
            Err(failure) => failure,
        };
        let (text, outcome) = match failure {
            // Left as begun: the next look observes before it sends again.
            Failure::MaybeSent(text, pause) => return Err(Work::Outage(text, pause)),
            Failure::Outage(text, pause) => {
                if !is_known_away {
                    self.settle(at, EffectState::Waiting, &text, None).await?;
                }
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
        if is_known_away {
            self.start(at).await?;
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

    async fn start(&self, at: &Place<'_>) -> Result<(), Work> {
        let start = StartEffect {
            guid: at.guid.to_owned(),
            plugin: at.plugin.to_owned(),
            ordinal: at.ordinal,
        };
        let started = self.office.propose(Body::StartEffect(start)).await;
        started.map(|_| ()).map_err(not_recorded)
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

/// Whether the state tells of a try in vain at a place that is not the forge, where trying again changes nothing.
fn is_waiting_elsewhere(effect: &Effect, action: &Action) -> bool {
    !asks_forge(action)
        && effect.state() == EffectState::Waiting
        && effect.attempts > 0
        && !effect.error.is_empty()
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

pub(super) fn subject(subject: Option<&Subject>) -> (RepoId, u64) {
    subject.map_or_else(
        || (RepoId::new("", ""), 0),
        |on| (RepoId::new(&on.org, &on.repo), on.number),
    )
}
