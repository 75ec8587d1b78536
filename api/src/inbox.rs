//! Deliveries as people look at them: those in memory, and those that left it for this node's archive.

mod said;

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use bytes::Bytes;
use tonic::Status;
use trireme_proto::state::{BlobRef, Delivery, Plan};
use trireme_raft::ArchiveReader;
use trireme_state::{
    DeliveryFilter, Seq, State,
    archive_keys::{self as keys, Key},
    arrival,
};

pub use said::{Said, Words, about, delivery_word, effect_word, event, outcome_words, said, words};

use crate::{MAX_WEBHOOK_BYTES, archived, blob};

/// Archived deliveries that are looked at for one page: beyond, the page ends early.
const MAX_ARCHIVED: usize = 2000;

/// Headers whose values are for those alone whom the webhook is for.
const HIDDEN: [&str; 4] = [
    "authorization",
    "cookie",
    "x-hub-signature",
    "x-hub-signature-256",
];

/// A delivery's headers as viewers may see them: with its signature a payload could be sent again by anybody, as a
/// delivery of another id.
pub fn hide_secrets(delivery: &mut Delivery) {
    for header in &mut delivery.headers {
        if HIDDEN.contains(&header.name.as_str()) {
            header.value = Bytes::from_static(b"(hidden)");
        }
    }
}

/// One page of a listing.
#[derive(Debug, Clone, Default)]
pub struct Listed {
    /// Newest first.
    pub deliveries: Vec<Arc<Delivery>>,
    /// Of these, by delivery and plugin.
    pub plans: Vec<Arc<Plan>>,
    /// Where the next page begins, if there may be one: a page may be short.
    pub next: Option<Seq>,
}

/// One delivery with all that is known of it, but [what is hidden](hide_secrets).
#[derive(Debug, Clone)]
pub struct Whole {
    pub delivery: Arc<Delivery>,
    pub plans: Vec<Arc<Plan>>,
    /// As the forge sent it; `None` if the archive has none.
    pub payload: Option<Bytes>,
    /// It left memory: nothing is done about it any more.
    pub archived: bool,
}

/// At most `size` deliveries in memory.
#[must_use]
pub fn list(state: &State, filter: &DeliveryFilter, size: usize) -> Listed {
    let page = state.find_deliveries(filter, size);
    let plans = page
        .deliveries
        .iter()
        .flat_map(|delivery| state.plans_of(&delivery.guid).cloned())
        .collect();
    Listed {
        plans,
        deliveries: page.deliveries,
        next: page.next,
    }
}

/// At most `size` deliveries in memory or in the archive.
///
/// # Errors
/// If the archive cannot be read.
pub async fn list_all(
    archive: &ArchiveReader,
    state: &State,
    filter: &DeliveryFilter,
    size: usize,
) -> Result<Listed, Status> {
    let in_memory = list(state, filter, size);
    // What is not handled is in memory.
    let left = match filter.unhandled {
        true => Listed::default(),
        false => list_archived(archive, filter, size).await?,
    };
    Ok(merged(in_memory, left, size))
}

/// The newest of both. A page reaches no further down than each of them was looked at.
fn merged(one: Listed, other: Listed, size: usize) -> Listed {
    let reaches = one.next.max(other.next);
    let mut deliveries: BTreeMap<Seq, Arc<Delivery>> = BTreeMap::new();
    // Where both have it, because it is just leaving, memory is right.
    for delivery in other.deliveries.into_iter().chain(one.deliveries) {
        let seq = arrival(&delivery);
        if reaches.is_none_or(|last| seq >= last) {
            deliveries.insert(seq, delivery);
        }
    }
    let mut next = reaches;
    if let Some((last, _)) = deliveries.iter().rev().nth(size.saturating_sub(1))
        && deliveries.len() > size
    {
        next = Some(*last);
    }
    let deliveries: Vec<_> = deliveries.into_values().rev().take(size).collect();
    let mut plans: BTreeMap<(String, String), Arc<Plan>> = BTreeMap::new();
    for plan in other.plans.into_iter().chain(one.plans) {
        if deliveries.iter().any(|delivery| delivery.guid == plan.guid) {
            plans.insert((plan.guid.clone(), plan.plugin.clone()), plan);
        }
    }
    Listed {
        deliveries,
        plans: plans.into_values().collect(),
        next,
    }
}

async fn list_archived(
    archive: &ArchiveReader,
    filter: &DeliveryFilter,
    size: usize,
) -> Result<Listed, Status> {
    let all = Key::new(keys::DELIVERY_IN_ORDER);
    let mut from = match filter.before {
        // Keys of later arrivals come first.
        Some(before) => Bound::Included(keys::delivery_in_order(before).prefix()),
        None => Bound::Included(all.clone().prefix()),
    };
    let all = all.prefix();
    let mut listed = Listed::default();
    let mut last = None;
    let mut looked_at = 0;
    'read: loop {
        let rows = archived::records(archive, &all, from).await?;
        let Some(next) = rows.last().map(|row| row.next.clone()) else {
            break;
        };
        for row in rows {
            if listed.deliveries.len() >= size || looked_at >= MAX_ARCHIVED {
                listed.next = last;
                break 'read;
            }
            looked_at += 1;
            let delivery: Delivery = archived::decode(&row.record)?;
            last = Some(arrival(&delivery));
            if !filter.matches(&delivery) {
                continue;
            }
            let plans = plans_of(archive, &delivery.guid).await?;
            if filter.dead && !plans.iter().any(|plan| filter.wants_plan(plan)) {
                continue;
            }
            listed.plans.extend(plans);
            listed.deliveries.push(Arc::new(delivery));
        }
        from = next;
    }
    Ok(listed)
}

