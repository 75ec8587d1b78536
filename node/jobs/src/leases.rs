//! When the leader last heard of each agent.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};
use trireme_api::LeaseRenewals;
use trireme_proto::api::RunningJob;

/// How long a lease holds after the agent's last sign of life.
const PERIOD: Duration = Duration::from_secs(30);

/// Shared by the scheduler, which reads it, and the doors, which renew. Cheap to clone; empty while out of office.
#[derive(Debug, Clone)]
pub struct Leases {
    period: Duration,
    inner: Arc<Mutex<Inner>>,
    /// An agent was heard of that may be given work from now on.
    heard_anew: Arc<Notify>,
}

impl Default for Leases {
    fn default() -> Self {
        Self::with_period(PERIOD)
    }
}

#[derive(Debug, Default)]
struct Inner {
    table: Option<Table>,
    /// What the last office knew.
    former: BTreeMap<String, Known>,
}

#[derive(Debug)]
struct Table {
    /// Nobody is given up before every lease had one full period under this office.
    taken: Instant,
    agents: BTreeMap<String, Known>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    incarnation: u64,
    /// When its period began: with its last sign of life, or when it was first looked at.
    since: Instant,
    /// It gave a sign of life under this office. One that did not may have died long ago, or be about to register
    /// anew: its leases hold for their period, but it gets no more.
    heard: bool,
}

impl Leases {
    /// Leases that hold this long after the agent's last sign of life, in whole seconds; the same on all nodes.
    #[must_use]
    pub fn with_period(period: Duration) -> Self {
        Self {
            period,
            inner: Arc::default(),
            heard_anew: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an office: every lease holds for one full period from now. Agents that this very node heard of less than
    /// a period ago, before it lost the office for a moment, count as heard of.
    pub(crate) fn take_office(&self) {
        let now = Instant::now();
        let mut inner = self.lock();
        let mut agents = std::mem::take(&mut inner.former);
        agents.retain(|_, known| known.heard && known.since + self.period > now);
        for known in agents.values_mut() {
            known.since = now;
        }
        inner.table = Some(Table { taken: now, agents });
    }

    /// Ends it: renewals are refused until the next.
    pub(crate) fn leave_office(&self) {
        let mut inner = self.lock();
        if let Some(table) = inner.table.take() {
            inner.former = table.agents;
        }
    }

    /// Starts an agent's period unless it has one.
    pub(crate) fn know(&self, agent_id: &str, incarnation: u64) {
        if let Some(table) = &mut self.lock().table {
            let fresh = Known {
                incarnation,
                since: Instant::now(),
                heard: false,
            };
            let known = table.agents.entry(agent_id.to_owned()).or_insert(fresh);
            // A door may know of a newer one already.
            if known.incarnation < incarnation {
                *known = fresh;
            }
        }
    }

    /// Forgets agents that are gone from the state, unless they were heard of just now: a door may be ahead.
    pub(crate) fn keep_only(&self, keep: impl Fn(&str) -> bool) {
        if let Some(table) = &mut self.lock().table {
            let period = self.period;
            table
                .agents
                .retain(|agent_id, known| keep(agent_id) || known.since.elapsed() < period);
        }
    }

    /// Whether this incarnation of the agent gave a sign of life under this office, at most a period ago.
    pub(crate) fn is_heard(&self, agent_id: &str, incarnation: u64) -> bool {
        let inner = self.lock();
        let known = inner
            .table
            .as_ref()
            .and_then(|table| table.agents.get(agent_id));
        known.is_some_and(|known| {
            known.heard && known.incarnation == incarnation && known.since.elapsed() < self.period
        })
    }

    /// Waits until an agent is heard of that was not before.
    pub(crate) async fn heard_anew(&self) {
        self.heard_anew.notified().await;
    }

    /// Until when the agent's leases hold.
    pub(crate) fn holds_until(&self, agent_id: &str) -> Option<Instant> {
        let inner = self.lock();
        let table = inner.table.as_ref()?;
        let since = table
            .agents
            .get(agent_id)
            .map_or(table.taken, |known| known.since);
        Some(since + self.period)
    }
}

impl LeaseRenewals for Leases {
    fn period(&self) -> Duration {
        self.period
    }

    fn renew(&self, agent_id: &str, incarnation: u64, _: &[RunningJob]) -> Option<Duration> {
        let now = Known {
            incarnation,
            since: Instant::now(),
            heard: true,
        };
        let mut inner = self.lock();
        let agents = &mut inner.table.as_mut()?.agents;
        if agents
            .get(agent_id)
            .is_some_and(|known| known.incarnation > incarnation)
        {
            return None;
        }
        let former = agents.insert(agent_id.to_owned(), now);
        drop(inner);
        if former.is_none_or(|former| !former.heard || former.incarnation != incarnation) {
            self.heard_anew.notify_one();
        }
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
        leases.know("a", 2);
        assert!(!leases.is_heard("a", 2), "not under this office");
        tokio::time::advance(Duration::from_secs(20)).await;
        assert_eq!(leases.renew("a", 1, &[]), None, "a former incarnation");
        assert_eq!(leases.renew("a", 2, &[]), Some(PERIOD));
        leases.heard_anew().await;
        assert!(leases.is_heard("a", 2) && !leases.is_heard("a", 3));
        leases.know("a", 2);
        assert_eq!(
            leases.holds_until("a"),
            Some(start + Duration::from_secs(20) + PERIOD)
        );
        tokio::time::advance(PERIOD).await;
        assert!(!leases.is_heard("a", 2), "not lately");
        leases.leave_office();
        assert_eq!(leases.holds_until("a"), None);
    }

    /// Heard of by another node meanwhile or not: what counts is that it was alive a moment ago.
    #[tokio::test(start_paused = true)]
    async fn an_office_lost_for_a_moment_knows_whom_it_heard() {
        let leases = Leases::default();
        leases.take_office();
        for (agent, after) in [("early", 0), ("late", 20)] {
            tokio::time::advance(Duration::from_secs(after)).await;
            leases.renew(agent, 1, &[]);
        }
        leases.leave_office();
        assert!(!leases.is_heard("late", 1));
        tokio::time::advance(Duration::from_secs(10)).await;
        leases.take_office();
        assert!(leases.is_heard("late", 1) && !leases.is_heard("early", 1));
        assert_eq!(leases.holds_until("late"), Some(Instant::now() + PERIOD));
    }

    /// A door of the leader may hear of an agent before the scheduler has looked at the state that has it.
    #[tokio::test(start_paused = true)]
    async fn a_door_may_be_ahead_of_the_scheduler() {
        let leases = Leases::default();
        leases.take_office();
        assert_eq!(leases.renew("a", 5, &[]), Some(PERIOD));
        leases.keep_only(|_| false);
        leases.know("a", 3);
        assert!(leases.is_heard("a", 5));
        tokio::time::advance(PERIOD).await;
        leases.keep_only(|_| false);
        assert_eq!(leases.holds_until("a"), Some(Instant::now()), "forgotten");
    }
}
