//! The log against a disk that forgets, tears and fails.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
};

use proptest::prelude::*;
use trireme_proto::raft as proto;

use super::{LogId, LogState, Owner, Wal, WalError, WalOptions, record, writer::segment_path};
use crate::disk::{Disk, MemoryDisk, RealDisk};

const DIR: &str = "/wal";

fn options() -> WalOptions {
    WalOptions {
        segment_bytes: 4096,
        queue_bytes: 64 << 10,
        cache_bytes: 2048,
    }
}

fn open(disk: &MemoryDisk) -> Result<Wal, WalError> {
    Wal::open(Arc::new(disk.clone()), Path::new(DIR), owner(), &options())
}

fn owner() -> Owner {
    Owner {
        cluster_id: "ours".to_owned(),
        node_id: 1,
    }
}

fn id(term: u64, index: u64) -> LogId {
    LogId {
        term,
        node_id: 1,
        index,
    }
}

fn entry(id: LogId, size: usize) -> proto::Entry {
    proto::Entry {
        log_id: Some(id.into()),
        payload: Some(proto::entry::Payload::Batch(
            vec![id.index as u8; size].into(),
        )),
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

/// Appends and waits for the disk.
async fn append(wal: &Wal, entries: Vec<proto::Entry>) -> std::io::Result<()> {
    let (done, answered) = tokio::sync::oneshot::channel();
    wal.append(
        entries,
        Box::new(move |result| done.send(result).unwrap_or_default()),
    )
    .await?;
    answered.await.map_err(std::io::Error::other)?
}

async fn entries(wal: &Wal) -> Vec<proto::Entry> {
    wal.read(0..u64::MAX, usize::MAX).await.unwrap()
}

#[derive(Debug, Clone)]
enum Op {
    Append { count: usize, size: usize },
    Vote,
    Commit { back: u64 },
    Truncate { back: u64 },
    Purge { ahead: i64 },
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (1..6usize, prop_oneof![4 => 0..200usize, 1 => 600..2500usize])
            .prop_map(|(count, size)| Op::Append { count, size }),
        1 => Just(Op::Vote),
        1 => (0..4u64).prop_map(|back| Op::Commit { back }),
        1 => (0..5u64).prop_map(|back| Op::Truncate { back }),
        1 => (-20..3i64).prop_map(|ahead| Op::Purge { ahead }),
        1 => Just(Op::Reopen),
    ]
}

/// What the log should hold.
#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    state: LogState,
    entries: BTreeMap<u64, proto::Entry>,
    term: u64,
}

impl Model {
    fn next(&self) -> u64 {
        self.state.last.map_or(1, |last| last.index + 1)
    }

    async fn run(&mut self, wal: &Wal, op: &Op) -> std::io::Result<()> {
        match op {
            Op::Append { count, size } => {
                let new: Vec<_> = (0..*count as u64)
                    .map(|n| entry(id(self.term, self.next() + n), *size))
                    .collect();
                for entry in &new {
                    let id = LogId::from(entry.log_id.as_ref().unwrap());
                    self.entries.insert(id.index, entry.clone());
                    self.state.last = Some(id);
                }
                append(wal, new).await
            }
            Op::Vote => {
                self.term += 1;
                let vote = proto::Vote {
                    leader: Some(proto::LeaderId {
                        term: self.term,
                        node_id: 1,
                    }),
                    committed: false,
                };
                self.state.vote = Some(vote);
                wal.save_vote(vote).await
            }
            Op::Commit { back } => {
                let index = self.next().saturating_sub(1 + back);
                if let Some(entry) = self.entries.get(&index) {
                    let id = entry.log_id.as_ref().map(LogId::from);
                    self.state.committed = id;
                    return wal.save_committed(id).await;
                }
                Ok(())
            }
            Op::Truncate { back } => {
                let index = self.next().saturating_sub(1 + back);
                let Some(after) = self.entries.get(&index) else {
                    return Ok(());
                };
                let after = after.log_id.as_ref().map(LogId::from);
                self.entries.split_off(&(index + 1));
                self.state.committed = self.state.committed.filter(|c| c.index <= index);
                self.state.last = after;
                self.term += 1;
                wal.truncate_after(after).await
            }
            Op::Purge { ahead } => {
                let last = self.state.last.map_or(0, |last| last.index) as i64;
                let Ok(index) = u64::try_from(last + ahead) else {
                    return Ok(());
                };
                if index == 0 || self.state.purged.is_some_and(|p| p.index >= index) {
                    return Ok(());
                }
                let upto = match self.entries.get(&index) {
                    Some(entry) => LogId::from(entry.log_id.as_ref().unwrap()),
                    None => id(self.term, index),
                };
                self.entries = self.entries.split_off(&(index + 1));
                self.state.purged = Some(upto);
                if self.entries.is_empty() {
                    self.state.last = Some(upto);
                }
                wal.purge(upto).await
            }
            Op::Reopen => Ok(()),
        }
    }

