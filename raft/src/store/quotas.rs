//! The leader tells when a kind of record comes near its bound.

use std::{sync::Weak, time::Duration};

use trireme_state::Quota;

use super::{Inner, Started, alarm::look_on_leader};

/// Between looks.
const LOOK: Duration = Duration::from_secs(5);
/// An alarm is raised from this share on ...
const ALARM_PERCENT: u64 = 85;
/// ... and lowered below this one.
const CLEAR_PERCENT: u64 = 80;

pub(super) async fn run(inner: Weak<Inner>) {
    look_on_leader(inner, |_| LOOK, tell_quotas).await;
}

async fn tell_quotas(inner: &Inner, _: &Started) {
    let view = inner.published.view();
    for quota in view.quotas() {
        let key = format!("quota/{}", quota.kind);
        if let Some(message) = due(&quota, view.alarm(&key).is_some()) {
            inner.set_alarm(&key, message).await;
        }
    }
}

/// The alarm to raise, or that it is to be lowered, or nothing to do.
fn due(quota: &Quota, raised: bool) -> Option<Option<String>> {
    if !raised && quota.percent() >= ALARM_PERCENT {
        return Some(Some(format!(
            "{} of at most {} {} are there ({} %): at the bound new ones are refused. Look for what makes them, and for \
             what keeps them from being finished",
            quota.used,
            quota.limit,
            quota.kind,
            quota.percent()
        )));
    }
    (raised && quota.percent() < CLEAR_PERCENT).then_some(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_is_raised_once_and_lowered_with_some_distance() {
        let quota = |used| Quota {
            kind: "job",
            used,
            limit: 100,
        };
        assert_eq!(due(&quota(84), false), None);
        insta::assert_snapshot!(due(&quota(85), false).unwrap().unwrap(), @"85 of at most 100 job are there (85 %): at the bound new ones are refused. Look for what makes them, and for what keeps them from being finished");
        assert_eq!(due(&quota(99), true), None);
        assert_eq!(due(&quota(80), true), None);
        assert_eq!(due(&quota(79), true), Some(None));
    }
}