async fn plans_of(archive: &ArchiveReader, guid: &str) -> Result<Vec<Arc<Plan>>, Status> {
    let prefix = keys::plans_of(guid).prefix();
    let mut from = Bound::Included(prefix.clone());
    let mut plans = Vec::new();
    // A delivery has a bounded number of plugins.
    loop {
        let rows = archived::records(archive, &prefix, from).await?;
        let Some(next) = rows.last().map(|row| row.next.clone()) else {
            return Ok(plans);
        };
        for row in rows {
            plans.push(Arc::new(archived::decode(&row.record)?));
        }
        from = next;
    }
}

/// A delivery, its plans and its payload, wherever they are; `None` if there is no such delivery.
///
/// # Errors
/// If the archive cannot be read, or what is there is damaged.
pub async fn find(
    archive: &ArchiveReader,
    state: &State,
    guid: &str,
) -> Result<Option<Whole>, Status> {
    let lost = |why: &dyn std::fmt::Display| Status::data_loss(why.to_string());
    if let Some(delivery) = state.delivery(guid) {
        let payload = match &delivery.blob {
            Some(name) => blob::read(state, name).map_err(|why| lost(&why))?,
            None => blob::decompress(&delivery.payload_zstd, MAX_WEBHOOK_BYTES)
                .map_err(|why| lost(&why))?,
        };
        return Ok(Some(Whole {
            delivery: shown(Delivery::clone(delivery)),
            plans: state.plans_of(guid).cloned().collect(),
            payload: Some(payload),
            archived: false,
        }));
    }
    let Some(record) = archived::record(archive, keys::delivery(guid)).await? else {
        return Ok(None);
    };
    let delivery: Delivery = archived::decode(&record)?;
    let payload = match &delivery.blob {
        Some(name) => archived_blob(archive, name).await?,
        None => Some(
            blob::decompress(&delivery.payload_zstd, MAX_WEBHOOK_BYTES)
                .map_err(|why| lost(&why))?,
        ),
    };
    Ok(Some(Whole {
        delivery: shown(delivery),
        plans: plans_of(archive, guid).await?,
        payload,
        archived: true,
    }))
}

fn shown(mut delivery: Delivery) -> Arc<Delivery> {
    hide_secrets(&mut delivery);
    Arc::new(delivery)
}

async fn archived_blob(archive: &ArchiveReader, name: &BlobRef) -> Result<Option<Bytes>, Status> {
    let Some(packed) = archived::record(archive, keys::blob(&name.sha256)).await? else {
        return Ok(None);
    };
    let payload = blob::decompress(&packed, MAX_WEBHOOK_BYTES);
    payload
        .map(Some)
        .map_err(|why| Status::data_loss(why.to_string()))
}

#[cfg(test)]
mod tests {
    use trireme_proto::state::Header;

    use super::*;

    fn listed(revisions: &[u64], next: Option<u64>) -> Listed {
        let seq = |revision| Seq {
            revision,
            ordinal: 0,
        };
        let delivery = |revision: &u64| {
            Arc::new(Delivery {
                guid: revision.to_string(),
                revision: *revision,
                ..Delivery::default()
            })
        };
        Listed {
            deliveries: revisions.iter().map(delivery).collect(),
            plans: Vec::new(),
            next: next.map(seq),
        }
    }

    fn told(listed: &Listed) -> (Vec<u64>, Option<u64>) {
        let revisions = listed.deliveries.iter().map(|delivery| delivery.revision);
        (revisions.collect(), listed.next.map(|next| next.revision))
    }

    #[test]
    fn nobody_is_shown_what_a_payload_could_be_sent_again_with() {
        let header = |name: &str| Header {
            name: name.to_owned(),
            value: "value".into(),
        };
        let names = [
            "x-hub-signature-256",
            "x-github-event",
            "x-hub-signature",
            "cookie",
        ];
        let mut delivery = Delivery {
            headers: names.map(header).to_vec(),
            ..Delivery::default()
        };
        hide_secrets(&mut delivery);
        let shown = delivery.headers.iter().map(|header| &header.value[..]);
        let hidden: &[u8] = b"(hidden)";
        assert_eq!(
            shown.collect::<Vec<_>>(),
            [hidden, b"value", hidden, hidden]
        );
    }

    #[test]
    fn memory_and_archive_are_one_list() {
        // An old one that is still open stands between archived ones.
        let merge = |one, other, size| told(&merged(one, other, size));
        assert_eq!(
            merge(listed(&[9, 4], None), listed(&[7, 3], None), 9),
            (vec![9, 7, 4, 3], None)
        );
        assert_eq!(
            merge(listed(&[9, 4], None), listed(&[7, 3], None), 2),
            (vec![9, 7], Some(7))
        );
        // Below 5 the archive was not looked at yet.
        assert_eq!(
            merge(listed(&[9, 4], None), listed(&[7], Some(5)), 9),
            (vec![9, 7], Some(5))
        );
        assert_eq!(
            merge(listed(&[9], None), listed(&[9], None), 9),
            (vec![9], None)
        );
    }
}
