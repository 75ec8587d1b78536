//! After everything was healed: does the cluster come to rest, and is what it shows then what it promised?

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::time::{Instant, sleep};
use trireme_proto::state::{Delivery, IntentState, Job};
use trireme_raft::Store;
use trireme_state::{JobFilter, archive_keys, is_complete};

use super::{cluster::Cluster, reporter::REPORTER};
use crate::{DigestAt, History, Last, archive::each_page, checks};

/// Nothing disturbs any more: leases expire, lost agents come back, all work is done within this.
const REST: Duration = Duration::from_secs(150);
const LOOK: Duration = Duration::from_millis(100);
/// Archives are written off the path of acknowledgements.
const ARCHIVED: Duration = Duration::from_secs(20);

/// A cluster in which nothing is left to do.
pub(crate) struct Rested {
    stores: BTreeMap<u64, Store>,
    /// Of all nodes at one revision: an audit may be the next.
    digests: Vec<DigestAt>,
}

/// Every node's store, once all have applied the same and nothing is left to do; why not otherwise.
pub(crate) async fn rest(cluster: &Cluster) -> Result<Rested, String> {
    let deadline = Instant::now() + REST;
    loop {
        let unrest = match unrest(cluster) {
            Ok(rested) => return Ok(rested),
            Err(unrest) => unrest,
        };
        if Instant::now() >= deadline {
            return Err(format!(
                "no rest within {} s after everything was healed: {unrest}",
                REST.as_secs()
            ));
        }
        sleep(LOOK).await;
    }
}

fn unrest(cluster: &Cluster) -> Result<Rested, String> {
    let mut stores = BTreeMap::new();
    for id in cluster.ids() {
        let up = cluster.up(id).ok_or(format!("node {id} does not run"))?;
        stores.insert(id, up.store);
    }
    let mut seen = BTreeSet::new();
    let mut digests = Vec::new();
    for (id, store) in &stores {
        let status = store.status();
        if !store.is_recovered() {
            return Err(format!("node {id} has not recovered: {status:?}"));
        }
        if status.leader.is_none() {
            return Err(format!("node {id} knows no leader: {status:?}"));
        }
        if let Some(lost) = &status.archive_lost {
            return Err(format!("node {id} lacks archived rows: {lost}"));
        }
        seen.insert((status.revision, status.leader));
        digests.push(DigestAt {
            node: *id,
            revision: status.revision,
            digest: status.digest,
        });
        let view = store.view();
        // A clock may be left wrong, and is then told.
        if let Some(alarm) = view.alarms().find(|alarm| !alarm.key.starts_with("clock/")) {
            return Err(format!("node {id}: {}: {}", alarm.key, alarm.message));
        }
        if let Some(open) = view.open_deliveries().next() {
            return Err(format!("node {id}: delivery {} is open", open.guid));
        }
        let mut intents = view.intents();
        if let Some(intent) = intents.find(|intent| intent.state() == IntentState::Open) {
            return Err(format!("node {id}: the merge of {} is open", intent.number));
        }
        if let Some(report) = view.reports_owed().next() {
            return Err(format!(
                "node {id}: {} is owed word of job {}: {}",
                report.reporter, report.job_id, report.error
            ));
        }
        let mut jobs = view.jobs_newest_first(JobFilter::default());
        if let Some(job) = jobs.find(|job| !is_complete(job)) {
            return Err(format!("node {id}: job {} is {:?}", job.id, job.state()));
        }
    }
    let unmerged = cluster.forge().unmerged();
    if !unmerged.is_empty() {
        return Err(format!("pull requests {unmerged:?} are not merged"));
    }
    match seen.len() {
        1 => Ok(Rested { stores, digests }),
        _ => Err(format!("the nodes are at {seen:?} (revision, leader)")),
    }
}

type Rows = BTreeMap<Bytes, Bytes>;

async fn archived(store: &Store) -> Result<Rows, String> {
    let mut rows = Rows::new();
    let walked = each_page(store, |page| rows.extend(page)).await;
    walked.map_err(|error| error.to_string())?;
    Ok(rows)
}

/// Records of one kind: their chunks put together.
fn records<M: prost::Message + Default>(rows: &Rows, kind: u8) -> Result<Vec<M>, String> {
    let mut records: BTreeMap<Bytes, BytesMut> = BTreeMap::new();
    for (key, value) in rows.iter().filter(|(key, _)| key.first() == Some(&kind)) {
        // Each key ends with its chunk's number, each value begins with the count of chunks.
        let mut value = value.clone();
        value.advance(2.min(value.len()));
        let name = key.slice(..key.len().saturating_sub(2));
        records.entry(name).or_default().extend_from_slice(&value);
    }
    let decode = |record: BytesMut| M::decode(record.freeze()).map_err(|error| error.to_string());
    records.into_values().map(decode).collect()
}

