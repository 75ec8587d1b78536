//! What the log and the snapshot files cost, beside what the same disk costs alone: `cargo bench -p trireme-raft`.
//!
//! The files lie below `TRIREME_BENCH_DIR`, or where temporary files lie: name a directory on the disk that matters.

use std::{fs::File, os::unix::fs::FileExt as _, sync::Arc};

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tokio::sync::oneshot;
use trireme_proto::{
    raft::{self as proto, entry::Payload},
    state::{Batch, Command, CreateJobs, Job, JobType, NewJob, command::Body},
};
use trireme_raft::{
    disk::RealDisk,
    snapshot::Snapshots,
    wal::{Owner, Wal, WalOptions},
};
use trireme_state::State;

fn directory() -> tempfile::TempDir {
    match std::env::var_os("TRIREME_BENCH_DIR") {
        Some(parent) => tempfile::tempdir_in(parent),
        None => tempfile::tempdir(),
    }
    .expect("a directory")
}

fn entry(index: u64, bytes: usize) -> proto::Entry {
    proto::Entry {
        log_id: Some(proto::LogId {
            leader: Some(proto::LeaderId {
                term: 1,
                node_id: 1,
            }),
            index,
        }),
        payload: Some(Payload::Batch(Bytes::from(vec![b'x'; bytes]))),
    }
}

/// One entry after the other, each on disk before the next; and many at once, which share syncs.
fn log(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let mut group = criterion.benchmark_group("log");
    group.sample_size(50);
    for bytes in [512, 16 << 10] {
        group.throughput(Throughput::Bytes(bytes as u64));
        let home = directory();
        let file = File::create(home.path().join("alone")).expect("a file");
        file.set_len(1 << 30).expect("room");
        let block = vec![b'x'; bytes];
        let mut at = 0;
        group.bench_function(BenchmarkId::new("the disk alone", bytes), |bencher| {
            bencher.iter(|| {
                file.write_all_at(&block, at).expect("written");
                file.sync_data().expect("synced");
                at = (at + bytes as u64) % (1 << 29);
            });
        });
        let wal = open_wal(&home);
        let mut index = 0;
        group.bench_function(BenchmarkId::new("append and sync", bytes), |bencher| {
            bencher.iter(|| {
                index += 1;
                runtime.block_on(appended(&wal, index, bytes));
            });
        });
        group.throughput(Throughput::Bytes(64 * bytes as u64));
        group.bench_function(
            BenchmarkId::new("append 64, wait for all", bytes),
            |bencher| {
                bencher.iter(|| {
                    runtime.block_on(async {
                        let mut last = None;
                        for _ in 0..64 {
                            index += 1;
                            last = Some(append(&wal, index, bytes).await);
                        }
                        if let Some(last) = last {
                            last.await.expect("answered").expect("on disk");
                        }
                    });
                });
            },
        );
        drop(wal);
    }
    group.finish();
}

fn open_wal(home: &tempfile::TempDir) -> Wal {
    let path = home.path().join("wal");
    std::fs::create_dir_all(&path).expect("a directory");
    let owner = Owner {
        cluster_id: "bench".to_owned(),
        node_id: 1,
    };
    Wal::open(Arc::new(RealDisk), &path, owner, &WalOptions::default()).expect("a log")
}

async fn append(wal: &Wal, index: u64, bytes: usize) -> oneshot::Receiver<std::io::Result<()>> {
    let (done, answered) = oneshot::channel();
    let answer = Box::new(move |written| {
        // Only the last answer is waited for.
        let _ = done.send(written);
    });
    wal.append(vec![entry(index, bytes)], answer)
        .await
        .expect("accepted");
    answered
}

async fn appended(wal: &Wal, index: u64, bytes: usize) {
    let answered = append(wal, index, bytes).await;
    answered.await.expect("answered").expect("on disk");
}

fn state_of(jobs: u64) -> State {
    let mut state = State::new();
    for number in 0..jobs {
        let job = Job {
            id: format!("job-{number}"),
            r#type: JobType::Periodic.into(),
            job: "periodic".to_owned(),
            prowjob: Bytes::from(vec![b'x'; 2048]),
            ..Job::default()
        };
        let create = Body::CreateJobs(CreateJobs {
            jobs: vec![NewJob {
                job: Some(Box::new(job)),
                ..NewJob::default()
            }],
            cursors: Vec::new(),
        });
        let commands = vec![Command {
            body: Some(create),
            ..Command::default()
        }];
        state.apply(
            number + 1,
            Batch {
                stamp_ms: 1,
                commands,
            },
        );
    }
    assert_eq!(state.counts().jobs as u64, jobs);
    state
}

fn snapshots(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("snapshot file");
    group.sample_size(10);
    for jobs in [1_000, 100_000] {
        let home = directory();
        let snapshots = Snapshots::open(Arc::new(RealDisk), home.path()).expect("a directory");
        let state = state_of(jobs);
        let header = proto::SnapshotHeader {
            format: trireme_raft::snapshot::SNAPSHOT_FORMAT,
            cluster_id: "bench".to_owned(),
            ..proto::SnapshotHeader::default()
        };
        group.throughput(Throughput::Elements(jobs));
        group.bench_function(BenchmarkId::new("write and sync", jobs), |bencher| {
            bencher.iter(|| {
                snapshots
                    .write(&header, state.snapshot_rows(), &state.digest())
                    .expect("written")
            });
        });
        let file = snapshots
            .write(&header, state.snapshot_rows(), &state.digest())
            .expect("written");
        group.bench_function(BenchmarkId::new("read and verify", jobs), |bencher| {
            bencher.iter_batched(
                || (),
                |()| {
                    let mut rows = file.rows();
                    State::from_snapshot_rows(std::iter::from_fn(|| {
                        rows.next_row().expect("a whole file")
                    }))
                    .expect("a state")
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, log, snapshots);
criterion_main!(benches);