    /// As it is found after opening.
    fn found(&self) -> (LogState, Vec<proto::Entry>) {
        (self.state.clone(), self.entries.values().cloned().collect())
    }
}

async fn found(wal: &Wal) -> (LogState, Vec<proto::Entry>) {
    (wal.state(), entries(wal).await)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the disk does, what is found is what was there after some operation, and never before the last
    /// operation that was acknowledged.
    #[test]
    fn acknowledged_records_survive_power_cuts(
        rounds in proptest::collection::vec(
            (proptest::collection::vec(op(), 1..25), 0..12u64, any::<bool>(), any::<u64>()), 1..4),
    ) {
        block_on(async move {
            let mut disk = MemoryDisk::new();
            let mut model = Model::default();
            for (ops, faultless, fail_syncs, seed) in rounds {
                let mut wal = open(&disk).unwrap();
                prop_assert_eq!(found(&wal).await, model.found());
                if fail_syncs {
                    disk.fail_syncs_after(faultless);
                } else {
                    disk.fail_writes_after(faultless);
                }
                // What may be found: the state after the last acknowledged operation, and after each one since.
                let mut possible = vec![model.clone()];
                for op in &ops {
                    if matches!(op, Op::Reopen) {
                        drop(wal);
                        match open(&disk) {
                            Ok(opened) => wal = opened,
                            Err(_) => {
                                wal = open(&MemoryDisk::new()).unwrap();
                                break;
                            }
                        }
                        // Reopening reads what is there, synced or not.
                        let now = found(&wal).await;
                        possible.retain(|model| model.found() == now);
                        prop_assert!(!possible.is_empty());
                        model = possible[possible.len() - 1].clone();
                        possible = vec![model.clone()];
                        continue;
                    }
                    // A torn write may leave the first of several entries.
                    if let Op::Append { count, size } = op {
                        for count in 1..*count {
                            let mut part = model.clone();
                            let nowhere = open(&MemoryDisk::new()).unwrap();
                            let op = Op::Append { count, size: *size };
                            // Only the model's side matters.
                            let _ = part.run(&nowhere, &op).await;
                            possible.push(part);
                        }
                    }
                    let answered = model.run(&wal, op).await;
                    if answered.is_ok() && matches!(op, Op::Append { .. } | Op::Vote) {
                        possible.clear();
                    }
                    possible.push(model.clone());
                    if answered.is_err() {
                        break;
                    }
                }
                drop(wal);
                let mut random = seed;
                disk = disk.after_power_cut(|| {
                    random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    random >> 63 == 1
                });
                let wal = open(&disk).unwrap();
                let now = found(&wal).await;
                let Some(survivor) = possible.iter().rev().find(|model| model.found() == now) else {
                    let shown = |(state, entries): (LogState, Vec<proto::Entry>)| {
                        let first = entries.first().and_then(|entry| Some(entry.log_id?.index));
                        format!("{} entries from {first:?}, {state:?}", entries.len())
                    };
                    let possible: Vec<String> =
                        possible.iter().map(|model| shown(model.found())).collect();
                    panic!("found {}, possible were {possible:#?}", shown(now));
                };
                let term = model.term;
                model = survivor.clone();
                model.term = term + 1;
            }
            Ok(())
        })?;
    }

    /// One changed byte in what was acknowledged is an error that names the file, or concerns nothing that is kept.
    #[test]
    fn a_changed_byte_is_never_taken_for_the_log(position: prop::sample::Index, bit in 0..8u8) {
        block_on(async move {
            let disk = MemoryDisk::new();
            let wal = open(&disk).unwrap();
            for index in 1..=30 {
                append(&wal, vec![entry(id(1, index), 300)]).await.unwrap();
            }
            let before = found(&wal).await;
            drop(wal);
            let names = disk.list(Path::new(DIR)).unwrap();
            // The last record has no later one that proves it was safe: it may be taken for a torn end.
            let sealed = names.len() - 1;
            let file = Path::new(DIR).join(&names[position.index(sealed)]);
            disk.corrupt(&file, 0, |bytes| {
                let at = position.index(bytes.len());
                bytes[at] ^= 1 << bit;
            });
            match open(&disk) {
                Ok(wal) => {
                    // Padding and what was set aside carry nothing.
                    prop_assert_eq!(found(&wal).await, before);
                }
                Err(WalError::Damaged { file: named, .. }) => {
                    let next: Vec<PathBuf> = names.iter().map(|name| Path::new(DIR).join(name)).collect();
                    prop_assert!(next.contains(&named));
                }
                Err(other) => panic!("{other}"),
            }
            Ok(())
        })?;
    }
}

