//! What a command, a query and a snapshot cost, with few records and with many: `cargo bench -p trireme-state`.
//!
//! The cost of a command must not grow with the number of records. Every entry is applied while a view of the state
//! before it is held, as on a node that shows one view for each batch.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use trireme_proto::state::{
    Agent, Batch, Command, CreateJobs, Done, FinishJob, Job, JobState, JobType, LeaseJob, NewJob,
    Pull, RaiseFeatureLevel, RegisterAgent, command::Body, outcome,
};
use trireme_state::{Applied, FEATURE_LEVEL, JobFilter, State};

const SIZES: [usize; 2] = [1_000, 100_000];
const COMMANDS: usize = 64;

fn command(request_id: String, body: Body) -> Command {
    Command {
        min_level: 1,
        principal: "bench".to_owned(),
        request_id,
        epoch: 0,
        body: Some(body),
    }
}

fn job_id(number: usize) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

fn create(number: usize) -> Command {
    let job = Job {
        id: job_id(number),
        r#type: JobType::Presubmit.into(),
        job: format!("pull-job-{}", number % 50),
        agent: "kubernetes".to_owned(),
        cluster: "default".to_owned(),
        org: "org".to_owned(),
        repo: format!("repo-{}", number % 100),
        base_ref: "main".to_owned(),
        base_sha: "b".repeat(40),
        pulls: vec![Pull {
            number: (number / 5) as u64,
            author: "author".to_owned(),
            head_sha: format!("{number:040}"),
        }],
        context: format!("ci/job-{}", number % 50),
        state: JobState::Triggered.into(),
        prowjob: Bytes::from(vec![b'x'; 2048]),
        reporters: vec!["github-reporter".to_owned()],
        origin: "delivery".to_owned(),
        ..Job::default()
    };
    let jobs = vec![NewJob {
        job: Some(Box::new(job)),
        unless_exists: true,
        supersede: true,
        ..NewJob::default()
    }];
    command(
        format!("request-{number}"),
        Body::CreateJobs(CreateJobs {
            jobs,
            cursors: Vec::new(),
        }),
    )
}

/// One entry of these commands, none of a client.
fn entry(stamp_ms: u64, bodies: impl Iterator<Item = Body>) -> Batch {
    Batch {
        stamp_ms: stamp_ms as i64,
        commands: bodies.map(|body| command(String::new(), body)).collect(),
    }
}

/// What the commands of an entry did; a bench of refusals would measure nothing.
fn all_done(applied: &Applied) -> Vec<&Done> {
    let done = applied.outcomes.iter().map(|one| match &one.result {
        Some(outcome::Result::Done(done)) => done,
        other => panic!("{other:?}"),
    });
    done.collect()
}

fn batch(first: usize, count: usize) -> Batch {
    Batch {
        stamp_ms: first as i64,
        commands: (first..first + count).map(create).collect(),
    }
}

/// So many live jobs, in a cluster at the present feature level.
fn state_of(jobs: usize) -> State {
    let mut state = State::new();
    let raise = Body::RaiseFeatureLevel(RaiseFeatureLevel {
        level: FEATURE_LEVEL,
    });
    all_done(&state.apply(1, entry(0, [raise].into_iter())));
    for first in (0..jobs).step_by(COMMANDS) {
        let applied = state.apply(first as u64 + 2, batch(first, COMMANDS.min(jobs - first)));
        all_done(&applied);
    }
    state
}

fn apply(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("apply");
    group.throughput(Throughput::Elements(COMMANDS as u64));
    for size in SIZES {
        let state = state_of(size);
        let creation = batch(size, COMMANDS);
        group.bench_function(BenchmarkId::new("create 64 jobs", size), |bencher| {
            bencher.iter_batched(
                || (state.clone(), creation.clone()),
                |(mut next, creation)| {
                    let applied = next.apply(size as u64 + 1, creation);
                    (next, applied)
                },
                BatchSize::SmallInput,
            );
        });

        let mut with_agent = state.clone();
        let index = size as u64 + 1;
        let agent = Agent {
            id: "agent".to_owned(),
            name: "agent".to_owned(),
            capacity: 1000,
            clusters: vec!["default".to_owned()],
            ..Agent::default()
        };
        let register = Body::RegisterAgent(RegisterAgent { agent: Some(agent) });
        let registered = with_agent.apply(index, entry(index, [register].into_iter()));
        let incarnation = all_done(&registered)[0].token;
        let ids: Vec<String> = (0..COMMANDS).map(job_id).collect();
        let lease = ids.iter().map(|id| {
            Body::LeaseJob(LeaseJob {
                id: id.clone(),
                agent_id: "agent".to_owned(),
                incarnation,
                ..LeaseJob::default()
            })
        });
        let lease = entry(index + 1, lease);
        let finish = ids.iter().map(|id| {
            Body::FinishJob(FinishJob {
                id: id.clone(),
                fence: index + 1,
                state: JobState::Success.into(),
                ..FinishJob::default()
            })
        });
        let finish = entry(index + 2, finish);
        let mut tried = with_agent.clone();
        all_done(&tried.apply(index + 1, lease.clone()));
        all_done(&tried.apply(index + 2, finish.clone()));
        group.bench_function(
            BenchmarkId::new("lease and finish 64 jobs", size),
            |bencher| {
                bencher.iter_batched(
                    || (with_agent.clone(), lease.clone(), finish.clone()),
                    |(mut next, lease, finish)| {
                        let leased = next.apply(index + 1, lease);
                        let view = next.clone();
                        let finished = next.apply(index + 2, finish);
                        (next, view, leased, finished)
                    },
                    BatchSize::SmallInput,
                );
            },
        );
    }
    group.finish();
}

fn queries(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("view");
    for size in SIZES {
        let state = state_of(size);
        group.bench_function(BenchmarkId::new("clone", size), |bencher| {
            bencher.iter(|| black_box(state.clone()));
        });
        let id = job_id(777);
        group.bench_function(BenchmarkId::new("job by id", size), |bencher| {
            bencher.iter(|| black_box(state.job(&id)));
        });
        group.bench_function(BenchmarkId::new("newest 100 jobs", size), |bencher| {
            bencher.iter(|| {
                state
                    .jobs_newest_first(JobFilter::default())
                    .take(100)
                    .count()
            });
        });
        let of_pull = JobFilter {
            org: "org".to_owned(),
            repo: "repo-77".to_owned(),
            pull: 15,
            ..JobFilter::default()
        };
        group.bench_function(
            BenchmarkId::new("jobs of one pull request", size),
            |bencher| {
                bencher.iter(|| state.jobs_newest_first(of_pull.clone()).count());
            },
        );
        group.bench_function(BenchmarkId::new("counts", size), |bencher| {
            bencher.iter(|| black_box(state.counts()));
        });
    }
    group.finish();
}

fn snapshot(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("snapshot");
    group.sample_size(10);
    for size in SIZES {
        let state = state_of(size);
        let rows: Vec<_> = state.snapshot_rows().collect();
        group.throughput(Throughput::Elements(rows.len() as u64));
        group.bench_function(BenchmarkId::new("make rows", size), |bencher| {
            bencher.iter(|| state.snapshot_rows().map(black_box).count());
        });
        group.bench_function(BenchmarkId::new("load rows", size), |bencher| {
            bencher.iter_batched(
                || rows.clone(),
                |rows| State::from_snapshot_rows(rows).expect("rows of a state"),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, apply, queries, snapshot);
criterion_main!(benches);
