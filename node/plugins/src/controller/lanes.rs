//! Lanes: one plugin's deliveries about one subject, one after the other.

use std::collections::BTreeMap;

use trireme_office::{Share, Work};
use trireme_proto::state::{Delivery, DeliveryState};
use trireme_state::{Seq, arrival, is_committed};

use super::inbox::Subject;
use super::{LANES_ELSEWHERE, LANES_OF_PLUGIN, LANES_OF_REPO, Session, forward};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lane {
    pub(super) plugin: String,
    pub(super) subject: Subject,
}

impl Lane {
    /// What its work may have to wait for together with that of other lanes.
    pub(super) fn shares(&self) -> Vec<Share> {
        let mut shares = vec![
            Share {
                of: format!("plugin {}", self.plugin),
                most: LANES_OF_PLUGIN,
            },
            Share {
                of: self.subject.repository(),
                most: LANES_OF_REPO,
            },
        ];
        if self.plugin.starts_with(forward::PREFIX) {
            shares.push(Share {
                of: "plugins elsewhere".to_owned(),
                most: LANES_ELSEWHERE,
            });
        }
        shares
    }

    /// Whether the delivery waits here.
    fn is_open(&self, delivery: &Delivery) -> bool {
        delivery.state() == DeliveryState::Planned && !delivery.settled.contains(&self.plugin)
    }
}

/// Open deliveries where they wait, in order of arrival. Follows from the state alone.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    received: BTreeMap<Subject, BTreeMap<Seq, String>>,
    planned: BTreeMap<Lane, BTreeMap<Seq, String>>,
}

impl Waiting {
    pub(super) fn add_received(&mut self, subject: &Subject, seq: Seq, guid: &str) {
        add(&mut self.received, subject, seq, guid);
    }

    pub(super) fn add_planned(&mut self, lane: &Lane, seq: Seq, guid: &str) {
        add(&mut self.planned, lane, seq, guid);
    }

    pub(super) fn first_received(&self, subject: &Subject) -> Option<(Seq, String)> {
        first(&self.received, subject)
    }

    pub(super) fn remove_received(&mut self, subject: &Subject, seq: Seq) {
        remove(&mut self.received, subject, seq);
    }

    pub(super) fn keys(&self) -> (Vec<Subject>, Vec<Lane>) {
        (
            self.received.keys().cloned().collect(),
            self.planned.keys().cloned().collect(),
        )
    }
}

type Queues<K> = BTreeMap<K, BTreeMap<Seq, String>>;

fn add<K: Ord + Clone>(queues: &mut Queues<K>, key: &K, seq: Seq, guid: &str) {
    let queue = queues.entry(key.clone()).or_default();
    queue.entry(seq).or_insert_with(|| guid.to_owned());
}

fn first<K: Ord>(queues: &Queues<K>, key: &K) -> Option<(Seq, String)> {
    let (seq, guid) = queues.get(key)?.first_key_value()?;
    Some((*seq, guid.clone()))
}

fn remove<K: Ord>(queues: &mut Queues<K>, key: &K, seq: Seq) {
    if let Some(queue) = queues.get_mut(key) {
        queue.remove(&seq);
        if queue.is_empty() {
            queues.remove(key);
        }
    }
}

impl Session {
    /// Works off the lane until it is empty or something stands in its way.
    pub(super) async fn work(&self, lane: Lane) -> Work {
        loop {
            let Some((seq, guid)) = first(&self.waiting().planned, &lane) else {
                return Work::Done;
            };
            if let Err(work) = self.advance(&lane, &guid).await {
                return work;
            }
            remove(&mut self.waiting().planned, &lane, seq);
            // Redriven since it was found done, it was noted while it still stood here.
            if let Some(delivery) = self.office.view().delivery(&guid)
                && lane.is_open(delivery)
            {
                self.waiting().add_planned(&lane, arrival(delivery), &guid);
            }
        }
    }

    /// Decides and carries out one delivery; what is done already is not done again.
    async fn advance(&self, lane: &Lane, guid: &str) -> Result<(), Work> {
        let view = self.office.view();
        let open = view
            .delivery(guid)
            .filter(|delivery| lane.is_open(delivery));
        let Some(delivery) = open else {
            return Ok(());
        };
        let decided = view
            .plan(guid, &lane.plugin)
            .is_some_and(|plan| is_committed(plan));
        if !decided {
            self.ask_leave(&delivery.org)?;
            self.decide(lane, delivery).await?;
        }
        self.carry_out(lane, guid).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hook_027_deliveries_wait_in_order_of_arrival() {
        let seq = |revision| Seq {
            revision,
            ordinal: 0,
        };
        let subject = Subject::of(&trireme_proto::state::Delivery::default());
        let mut waiting = Waiting::default();
        waiting.add_received(&subject, seq(7), "b");
        waiting.add_received(&subject, seq(3), "a");
        waiting.add_received(&subject, seq(3), "a");
        assert_eq!(waiting.first_received(&subject), Some((seq(3), "a".into())));
        waiting.remove_received(&subject, seq(3));
        assert_eq!(waiting.first_received(&subject), Some((seq(7), "b".into())));
        waiting.remove_received(&subject, seq(7));
        assert_eq!(waiting.first_received(&subject), None);
        assert_eq!(waiting.keys(), (vec![], vec![]));
    }
}