#[test]
fn a_failed_sync_ends_the_log_for_ever() {
    block_on(async {
        let disk = MemoryDisk::new();
        let wal = open(&disk).unwrap();
        append(&wal, vec![entry(id(1, 1), 10)]).await.unwrap();
        disk.fail_syncs_after(0);
        let error = append(&wal, vec![entry(id(1, 2), 10)]).await.unwrap_err();
        insta::assert_snapshot!(error, @"syncing /wal/00000000000000000001.wal failed: injected fault. The log accepts nothing more; check the disk, then restart the node");
        // The disk works again; what it holds is unknown all the same.
        disk.fail_syncs_after(u64::MAX);
        append(&wal, vec![entry(id(1, 3), 10)]).await.unwrap_err();
        wal.save_vote(proto::Vote::default()).await.unwrap_err();
        assert!(wal.failed().is_some());
        drop(wal);
        let wal = open(&disk.after_power_cut(|| false)).unwrap();
        assert_eq!(wal.state().last, Some(id(1, 1)));
    });
}

#[test]
fn answers_come_in_the_order_of_the_requests() {
    block_on(async {
        let wal = open(&MemoryDisk::new()).unwrap();
        let (order, answered) = mpsc::channel();
        for index in 1..=200 {
            let order = order.clone();
            let done = Box::new(move |_| order.send(index).unwrap());
            wal.append(vec![entry(id(1, index), 50)], done)
                .await
                .unwrap();
        }
        wal.save_vote(proto::Vote::default()).await.unwrap();
        drop(order);
        assert!(answered.into_iter().eq(1..=200));
    });
}

#[test]
fn entries_can_be_read_before_they_are_on_disk_and_after_they_left_memory() {
    block_on(async {
        let disk = MemoryDisk::new();
        let wal = open(&disk).unwrap();
        let all: Vec<_> = (1..=100).map(|n| entry(id(1, n), 100)).collect();
        for chunk in all.chunks(7) {
            wal.append(chunk.to_vec(), Box::new(|_| {})).await.unwrap();
            assert_eq!(entries(&wal).await.last(), chunk.last(), "read at once");
        }
        wal.save_vote(proto::Vote::default()).await.unwrap();
        assert_eq!(entries(&wal).await, all);
        assert_eq!(wal.read(40..43, usize::MAX).await.unwrap(), all[39..42]);
        assert_eq!(wal.read(40..43, 1).await.unwrap(), all[39..40]);
        disk.fail_reads(true);
        wal.read(1..2, usize::MAX)
            .await
            .expect_err("the oldest lie on disk alone");
        wal.read(100..101, usize::MAX)
            .await
            .expect("the newest lie in memory");
    });
}

#[test]
fn purging_removes_whole_segments_and_keeps_vote_and_marks() {
    block_on(async {
        let disk = MemoryDisk::new();
        let wal = open(&disk).unwrap();
        let vote = proto::Vote {
            committed: true,
            ..proto::Vote::default()
        };
        wal.save_vote(vote).await.unwrap();
        for index in 1..=100 {
            append(&wal, vec![entry(id(1, index), 300)]).await.unwrap();
        }
        let before = wal.segments();
        wal.purge(id(1, 90)).await.unwrap();
        wal.save_vote(vote).await.unwrap();
        assert!(
            before > 8 && wal.segments() <= 3,
            "{before} {}",
            wal.segments()
        );
        drop(wal);
        let disk = disk.after_power_cut(|| false);
        let wal = open(&disk).unwrap();
        assert_eq!(wal.state().vote, Some(vote));
        assert_eq!(wal.state().purged, Some(id(1, 90)));
        assert_eq!(entries(&wal).await.len(), 10);
        // A snapshot that was received ends beyond the log.
        wal.purge(id(2, 500)).await.unwrap();
        append(&wal, vec![entry(id(2, 501), 1)]).await.unwrap();
        append(&wal, vec![entry(id(2, 600), 1)])
            .await
            .expect_err("a hole");
        drop(wal);
        assert_eq!(open(&disk).unwrap().state().last, Some(id(2, 501)));
    });
}

