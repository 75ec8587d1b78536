//! The leader tells whose clock is too far off the others'.
//!
//! It measures them all anyway, to stamp by their median. Whoever is off by more than [`MAX_SKEW_MS`] must not lead, which
//! see `take_lead`: until its clock is right the cluster has one node fewer to fall back on.

use std::{sync::Weak, time::Duration};

use super::{Inner, Started, alarm::look_on_leader, clock::MAX_SKEW_MS};

/// An alarm is lowered below this.
const CLEAR_MS: u64 = MAX_SKEW_MS.unsigned_abs() / 2;
/// What its key begins with; the node's id follows.
const KEY: &str = "clock/node-";

pub(super) async fn run(inner: Weak<Inner>) {
    // No other clock is read more often.
    look_on_leader(
        inner,
        |inner| inner.timing.hello_interval,
        Inner::tell_skews,
    )
    .await;
}

impl Inner {
    async fn tell_skews(&self, started: &Started) {
        let view = self.published.view();
        let voters: Vec<u64> = view.voters().into_iter().collect();
        let members: Vec<u64> = view.nodes().iter().map(|node| node.id).collect();
        let floor_ms = view.last_stamp_ms();
        let clocks = started
            .clock
            .ahead_ms(self.node_id, &voters, &members, floor_ms);
        for (id, ahead_ms) in clocks {
            let key = format!("{KEY}{id}");
            if let Some(message) = due(id, ahead_ms, view.alarm(&key).is_some()) {
                self.set_alarm(&key, message).await;
            }
        }
        // Who was removed has no clock here any more.
        for alarm in view.alarms() {
            let id = alarm.key.strip_prefix(KEY).and_then(|id| id.parse().ok());
            if id.is_some_and(|id| !members.contains(&id)) {
                self.set_alarm(&alarm.key, None).await;
            }
        }
    }
}

/// The alarm to raise, or that it is to be lowered, or nothing to do.
fn due(id: u64, ahead_ms: i64, raised: bool) -> Option<Option<String>> {
    let off_ms = ahead_ms.unsigned_abs();
    if !raised && off_ms > MAX_SKEW_MS.unsigned_abs() {
        let off = Duration::from_millis(off_ms);
        let side = match ahead_ms > 0 {
            true => "ahead of",
            false => "behind",
        };
        return Some(Some(format!(
            "the clock of node {id} is {off:?} {side} the median of the voters': a node so far off must not lead. Mend the \
             time synchronisation of its host"
        )));
    }
    (raised && off_ms < CLEAR_MS).then_some(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_is_raised_once_and_lowered_with_some_distance() {
        assert_eq!(due(3, 2000, false), None);
        assert_eq!(due(3, -2000, false), None);
        insta::assert_snapshot!(due(3, 2001, false).unwrap().unwrap(), @"the clock of node 3 is 2.001s ahead of the median of the voters': a node so far off must not lead. Mend the time synchronisation of its host");
        insta::assert_snapshot!(due(3, -3_600_000, false).unwrap().unwrap(), @"the clock of node 3 is 3600s behind the median of the voters': a node so far off must not lead. Mend the time synchronisation of its host");
        assert_eq!(due(3, 5000, true), None);
        assert_eq!(due(3, 1000, true), None);
        assert_eq!(due(3, -1000, true), None);
        assert_eq!(due(3, 999, true), Some(None));
        assert_eq!(due(3, 0, false), None);
    }
}
