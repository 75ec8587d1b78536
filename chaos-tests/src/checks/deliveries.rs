//! Deliveries and what was planned for them.

use std::collections::BTreeMap;

use trireme_proto::state::{Delivery, DeliveryState, EffectState, Plan, change::Record};

use crate::History;

/// The record of each is there in the end, handled, with every plugin settled; it was received once and became handled
/// once. The same GUID sent twice is the same delivery.
pub(super) fn acknowledged_are_handled_once(history: &History) -> Vec<String> {
    let mut found = Vec::new();
    let last: BTreeMap<&str, &Delivery> = history
        .last
        .deliveries
        .iter()
        .map(|delivery| (delivery.guid.as_str(), delivery))
        .collect();
    for guid in history.acknowledged() {
        let Some(delivery) = last.get(guid) else {
            found.push(format!("delivery {guid} was acknowledged and is lost"));
            continue;
        };
        if delivery.state() != DeliveryState::Handled {
            found.push(format!(
                "delivery {guid} was acknowledged but is {:?}",
                delivery.state()
            ));
        }
    }
    for delivery in &history.last.deliveries {
        let guid = &delivery.guid;
        let open: Vec<&String> = delivery
            .plugins
            .iter()
            .filter(|plugin| !delivery.settled.contains(plugin))
            .collect();
        if delivery.state() == DeliveryState::Handled && !open.is_empty() {
            found.push(format!("delivery {guid} is handled, but not by {open:?}"));
        }
    }
    let mut seen: BTreeMap<&str, (&Delivery, usize)> = BTreeMap::new();
    for (revision, record, removed) in history.changes() {
        let Record::Delivery(delivery) = record else {
            continue;
        };
        if removed {
            continue;
        }
        let guid = delivery.guid.as_str();
        let handled = delivery.state() == DeliveryState::Handled;
        let Some((before, times)) = seen.get_mut(guid) else {
            seen.insert(guid, (delivery, usize::from(handled)));
            continue;
        };
        if before.revision != delivery.revision {
            found.push(format!(
                "delivery {guid} was received at {} and again at {}",
                before.revision, delivery.revision
            ));
        }
        if before.state > delivery.state {
            found.push(format!(
                "delivery {guid} went from {:?} back to {:?} at {revision}",
                before.state(),
                delivery.state()
            ));
        }
        if handled && before.state() != DeliveryState::Handled {
            *times += 1;
            if *times > 1 {
                found.push(format!("delivery {guid} was handled {times} times"));
            }
        }
        *before = delivery;
    }
    found
}

/// A plan never changes what it is to do; what is done stays done; nothing is given up in a world whose forge answers.
pub(super) fn plans_are_made_once(history: &History) -> Vec<String> {
    let mut found = Vec::new();
    let mut seen: BTreeMap<(&str, &str), &Plan> = BTreeMap::new();
    for (revision, record, removed) in history.changes() {
        let Record::Plan(plan) = record else {
            continue;
        };
        let key = (plan.guid.as_str(), plan.plugin.as_str());
        if removed {
            seen.remove(&key);
            continue;
        }
        if let Some(before) = seen.insert(key, plan) {
            let name = format!("the plan of {} for {}", plan.plugin, plan.guid);
            // A failed decision is decided again.
            if before.failures == 0
                && (before.planned_ms != plan.planned_ms
                    || before.jobs != plan.jobs
                    || before.effects.len() != plan.effects.len())
            {
                found.push(format!("{name} was made again at {revision}"));
            }
            for (ordinal, (was, is)) in before.effects.iter().zip(&plan.effects).enumerate() {
                if was.state() == EffectState::Done && is.state() != EffectState::Done {
                    found.push(format!(
                        "{name}: write {ordinal} was done and is {:?} at {revision}",
                        is.state()
                    ));
                }
            }
        }
    }
    for plan in &history.last.plans {
        let name = format!("the plan of {} for {}", plan.plugin, plan.guid);
        if plan.dead {
            found.push(format!("{name} was given up: {}", plan.error));
        }
        for (ordinal, effect) in plan.effects.iter().enumerate() {
            if effect.state() != EffectState::Done {
                found.push(format!(
                    "{name}: write {ordinal} is {:?} in the end: {}",
                    effect.state(),
                    effect.error
                ));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::testing::{batch, good, judged};
    use super::*;

    #[test]
    fn an_acknowledged_delivery_that_is_lost_is_caught() {
        let mut history = good();
        history.last.deliveries.clear();
        assert!(judged(&history).contains("delivery g1 was acknowledged and is lost"));
    }

    #[test]
    fn an_acknowledged_delivery_that_is_not_handled_is_caught() {
        let mut history = good();
        history.last.deliveries[0].set_state(DeliveryState::Planned);
        assert!(judged(&history).contains("delivery g1 was acknowledged but is Planned"));
    }

    #[test]
    fn a_plugin_that_did_not_settle_is_caught() {
        let mut history = good();
        history.last.deliveries[0].settled.clear();
        assert!(judged(&history).contains("delivery g1 is handled, but not by [\"trigger\"]"));
    }

    #[test]
    fn a_delivery_received_twice_is_caught() {
        let mut history = good();
        let mut again = history.last.deliveries[0].clone();
        again.revision = 90;
        for watched in &mut history.watched {
            watched
                .batches
                .push(batch(90, [Record::Delivery(again.clone())]));
        }
        assert!(judged(&history).contains("delivery g1 was received at 2 and again at 90"));
    }

    #[test]
    fn a_delivery_handled_twice_is_caught() {
        let mut history = good();
        let handled = history.last.deliveries[0].clone();
        let mut planned = handled.clone();
        planned.set_state(DeliveryState::Planned);
        for watched in &mut history.watched {
            watched
                .batches
                .push(batch(90, [Record::Delivery(planned.clone())]));
            watched
                .batches
                .push(batch(91, [Record::Delivery(handled.clone())]));
        }
        let judged = judged(&history);
        assert!(judged.contains("delivery g1 went from Handled back to Planned at 90"));
        assert!(judged.contains("delivery g1 was handled 2 times"));
    }

    #[test]
    fn a_plan_made_twice_is_caught() {
        let mut history = good();
        let mut again = history.last.plans[0].clone();
        again.planned_ms += 1;
        for watched in &mut history.watched {
            watched
                .batches
                .push(batch(90, [Record::Plan(again.clone())]));
        }
        assert!(judged(&history).contains("the plan of trigger for g1 was made again at 90"));
    }

    #[test]
    fn a_write_that_was_given_up_is_caught() {
        let mut history = good();
        history.last.plans[0].effects[0].set_state(EffectState::Dead);
        assert!(judged(&history).contains("write 0 is Dead in the end"));
    }
}