/// The log goes on in what is left, so that it can still be shortened.
#[test]
fn without_room_for_a_whole_segment_a_smaller_one_is_made() {
    block_on(async {
        const MIB: u64 = 1 << 20;
        let large = WalOptions {
            segment_bytes: 8 * MIB,
            ..options()
        };
        let open = |disk: &MemoryDisk| {
            let disk = Arc::new(disk.clone());
            Wal::open(disk, Path::new(DIR), owner(), &large).unwrap()
        };
        let disk = MemoryDisk::new();
        disk.set_capacity(11 * MIB);
        let wal = open(&disk);
        let mut index = 0;
        let mut add = async |wal: &Wal| {
            index += 1;
            append(wal, vec![entry(id(1, index), 200 << 10)]).await?;
            std::io::Result::Ok(index)
        };
        let mut last = 0;
        while wal.segments() < 2 {
            last = add(&wal).await.unwrap();
        }
        // Half of what was left.
        assert_eq!(disk.taken_bytes(), 19 * MIB / 2);
        drop(wal);
        let disk = disk.after_power_cut(|| false);
        disk.set_capacity(11 * MIB);
        let wal = open(&disk);
        assert_eq!(entries(&wal).await.len() as u64, last);
        wal.purge(id(1, last)).await.unwrap();
        // Once this is answered the files are gone.
        wal.save_vote(proto::Vote::default()).await.unwrap();
        while wal.segments() < 2 {
            add(&wal).await.unwrap();
        }
        assert_eq!(disk.taken_bytes(), 25 * MIB / 4);
        disk.set_capacity(disk.taken_bytes() + (100 << 10));
        let error = loop {
            if let Err(error) = add(&wal).await {
                break error;
            }
        };
        assert!(error.to_string().contains("The disk is full"), "{error}");
    });
}

#[test]
fn a_broken_record_before_later_writes_stops_the_node() {
    block_on(async {
        let disk = MemoryDisk::new();
        let wal = open(&disk).unwrap();
        for index in 1..=4 {
            append(&wal, vec![entry(id(1, index), 64)]).await.unwrap();
        }
        drop(wal);
        let path = segment_path(Path::new(DIR), 1);
        disk.corrupt(&path, 298, |bytes| bytes[0] ^= 1);
        let error = open(&disk).unwrap_err();
        insta::assert_snapshot!(error, @"the log is damaged: /wal/00000000000000000001.wal at byte 216: no valid record, though the one at byte 320 was written after this place was safe. Entries that were acknowledged may be lost here, so this node must not go on with them: keep the directory for inspection, and replace the node under a new id with `trireme cluster replace`, or restore its data directory from a backup");
        // The same in the last record is the torn end of a write that nobody saw acknowledged, for all that can be told.
        disk.corrupt(&path, 298, |bytes| bytes[0] ^= 1);
        disk.corrupt(&path, 448, |bytes| bytes[..40].fill(9));
        let wal = open(&disk).unwrap();
        assert_eq!(wal.state().last, Some(id(1, 3)));
    });
}

#[test]
fn a_missing_segment_and_a_foreign_format_are_refused() {
    block_on(async {
        let disk = MemoryDisk::new();
        let wal = open(&disk).unwrap();
        for index in 1..=60 {
            append(&wal, vec![entry(id(1, index), 300)]).await.unwrap();
        }
        drop(wal);
        let path = segment_path(Path::new(DIR), 2);
        disk.unlink(&path).unwrap();
        let error = open(&disk).unwrap_err().to_string();
        assert!(
            error.contains("00000000000000000002.wal") && error.contains("missing"),
            "{error}"
        );
        assert_eq!(record::FORMAT, 2);
    });
}

#[test]
fn a_log_of_another_node_or_cluster_is_refused_and_left_as_it_is() {
    block_on(async {
        let disk = MemoryDisk::new();
        let wal = open(&disk).unwrap();
        append(&wal, vec![entry(id(1, 1), 100)]).await.unwrap();
        drop(wal);
        let strangers = [("theirs", 1), ("ours", 2)];
        for (cluster_id, node_id) in strangers {
            let stranger = Owner {
                cluster_id: cluster_id.to_owned(),
                node_id,
            };
            let expected = stranger.to_string();
            let opened = Wal::open(Arc::new(disk.clone()), Path::new(DIR), stranger, &options());
            let error = opened.unwrap_err().to_string();
            assert!(
                error.contains("00000000000000000001.wal belongs to node 1 of cluster ours")
                    && error.contains(&expected),
                "{error}"
            );
        }
        assert_eq!(entries(&open(&disk).unwrap()).await.len(), 1);
    });
}

#[test]
fn a_real_disk_keeps_the_log() {
    let dir = tempfile::tempdir().unwrap();
    block_on(async {
        let options = WalOptions::default();
        let wal = Wal::open(Arc::new(RealDisk), dir.path(), owner(), &options).unwrap();
        for index in 1..=50 {
            append(&wal, vec![entry(id(1, index), 1000)]).await.unwrap();
        }
        drop(wal);
        let wal = Wal::open(Arc::new(RealDisk), dir.path(), owner(), &options).unwrap();
        assert_eq!(entries(&wal).await.len(), 50);
    });
}
