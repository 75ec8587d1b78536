//! Effects: a plan's writes to a forge, started and settled in their order; dead ones can be tried again.

use std::sync::Arc;

use trireme_proto::state::{
    Done, Effect, EffectOutcome, EffectState, Plan, Redrive, SettleEffect, StartEffect,
};

use crate::{
    State,
    apply::Entry,
    plans::{is_committed, is_settled, next_effect},
    reject::{Verdict, conflict, cut, invalid, not_found},
};

pub(crate) fn start(state: &mut State, entry: &mut Entry, command: &StartEffect) -> Verdict {
    let (plan, effect) = state.effect(&command.guid, &command.plugin, command.ordinal)?;
    in_order(&plan, command.ordinal)?;
    let effect = Effect {
        state: EffectState::Started.into(),
        attempts: effect.attempts.saturating_add(1),
        started_ms: entry.stamp_ms,
        epoch: entry.epoch,
        ..effect
    };
    state.put_effect(entry, &plan, command.ordinal, effect);
    Ok(Done::default())
}

pub(crate) fn settle(state: &mut State, entry: &mut Entry, command: &SettleEffect) -> Verdict {
    let (plan, effect) = state.effect(&command.guid, &command.plugin, command.ordinal)?;
    let result = command.state();
    if !matches!(
        result,
        EffectState::Done | EffectState::Waiting | EffectState::Dead | EffectState::Skipped
    ) {
        return Err(invalid(
            "an effect settles as done, waiting, dead or skipped",
        ));
    }
    if is_settled(&effect) && effect.state() == result {
        return Ok(Done {
            duplicate: true,
            ..Done::default()
        });
    }
    in_order(&plan, command.ordinal)?;
    if result == EffectState::Waiting && effect.state() != EffectState::Started {
        return Err(conflict("the effect was not started"));
    }
    let effect = Effect {
        state: result.into(),
        error: cut(&command.error),
        outcome: command.outcome,
        result: cut(&command.result),
        ..effect
    };
    let plan = state.put_effect(entry, &plan, command.ordinal, effect);
    if next_effect(&plan).is_none()
        && let Some(delivery) = state.delivery(&command.guid).cloned()
        && !delivery.settled.contains(&command.plugin)
    {
        let mut settled = delivery.settled.clone();
        settled.push(command.plugin.clone());
        state.settle_plugins(entry, &delivery, settled);
    }
    Ok(Done::default())
}

/// Revives a dead plan, which is then decided anew, or a dead effect of a live one, whose last error stays until it is
/// tried.
pub(crate) fn redrive(state: &mut State, entry: &mut Entry, command: &Redrive) -> Verdict {
    let plan = state
        .plan(&command.guid, &command.plugin)
        .cloned()
        .ok_or_else(|| not_found("plan", &format!("{}/{}", command.guid, command.plugin)))?;
    let delivery = state
        .delivery(&command.guid)
        .cloned()
        .ok_or_else(|| not_found("delivery", &command.guid))?;
    if plan.dead {
        state.put_plan(
            entry,
            Plan {
                dead: false,
                failures: 0,
                ..(*plan).clone()
            },
        );
    } else {
        let (plan, effect) = state.effect(&command.guid, &command.plugin, command.ordinal)?;
        if effect.state() != EffectState::Dead {
            return Err(conflict("the effect is not dead"));
        }
        let effect = Effect {
            state: EffectState::Waiting.into(),
            attempts: 0,
            outcome: EffectOutcome::Unspecified.into(),
            result: String::new(),
            ..effect
        };
        state.put_effect(entry, &plan, command.ordinal, effect);
    }
    let settled = delivery
        .settled
        .iter()
        .filter(|plugin| **plugin != command.plugin)
        .cloned()
        .collect();
    state.settle_plugins(entry, &delivery, settled);
    Ok(Done::default())
}

/// An effect's turn comes when all before it are settled.
fn in_order(plan: &Plan, ordinal: u32) -> Verdict<()> {
    match next_effect(plan) {
        Some(next) if next == ordinal => Ok(()),
        Some(next) => Err(conflict(format!("effect {ordinal} is not next, {next} is"))),
        None => Err(conflict("all effects of the plan are settled")),
    }
}

impl State {
    fn effect(&self, guid: &str, plugin: &str, ordinal: u32) -> Verdict<(Arc<Plan>, Effect)> {
        let key = format!("{guid}/{plugin}");
        let plan = self.plan(guid, plugin).filter(|plan| is_committed(plan));
        let plan = plan.ok_or_else(|| not_found("plan", &key))?;
        let effect = plan.effects.get(ordinal as usize);
        let effect = effect.ok_or_else(|| not_found("effect", &format!("{key}/{ordinal}")))?;
        Ok((plan.clone(), effect.clone()))
    }

    fn put_effect(&mut self, entry: &mut Entry, plan: &Plan, ordinal: u32, effect: Effect) -> Plan {
        let mut plan = plan.clone();
        if let Some(place) = plan.effects.get_mut(ordinal as usize) {
            *place = effect;
        }
        self.put_plan(entry, plan.clone());
        plan
    }
}
