//! How long finished history stays in the archive.
//!
//! Each node removes old rows from its own archive, by the log's clock: the archive is no part of what the replicas
//! compare, and a row that comes back with a peer's archive goes again at the next look.

use std::{
    io,
    ops::Bound,
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use prost::Message as _;
use tokio::time::sleep;
use trireme_proto::state::{Delivery, MergeIntent, RunSummary};
use trireme_state::{
    ArchiveOp,
    archive_keys::{self as keys, Chunk, Key},
};

use super::Inner;
use crate::archive::{Archive, Row};

/// Between looks for what has grown too old.
const LOOK: Duration = Duration::from_secs(3600);
/// Between pages while there is more: history that all grew old at once must not keep the archive busy.
const PAUSE: Duration = Duration::from_millis(200);
/// Rows read at once.
const PAGE_ROWS: usize = 256;

pub(super) async fn run(inner: Weak<Inner>) {
    loop {
        let Some(strong) = inner.upgrade() else {
            return;
        };
        if strong.fatal.get().is_some() {
            return;
        }
        let keep = i64::try_from(strong.limits.history.as_millis()).unwrap_or(i64::MAX);
        let before_ms = strong.published.view().last_stamp_ms().saturating_sub(keep);
        let archive = Arc::clone(&strong.archive);
        // While it is filled from a peer the peer's rows would only come back.
        let removed = match archive.missing() {
            Some(_) => Ok(0),
            None => forget(&archive, before_ms).await,
        };
        drop(strong);
        match removed {
            Ok(0) => sleep(LOOK).await,
            Ok(rows) => {
                tracing::info!(rows, "old history was removed");
                sleep(PAUSE).await;
            }
            Err(why) => {
                tracing::warn!(%why, "old history was not removed");
                sleep(LOOK).await;
            }
        }
    }
}

/// Removes a page of what ended before `before_ms`; how many rows it was.
async fn forget(archive: &Arc<Archive>, before_ms: i64) -> io::Result<usize> {
    let reader = Arc::clone(archive);
    let finding = archive.host().io(move || {
        let mut found = Vec::new();
        old_runs(&reader, before_ms, &mut found)?;
        old_deliveries(&reader, before_ms, &mut found)?;
        if found.is_empty() {
            old_intents(&reader, before_ms, &mut found)?;
        }
        Ok::<_, io::Error>(found)
    });
    let found = finding.await?;
    let rows = found.len();
    if rows > 0 {
        archive
            .prune(
                found
                    .into_iter()
                    .map(|key| ArchiveOp::Delete { key })
                    .collect(),
            )
            .await?;
    }
    Ok(rows)
}

/// Every row whose key begins so.
fn rows_of(archive: &Archive, prefix: &[u8], found: &mut Vec<Bytes>) -> io::Result<()> {
    let mut from = prefix.to_vec();
    loop {
        let rows = archive.range((Bound::Included(&from), Bound::Unbounded), false, PAGE_ROWS)?;
        let read = rows.len();
        for (key, _) in rows {
            if !key.starts_with(prefix) {
                return Ok(());
            }
            from = key.to_vec();
            from.push(0);
            found.push(key);
        }
        if read < PAGE_ROWS {
            return Ok(());
        }
    }
}

/// The oldest records of a kind that is kept newest first: keys and values, the oldest first.
fn oldest(archive: &Archive, kind: u8) -> io::Result<Vec<(Bytes, Bytes)>> {
    let range = (
        Bound::Included(&[kind][..]),
        Bound::Excluded(&[kind.saturating_add(1)][..]),
    );
    let mut rows: Vec<Row> = archive.range(range, true, PAGE_ROWS)?;
    rows.reverse();
    // The page may begin in the middle of a record.
    let is_first = |(key, value): &Row| Chunk::split(key, value).is_ok_and(|chunk| chunk.at == 0);
    let start = rows.iter().position(is_first).unwrap_or(rows.len());
    let rows = rows[start..].iter();
    let joined = keys::join(rows.map(|(key, value)| (&key[..], &value[..])));
    let mut records = joined.map_err(io::Error::other)?;
    records.reverse();
    Ok(records)
}

fn decoded<M: prost::Message + Default>(record: &Bytes) -> io::Result<M> {
    M::decode(record.clone()).map_err(io::Error::other)
}

fn old_runs(archive: &Archive, before_ms: i64, found: &mut Vec<Bytes>) -> io::Result<()> {
    for (key, record) in oldest(archive, keys::RUN)? {
        let run: RunSummary = decoded(&record)?;
        if run.created_ms.max(run.completed_ms) >= before_ms {
            break;
        }
        // Where it stands in the order is the same in all indexes.
        let place = &key[1..];
        let mut of = |prefix: Key| rows_of(archive, &prefix.prefix(), found);
        of(keys::runs_of_job(&run.job).raw(place))?;
        for pull in &run.pulls {
            of(keys::runs_of_pull(&run.org, &run.repo, pull.number).raw(place))?;
        }
        of(keys::job(&run.job_id))?;
        of(Key::new(keys::RUN).raw(place))?;
    }
    Ok(())
}

fn old_deliveries(archive: &Archive, before_ms: i64, found: &mut Vec<Bytes>) -> io::Result<()> {
    for (key, record) in oldest(archive, keys::DELIVERY_IN_ORDER)? {
        let delivery: Delivery = decoded(&record)?;
        if delivery.received_ms.max(delivery.handled_ms) >= before_ms {
            break;
        }
        let mut of = |prefix: Key| rows_of(archive, &prefix.prefix(), found);
        of(keys::plans_of(&delivery.guid))?;
        of(keys::delivery(&delivery.guid))?;
        if let Some(blob) = &delivery.blob {
            of(keys::blob(&blob.sha256))?;
        }
        of(Key::new(keys::DELIVERY_IN_ORDER).raw(&key[1..]))?;
    }
    Ok(())
}

/// Intents are kept by pull request: all are looked at, page after page.
fn old_intents(archive: &Archive, before_ms: i64, found: &mut Vec<Bytes>) -> io::Result<()> {
    let mut from = vec![keys::INTENT];
    loop {
        let end = [keys::INTENT.saturating_add(1)];
        let range = (Bound::Included(&from[..]), Bound::Excluded(&end[..]));
        let rows = archive.range(range, false, PAGE_ROWS)?;
        for (key, value) in &rows {
            let chunk = Chunk::split(key, value).map_err(io::Error::other)?;
            // One that takes several chunks has a very long message; it is found by its first.
            if chunk.at == 0
                && let Ok(intent) = MergeIntent::decode(chunk.piece)
                && intent.opened_ms < before_ms
            {
                rows_of(archive, chunk.prefix, found)?;
            }
        }
        match rows.last() {
            Some((key, _)) if rows.len() == PAGE_ROWS && found.is_empty() => {
                from = key.to_vec();
                from.push(0);
            }
            _ => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use trireme_proto::state::{Job, Plan, Pull};
    use trireme_state::{Seq, run_summary};

    use super::*;
    use crate::archive::{ArchiveOptions, MemoryHome};

    fn job(n: u64) -> Job {
        Job {
            id: format!("job-{n}"),
            created_revision: n,
            job: "unit".to_owned(),
            org: "org".to_owned(),
            repo: "repo".to_owned(),
            pulls: vec![Pull {
                number: 7,
                ..Pull::default()
            }],
            created_ms: n as i64 * 100,
            completed_ms: n as i64 * 100 + 50,
            ..Job::default()
        }
    }

    fn put(ops: &mut Vec<ArchiveOp>, key: &Key, record: &impl prost::Message) {
        let rows = keys::chunked(key, &record.encode_to_vec());
        ops.extend(
            rows.into_iter()
                .map(|(key, value)| ArchiveOp::Put { key, value }),
        );
    }

    #[tokio::test]
    async fn what_is_too_old_leaves_all_its_places_and_nothing_else_does() {
        let home = Arc::new(MemoryHome::default());
        let archive = Arc::new(Archive::open(home, &ArchiveOptions::default()).unwrap());
        let mut ops = Vec::new();
        for n in 1..=4 {
            let job = job(n);
            let seq = Seq {
                revision: n,
                ordinal: 0,
            };
            let summary = run_summary(&job);
            put(&mut ops, &keys::job(&job.id), &job);
            put(&mut ops, &keys::run(seq), &summary);
            put(
                &mut ops,
                &keys::runs_of_job("unit").latest_first(seq),
                &summary,
            );
            let pull = keys::runs_of_pull("org", "repo", 7).latest_first(seq);
            put(&mut ops, &pull, &summary);
            let delivery = Delivery {
                guid: format!("guid-{n}"),
                received_ms: n as i64 * 100,
                payload_zstd: vec![1; 100_000].into(),
                ..Delivery::default()
            };
            put(&mut ops, &keys::delivery(&delivery.guid), &delivery);
            let brief = Delivery {
                payload_zstd: Bytes::new(),
                ..delivery
            };
            put(&mut ops, &keys::delivery_in_order(seq), &brief);
            let plan = keys::plans_of(&brief.guid).name("trigger");
            put(&mut ops, &plan, &Plan::default());
            let intent = MergeIntent {
                opened_ms: n as i64 * 100,
                ..MergeIntent::default()
            };
            let key = keys::intents_of("org", "repo", n).newest_first(n).name("x");
            put(&mut ops, &key, &intent);
        }
        archive.submit(9, ops).await.unwrap();
        archive.checkpoint(9).await.unwrap();
        let all = |archive: &Archive| {
            let rows = archive.range((Bound::Unbounded, Bound::Unbounded), false, 1000);
            rows.unwrap()
                .into_iter()
                .map(|(key, _)| key)
                .collect::<Vec<_>>()
        };
        let before = all(&archive);
        assert_eq!(forget(&archive, 100).await.unwrap(), 0);
        assert_eq!(all(&archive), before);
        let mut removed = 0;
        loop {
            match forget(&archive, 255).await.unwrap() {
                0 => break,
                rows => removed += rows,
            }
        }
        let after = all(&archive);
        assert_eq!(after.len() + removed, before.len());
        let gone = |part: &str| {
            !after
                .iter()
                .any(|key| key.windows(part.len()).any(|it| it == part.as_bytes()))
        };
        assert!(gone("job-1") && gone("job-2") && !gone("job-3"));
        assert!(gone("guid-1") && gone("guid-2") && !gone("guid-3"));
        assert_eq!(
            after.len() * 2,
            before.len(),
            "two of four are left of everything"
        );
        assert_eq!(archive.applied().unwrap(), 9);
    }
}
