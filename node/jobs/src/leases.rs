//! When the leader last heard of each agent.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use trireme_api::LeaseRenewals;
use trireme_proto::api::RunningJob;

/// How long a lease holds after the agent's last sign of life.
const PERIOD: Duration = Duration::from_secs(30);

/// Shared by the scheduler, which reads it, and the doors, which renew. Cheap to clone; empty while out of office.
#[derive(Debug, Clone)]
pub struct Leases {
    period: Duration,
    inner: Arc<Mutex<Option<Table>>>,
}

impl Default for Leases {
    fn default() -> Self {
        Self::with_period(PERIOD)
    }
}

#[derive(Debug)]
struct Table {
    /// Nobody is given up before every lease had one full period under this office.
    taken: Instant,
    /// Agent -> (incarnation, when it was last heard of).
    heard: BTreeMap<String, (u64, Instant)>,
}

impl Leases {
    /// Leases that hold this long after the agent's last sign of life, in whole seconds; the same on all nodes.
    #[must_use]
    pub fn with_period(period: Duration) -> Self {
        Self {
            period,
            inner: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Table>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an office: every lease holds for one full period from now.
    pub(crate) fn take_office(&self) {
        *self.lock() = Some(Table {
            taken: Instant::now(),
            heard: BTreeMap::new(),
        });
    }

    /// Ends it: renewals are refused until the next.
    pub(crate) fn leave_office(&self) {
        *self.lock() = None;
    }

    /// Starts an agent's period unless it has one.
    pub(crate) fn know(&self, agent_id: &str, incarnation: u64) {
        if let Some(table) = &mut *self.lock() {
            let now = Instant::now();
            let heard = table
                .heard
                .entry(agent_id.to_owned())
                .or_insert((incarnation, now));
            if heard.0 != incarnation {
                *heard = (incarnation, now);
            }
        }
    }

    /// Forgets an agent that is gone from the state.
    pub(crate) fn keep_only(&self, keep: impl Fn(&str) -> bool) {
        if let Some(table) = &mut *self.lock() {
            table.heard.retain(|agent_id, _| keep(agent_id));
        }
    }

    /// Until when the agent's leases hold.
    pub(crate) fn holds_until(&self, agent_id: &str) -> Option<Instant> {
        let inner = self.lock();
        let table = inner.as_ref()?;
        let heard = table
            .heard
            .get(agent_id)
            .map_or(table.taken, |heard| heard.1);
        Some(heard + self.period)
    }
}

impl LeaseRenewals for Leases {
    fn period(&self) -> Duration {
        self.period
    }

    fn renew(&self, agent_id: &str, incarnation: u64, _: &[RunningJob]) -> Option<Duration> {
        let mut inner = self.lock();
        let heard = inner.as_mut()?.heard.get_mut(agent_id)?;
        if heard.0 != incarnation {
            return None;
        }
        heard.1 = Instant::now();
        Some(self.period)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A lease holds one period from the last renewal, and one from a new office.
    #[tokio::test(start_paused = true)]
    async fn a_lease_holds_a_period_from_its_last_renewal() {
        let leases = Leases::default();
        assert_eq!(leases.renew("a", 1, &[]), None, "out of office");
        leases.take_office();
        let start = Instant::now();
        assert_eq!(leases.holds_until("a"), Some(start + PERIOD));
        leases.know("a", 1);
        tokio::time::advance(Duration::from_secs(20)).await;
        assert_eq!(leases.renew("a", 2, &[]), None, "another incarnation");
        assert_eq!(leases.renew("a", 1, &[]), Some(PERIOD));
        leases.know("a", 1);
        assert_eq!(
            leases.holds_until("a"),
            Some(start + Duration::from_secs(20) + PERIOD)
        );
        leases.leave_office();
        assert_eq!(leases.holds_until("a"), None);
    }
}
