//! After everything was healed: does the cluster come to rest, and is what it shows then what it promised?

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::{Instant, sleep};
use trireme_proto::state::{Delivery, IntentState, Job};
use trireme_raft::Store;
use trireme_state::{JobFilter, archive_keys, is_complete};

use super::{clockwork, cluster::Cluster, forge::Forge, reporter::REPORTER};
use crate::{DigestAt, History, Last, archive::each_page, checks};

/// Nothing disturbs any more: leases expire, lost agents come back, all work is done within this.
const REST: Duration = Duration::from_secs(150);
const LOOK: Duration = Duration::from_millis(100);
/// Archives are written off the path of acknowledgements.
const ARCHIVED: Duration = Duration::from_secs(20);
/// Different rows that are told.
const MAX_ROWS: usize = 3;

/// A cluster in which nothing is left to do.
pub(crate) struct Rested {
    stores: BTreeMap<u64, Store>,
    /// Of all nodes at one revision: an audit may be the next.
    digests: Vec<DigestAt>,
}

/// Every node's store, once all have applied the same and nothing is left to do; why not otherwise.
pub(crate) async fn rest(cluster: &Cluster, forge: &Forge) -> Result<Rested, String> {
    let deadline = Instant::now() + REST;
    loop {
        let unrest = match unrest(cluster, forge) {
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

fn unrest(cluster: &Cluster, forge: &Forge) -> Result<Rested, String> {
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
        // The others' clocks may be off.
        if status.leader == Some(*id)
            && let Some(job) = clockwork::overdue(&view, store.now_ms())
        {
            return Err(format!(
                "job {} ended at {} and is still in memory",
                job.id, job.completed_ms
            ));
        }
    }
    let unmerged = forge.unmerged();
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
    let rows = rows.iter().filter(|(key, _)| key.first() == Some(&kind));
    let joined = archive_keys::join(rows.map(|(key, value)| (&key[..], &value[..])));
    let records = joined.map_err(|error| error.to_string())?;
    let decode = |(_, record): (Bytes, Bytes)| M::decode(record).map_err(|error| error.to_string());
    records.into_iter().map(decode).collect()
}

/// Everything that was broken.
pub(crate) async fn judge(cluster: &Cluster, forge: &Forge, rested: Rested) -> Vec<String> {
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
    match history(cluster, forge, &stores, digests, &archive) {
        Ok(history) => {
            broken.extend(checks::judge(&history).iter().map(ToString::to_string));
            broken.extend(clockwork::judge(&history));
            broken.extend(untold(&history.last.jobs, &forge.all_told()));
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

/// Where the archives of two nodes differ, if any do.
fn difference(archives: &[(u64, Rows)]) -> Option<String> {
    let ((first, rows), others) = archives.split_first()?;
    let (other, found) = others.iter().find(|(_, found)| found != rows)?;
    let all: BTreeSet<&Bytes> = rows.keys().chain(found.keys()).collect();
    let different = all
        .into_iter()
        .filter(|key| rows.get(*key) != found.get(*key));
    let some: Vec<&Bytes> = different.take(MAX_ROWS).collect();
    Some(format!(
        "the archives of {first} ({} rows) and {other} ({} rows) differ, for example in {some:?}",
        rows.len(),
        found.len()
    ))
}

/// The rows that all archives have; where they differ in the end.
async fn archives(stores: &BTreeMap<u64, Store>) -> Result<Rows, String> {
    let deadline = Instant::now() + ARCHIVED;
    loop {
        let mut all = Vec::new();
        for (id, store) in stores {
            all.push((*id, archived(store).await?));
        }
        let Some(difference) = difference(&all) else {
            let first = all.into_iter().next();
            return Ok(first.map(|(_, rows)| rows).unwrap_or_default());
        };
        if Instant::now() >= deadline {
            return Err(difference);
        }
        sleep(LOOK).await;
    }
}

fn history(
    cluster: &Cluster,
    forge: &Forge,
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
    let (merged, merge_calls) = forge.all_merged();
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

#[cfg(test)]
mod tests {
    use trireme_proto::state::JobState;

    use super::*;

    /// Whose end is to be told.
    fn job(id: &str, state: JobState) -> Job {
        Job {
            id: id.to_owned(),
            state: state.into(),
            reporters: vec![REPORTER.to_owned()],
            completed_ms: 1000,
            ..Job::default()
        }
    }

    fn told(id: &str, state: JobState) -> (String, i32) {
        (id.to_owned(), state.into())
    }

    #[test]
    fn nobody_waits_for_word_of_what_was_told_or_is_not_to_be() {
        let mut silent = job("silent", JobState::Success);
        silent.reporters.clear();
        let mut elsewhere = job("elsewhere", JobState::Success);
        elsewhere.reporters = vec!["slack".to_owned()];
        let mut running = job("running", JobState::Pending);
        running.completed_ms = 0;
        let jobs = [
            job("done", JobState::Success),
            job("failed", JobState::Failure),
            silent,
            elsewhere,
            running,
        ];
        let all_told = BTreeSet::from([
            told("done", JobState::Pending),
            told("done", JobState::Success),
            told("failed", JobState::Failure),
        ]);
        assert_eq!(untold(&jobs, &all_told), Vec::<String>::new());
    }

    #[test]
    fn an_end_that_was_never_told_is_found() {
        let jobs = [
            job("done", JobState::Success),
            job("failed", JobState::Failure),
        ];
        let all_told = BTreeSet::from([told("done", JobState::Success)]);
        assert_eq!(
            untold(&jobs, &all_told),
            ["nobody was told that job failed ended as Failure"]
        );
    }

    /// That it began is another word than how it ended.
    #[test]
    fn an_end_that_was_told_as_something_else_is_found() {
        let jobs = [job("done", JobState::Success)];
        for other in [JobState::Pending, JobState::Failure] {
            let all_told = BTreeSet::from([told("done", other)]);
            assert_eq!(
                untold(&jobs, &all_told),
                ["nobody was told that job done ended as Success"]
            );
        }
    }

    fn rows(rows: &[(&'static str, &'static str)]) -> Rows {
        let row = |(key, value): &(&'static str, &'static str)| {
            (
                Bytes::from_static(key.as_bytes()),
                Bytes::from_static(value.as_bytes()),
            )
        };
        rows.iter().map(row).collect()
    }

    const GOOD: [(&str, &str); 3] = [("a", "1"), ("b", "2"), ("c", "3")];

    /// Three nodes, of which the last has other rows.
    fn found(other: &[(&'static str, &'static str)]) -> Option<String> {
        difference(&[(1, rows(&GOOD)), (2, rows(&GOOD)), (3, rows(other))])
    }

    #[test]
    fn equal_archives_do_not_differ() {
        assert_eq!(found(&GOOD), None);
        assert_eq!(difference(&[(1, rows(&GOOD))]), None);
        assert_eq!(difference(&[]), None);
    }

    #[test]
    fn a_row_that_one_archive_misses_is_found() {
        assert_eq!(
            found(&[("a", "1"), ("c", "3")]).unwrap(),
            "the archives of 1 (3 rows) and 3 (2 rows) differ, for example in [b\"b\"]"
        );
    }

    #[test]
    fn a_row_that_only_one_archive_has_is_found() {
        let mut more = GOOD.to_vec();
        more.push(("d", "4"));
        assert_eq!(
            found(&more).unwrap(),
            "the archives of 1 (3 rows) and 3 (4 rows) differ, for example in [b\"d\"]"
        );
    }

    #[test]
    fn a_row_that_is_another_in_one_archive_is_found() {
        assert_eq!(
            found(&[("a", "1"), ("b", "2"), ("c", "4")]).unwrap(),
            "the archives of 1 (3 rows) and 3 (3 rows) differ, for example in [b\"c\"]"
        );
    }

    #[test]
    fn a_record_that_misses_a_chunk_is_no_record() {
        let long = Job {
            description: "x".repeat(1 << 20),
            ..job("long", JobState::Success)
        };
        let record = prost::Message::encode_to_vec(&long);
        let key = archive_keys::job("long");
        let whole: Rows = archive_keys::chunked(&key, &record).into_iter().collect();
        assert!(whole.len() > 1);
        assert_eq!(records::<Job>(&whole, archive_keys::JOB).unwrap(), [long]);
        assert_eq!(
            records::<Delivery>(&whole, archive_keys::DELIVERY).unwrap(),
            []
        );
        let mut cut = whole;
        cut.pop_last();
        let why = records::<Job>(&cut, archive_keys::JOB).unwrap_err();
        assert!(why.contains("chunks"), "{why}");
    }
}
