//! A state that begins a cluster of its own: restored from a saved file, or recovered from the last disk of a cluster
//! that lost its quorum.

use std::sync::Arc;

use trireme_proto::state::Office;

use crate::{State, office::office_hash};

impl State {
    /// This state as the first of a new cluster, at log index `index`, which must not be before its own.
    ///
    /// The office ends: its term is one of the former cluster's, and only a later term could take it over. Alarms that
    /// one node raised about itself go with the nodes; what still holds is raised again. Everything else stays: leases
    /// follow the rule for a new leader (a whole period for every agent, then they are lost), an open intent is observed
    /// before it is acted on because the office that opened it is not the present one, deliveries and client requests
    /// are remembered, the feature level never falls.
    #[must_use]
    pub fn for_new_cluster(&self, index: u64) -> Self {
        let mut next = self.clone();
        next.last_index = self.last_index.max(index);
        if next.office.epoch != 0 {
            next.digest.sub(&office_hash(&next.office));
            next.office = Arc::new(Office::default());
        }
        let gone: Vec<String> = self
            .alarms()
            .filter(|alarm| alarm.node_id != 0)
            .map(|alarm| alarm.key.clone())
            .collect();
        for key in gone {
            next.alarms.forget(&mut next.digest, &key);
        }
        next
    }
}