/// Everything that was broken.
pub(crate) async fn judge(cluster: &Cluster, rested: Rested) -> Vec<String> {
    let Rested { stores, digests } = rested;
    let chronicle = cluster.chronicle();
    let mut broken = chronicle.take_broken();
    broken.extend(chronicle.gaps());
    if let Err(violation) = checks::linearizable::check(&chronicle.operations()) {
        broken.push(format!("registers are not linearizable: {violation}"));
    }
    let archive = match archives(&stores).await {
        Ok(archive) => archive,
        Err(why) => {
            broken.push(why);
            return broken;
        }
    };
    match history(cluster, &stores, digests, &archive) {
        Ok(history) => {
            broken.extend(checks::judge(&history).iter().map(ToString::to_string));
            broken.extend(untold(&history.last.jobs, &cluster.forge().all_told()));
        }
        Err(why) => broken.push(format!("what is archived cannot be read: {why}")),
    }
    // Whoever differs from the majority stops, which breaks a promise by itself.
    if chronicle.audits() == 0 {
        broken.push("the replicas were never compared".to_owned());
    }
    for (id, store) in &stores {
        if let Err(why) = store.view().state.check_invariants() {
            broken.push(format!(
                "node {id}: the last state does not hold together: {why}"
            ));
        }
    }
    broken
}

/// Jobs whose end was to be told and was not.
fn untold(jobs: &[Job], told: &BTreeSet<(String, i32)>) -> Vec<String> {
    jobs.iter()
        .filter(|job| job.reporters.iter().any(|name| name == REPORTER) && is_complete(job))
        .filter(|job| !told.contains(&(job.id.clone(), job.state)))
        .map(|job| {
            format!(
                "nobody was told that job {} ended as {:?}",
                job.id,
                job.state()
            )
        })
        .collect()
}

/// The rows that all archives have; where they differ in the end.
async fn archives(stores: &BTreeMap<u64, Store>) -> Result<Rows, String> {
    let deadline = Instant::now() + ARCHIVED;
    loop {
        let mut all = Vec::new();
        for (id, store) in stores {
            all.push((*id, archived(store).await?));
        }
        let Some((first, rows)) = all.pop() else {
            return Ok(Rows::new());
        };
        let Some((other, different)) = all.into_iter().find(|(_, found)| *found != rows) else {
            return Ok(rows);
        };
        if Instant::now() >= deadline {
            let keys = |rows: &Rows| rows.keys().cloned().collect::<BTreeSet<_>>();
            let keys: Vec<Bytes> = keys(&rows)
                .symmetric_difference(&keys(&different))
                .take(3)
                .cloned()
                .collect();
            return Err(format!(
                "the archives of {first} ({} rows) and {other} ({} rows) differ, for example in {keys:?}",
                rows.len(),
                different.len()
            ));
        }
        sleep(LOOK).await;
    }
}

fn history(
    cluster: &Cluster,
    stores: &BTreeMap<u64, Store>,
    digests: Vec<DigestAt>,
    archive: &Rows,
) -> Result<History, String> {
    let chronicle = cluster.chronicle();
    let mut last = Last {
        jobs: records::<Job>(archive, archive_keys::JOB)?,
        deliveries: records::<Delivery>(archive, archive_keys::DELIVERY)?,
        ..Last::default()
    };
    if let Some(store) = stores.values().next() {
        let view = store.view();
        let jobs = view.jobs_newest_first(JobFilter::default());
        last.jobs.extend(jobs.map(|job| Job::clone(job)));
        let intents = view.intents();
        last.intents
            .extend(intents.map(|intent| (**intent).clone()));
        let deliveries = view.deliveries_newest_first(None);
        last.deliveries
            .extend(deliveries.map(|delivery| Delivery::clone(delivery)));
    }
    for job in &mut last.jobs {
        job.prowjob.clear();
    }
    for delivery in &mut last.deliveries {
        delivery.payload_zstd.clear();
    }
    let (merged, merge_calls) = cluster.forge().all_merged();
    Ok(History {
        merged,
        merge_calls,
        watched: vec![chronicle.all()],
        sent: chronicle.all_sent(),
        digests,
        // Judged with the times at which they were asked, see `checks::linearizable`.
        asked: Vec::new(),
        nodes: cluster.ids(),
        last,
    })
}
