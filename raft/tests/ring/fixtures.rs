//! Data directories and saved snapshots of released versions are kept and still open.
//!
//! `tests/fixtures/<version>[-level-<n>]/` holds `data.tar.gz`, the data directory of a node that was killed; `saved.snapshot`, what
//! it saved before; `expected.txt`, revision and digest of both. A directory is made once, when a version is released or
//! the feature level is raised, by
//!
//! ```sh
//! cargo test -p trireme-raft --test ring make_the_fixture -- --ignored
//! ```
//!
//! and never again: that this test reads it is the promise.

use std::{fs, path::PathBuf, time::Duration};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use trireme_proto::state::{
    AbortJob, AbortJobs, AcceptDelivery, Agent, Alarm, ApiToken, BlobRef, CommentEffect,
    CommitPlans, Condition, ConfigFile, ConfigPage, ConfigVersion, CreateJobs, Delivery, Done,
    EditIssueEffect, Effect, EffectOutcome, EffectState, FinishJob, Header, Insert, IntentState,
    Job, JobState, JobType, LeaseJob, MergeIntent, NewJob, OpenIntent, PeopleEffect, Piece,
    PlanBody, Pull, PullRequest, PutBlobChunk, PutConfig, PutConfigPage, PutPullRequests, PutTimer,
    PutToken, RegisterAgent, Role, SetAlarm, SettleEffect, SettleIntent, StartEffect, StartJob,
    Subject, SweepJobs, TakeOffice, Timer, command::Body, effect::Action, outcome,
};
use trireme_raft::{
    Store, StoreConfig,
    offline::{self, Recovery, RestoreOptions},
};
use trireme_state::{FEATURE_LEVEL, ids::config_page};

use crate::support::{Cluster, archive, eventually, is_archived, put, read, write};

/// All that were made, the present one last.
const FIXTURES: [&str; 5] = [
    "0.1.0",
    "0.1.0-level-3",
    "0.1.0-level-4",
    "0.1.0-level-5",
    "0.1.0-level-6",
];

/// Of one file, from level 5 on.
const ROLES: &str = "job+prow_supplemental";

fn fixtures(version: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(version)
}

async fn done(store: &Store, body: Body) -> Done {
    let mut command = put("", "");
    command.body = Some(body);
    let applied = store.propose(command).await.unwrap();
    match applied.outcome.result {
        Some(outcome::Result::Done(done)) => done,
        other => panic!("{other:?}"),
    }
}

fn job(id: &str, kind: JobType) -> NewJob {
    NewJob {
        job: Some(Box::new(Job {
            id: id.to_owned(),
            r#type: kind.into(),
            job: "unit".to_owned(),
            agent: "kubernetes".to_owned(),
            cluster: "default".to_owned(),
            org: "org".to_owned(),
            repo: "repo".to_owned(),
            base_ref: "main".to_owned(),
            pulls: vec![Pull {
                number: 7,
                author: "author".to_owned(),
                head_sha: "head".to_owned(),
            }],
            prowjob: "{\"spec\":{\"job\":\"unit\"}}".into(),
            origin: "made for the fixture".to_owned(),
            ..Job::default()
        })),
        ..NewJob::default()
    }
}

/// A few of everything: finished and live jobs, configuration with its blob, deliveries, history.
async fn furnish(store: &Store) {
    done(
        store,
        Body::TakeOffice(TakeOffice {
            node_id: 1,
            term: 1,
        }),
    )
    .await;
    let name = BlobRef {
        sha256: vec![7; 32].into(),
        size: 12,
    };
    done(
        store,
        Body::PutBlobChunk(PutBlobChunk {
            blob: Some(name.clone()),
            index: 0,
            count: 1,
            data: "pod_size: 1\n".into(),
        }),
    )
    .await;
    done(
        store,
        Body::PutConfig(PutConfig {
            config: Some(ConfigVersion {
                files: vec![ConfigFile {
                    role: "main".to_owned(),
                    path: "config.yaml".to_owned(),
                    blob: Some(name),
                }],
                author: "operator".to_owned(),
                message: "first".to_owned(),
                ..ConfigVersion::default()
            }),
            expected_current: 0,
        }),
    )
    .await;
    let jobs = ["finished", "running", "waiting"].map(|id| job(id, JobType::Presubmit));
    done(
        store,
        Body::CreateJobs(CreateJobs {
            jobs: jobs.into(),
            cursors: Vec::new(),
        }),
    )
    .await;
    let agent = Agent {
        id: "agent".to_owned(),
        name: "agent-1".to_owned(),
        capacity: 4,
        ..Agent::default()
    };
    let registered = done(
        store,
        Body::RegisterAgent(RegisterAgent { agent: Some(agent) }),
    )
    .await;
    for id in ["finished", "running"] {
        let lease = LeaseJob {
            id: id.to_owned(),
            agent_id: "agent".to_owned(),
            incarnation: registered.token,
            ..LeaseJob::default()
        };
        let fence = done(store, Body::LeaseJob(lease)).await.token;
        done(
            store,
            Body::StartJob(StartJob {
                id: id.to_owned(),
                fence,
            }),
        )
        .await;
        if id == "finished" {
            let finish = FinishJob {
                id: id.to_owned(),
                fence,
                state: JobState::Success.into(),
                description: "Job succeeded.".to_owned(),
                url: String::new(),
            };
            done(store, Body::FinishJob(finish)).await;
        }
    }
    let sweep = SweepJobs {
        ids: vec!["finished".to_owned()],
    };
    done(store, Body::SweepJobs(sweep)).await;
    archive(store, "handled").await;
    let delivery = |guid: &str| Delivery {
        guid: guid.to_owned(),
        event: "issue_comment".to_owned(),
        org: "org".to_owned(),
        repo: "repo".to_owned(),
        number: 7,
        ..Delivery::default()
    };
    for guid in ["planned", "received"] {
        let accept = AcceptDelivery {
            delivery: Some(delivery(guid)),
        };
        done(store, Body::AcceptDelivery(accept)).await;
    }
    let plans = CommitPlans {
        guid: "planned".to_owned(),
        plugins: vec!["lgtm".to_owned()],
        ..CommitPlans::default()
    };
    done(store, Body::CommitPlans(plans)).await;
}

/// What level 1 did not know, and more.
async fn furnish_more(store: &Store) {
    let token = ApiToken {
        id: "token".to_owned(),
        name: "ci-bot".to_owned(),
        role: Role::Submitter.into(),
        sha256: vec![9; 32].into(),
        created_by: "operator".to_owned(),
        ..ApiToken::default()
    };
    done(store, Body::PutToken(PutToken { token: Some(token) })).await;
    for (id, number) in [("merged", 7), ("open", 8)] {
        let intent = MergeIntent {
            id: id.to_owned(),
            org: "org".to_owned(),
            repo: "repo".to_owned(),
            branch: "main".to_owned(),
            number,
            head_sha: "head".to_owned(),
            ..MergeIntent::default()
        };
        let open = OpenIntent {
            intent: Some(intent),
        };
        done(store, Body::OpenIntent(open)).await;
        if id == "merged" {
            let settle = SettleIntent {
                id: id.to_owned(),
                state: IntentState::Merged.into(),
                merge_sha: "merge".to_owned(),
                ..SettleIntent::default()
            };
            done(store, Body::SettleIntent(settle)).await;
        }
    }
    let pull = PullRequest {
        org: "org".to_owned(),
        repo: "repo".to_owned(),
        number: 8,
        open: true,
        base_ref: "main".to_owned(),
        head_sha: "head".to_owned(),
        updated_ms: 1,
        ..PullRequest::default()
    };
    let pulls = PutPullRequests {
        pull_requests: vec![pull],
        contexts: Vec::new(),
    };
    done(store, Body::PutPullRequests(pulls)).await;
    let timer = Timer {
        key: "timer".to_owned(),
        due_ms: 1,
        ..Timer::default()
    };
    done(store, Body::PutTimer(PutTimer { timer: Some(timer) })).await;
    let alarm = Alarm {
        key: "test/alarm".to_owned(),
        message: "something".to_owned(),
        ..Alarm::default()
    };
    let set = SetAlarm {
        alarm: Some(alarm),
        clear: false,
    };
    done(store, Body::SetAlarm(set)).await;
    eventually("an audit", async || {
        let view = store.view();
        view.audits()
            .any(|audit| !audit.agreed.is_empty())
            .then_some(())
    })
    .await;
}

/// The version after another one, of one file by a page.
async fn put_paged(store: &Store, after: u64, role: &str, path: &str, version: ConfigVersion) {
    let page = ConfigPage {
        files: vec![ConfigFile {
            role: role.to_owned(),
            path: path.to_owned(),
            blob: Some(BlobRef {
                sha256: vec![7; 32].into(),
                size: 12,
            }),
        }],
        ..ConfigPage::default()
    };
    let name = config_page(&page.files).to_vec().into();
    let put = PutConfigPage { page: Some(page) };
    done(store, Body::PutConfigPage(put)).await;
    let put = PutConfig {
        config: Some(ConfigVersion {
            pages: vec![name],
            ..version
        }),
        expected_current: after,
    };
    done(store, Body::PutConfig(put)).await;
}

/// What level 3 did not know: a second configuration, of a page.
async fn furnish_pages(store: &Store) {
    let version = ConfigVersion {
        message: "second".to_owned(),
        source: "0123456789abcdef0123456789abcdef01234567".to_owned(),
        ..ConfigVersion::default()
    };
    put_paged(store, 1, "main", "config.yaml", version).await;
}

/// What level 4 did not know: a file that is two things. Jobs have their histories by themselves.
async fn furnish_roles(store: &Store) {
    let version = ConfigVersion {
        message: "third".to_owned(),
        ..ConfigVersion::default()
    };
    put_paged(store, 2, ROLES, "both.yaml", version).await;
}

/// A delivery with its headers, and a plan whose effects wait for each other, the first of them refused.
async fn furnish_effects(store: &Store) {
    let delivery = Delivery {
        guid: "effects".to_owned(),
        event: "issue_comment".to_owned(),
        payload_zstd: vec![1, 2, 3].into(),
        headers: vec![Header {
            name: "x-github-event".to_owned(),
            value: "issue_comment".into(),
        }],
        ..Delivery::default()
    };
    let delivery = Some(delivery);
    done(store, Body::AcceptDelivery(AcceptDelivery { delivery })).await;
    let subject = Some(Subject {
        org: "org".to_owned(),
        repo: "repo".to_owned(),
        number: 8,
    });
    let effect = |action: Action| Effect {
        action: Some(action),
        ..Effect::default()
    };
    let assign = effect(Action::Assign(PeopleEffect {
        subject: subject.clone(),
        logins: vec!["nobody".to_owned()],
    }));
    let mut told = effect(Action::Comment(CommentEffect {
        subject: subject.clone(),
        body: "not assigned: ".to_owned(),
        inserts: vec![Insert {
            at: 14,
            pieces: vec![Piece::default()],
            ..Insert::default()
        }],
    }));
    told.condition = Some(Condition {
        ordinal: 0,
        outcomes: vec![EffectOutcome::Refused.into()],
    });
    told.head_sha = "head".to_owned();
    let edit = effect(Action::EditIssue(EditIssueEffect {
        subject,
        body: Some("new".to_owned()),
        was_sha256: vec![5; 32].into(),
        ..EditIssueEffect::default()
    }));
    let plan = PlanBody {
        plugin: "assign".to_owned(),
        effects: vec![assign, told, edit],
        head_sha: "head".to_owned(),
        ..PlanBody::default()
    };
    let plans = CommitPlans {
        guid: "effects".to_owned(),
        plugins: vec!["assign".to_owned()],
        plans: vec![plan],
        ..CommitPlans::default()
    };
    done(store, Body::CommitPlans(plans)).await;
    let start = StartEffect {
        guid: "effects".to_owned(),
        plugin: "assign".to_owned(),
        ordinal: 0,
    };
    done(store, Body::StartEffect(start)).await;
    let settle = SettleEffect {
        guid: "effects".to_owned(),
        plugin: "assign".to_owned(),
        state: EffectState::Done.into(),
        outcome: EffectOutcome::Refused.into(),
        result: "nobody".to_owned(),
        ..SettleEffect::default()
    };
    done(store, Body::SettleEffect(settle)).await;
}

fn check_effects(store: &Store) {
    let view = store.view();
    let delivery = view.delivery("effects").unwrap();
    assert_eq!(delivery.headers[0].name, "x-github-event");
    let plan = view.plan("effects", "assign").unwrap();
    let [assign, told, edit] = plan.effects.as_slice() else {
        panic!("{plan:?}");
    };
    assert_eq!(
        (assign.outcome(), assign.result.as_str()),
        (EffectOutcome::Refused, "nobody")
    );
    assert_eq!(trireme_state::next_effect(plan), Some(1));
    assert!(told.condition.is_some());
    assert_eq!(
        (told.head_sha.as_str(), plan.head_sha.as_str()),
        ("head", "head")
    );
    assert!(
        matches!(&edit.action, Some(Action::EditIssue(edit)) if edit.was_sha256.len() == 32),
        "{edit:?}"
    );
}

fn check_roles_and_histories(store: &Store) {
    let view = store.view();
    let config = view.config().unwrap();
    let files = view.config_files(config).unwrap();
    assert_eq!((config.number, files[0].role.as_str()), (3, ROLES));
    let running = view.job("running").unwrap();
    let causes: Vec<&str> = running.history.iter().map(|row| &*row.cause).collect();
    assert_eq!(
        causes,
        [
            "made for the fixture",
            "attempt 1 leased to agent agent-1 (agent)",
            "attempt 1: the first process runs"
        ]
    );
}

fn check_pages(store: &Store) {
    let view = store.view();
    let config = view.config_version(2).unwrap();
    assert_eq!((config.number, config.message.as_str()), (2, "second"));
    let files = view.config_files(config).unwrap();
    assert_eq!(files[0].path, "config.yaml");
}

fn check_more(store: &Store) {
    let view = store.view();
    assert_eq!(view.token_by_hash(&[9; 32]).unwrap().name, "ci-bot");
    assert_eq!(view.open_intent("org", "repo", 8).unwrap().id, "open");
    let merged = view.intent("merged").unwrap();
    assert_eq!(
        (merged.state(), &*merged.merge_sha),
        (IntentState::Merged, "merge")
    );
    assert!(view.pull_request("org", "repo", 8).unwrap().open);
    assert!(view.timer("timer").is_some());
    assert_eq!(view.alarm("test/alarm").unwrap().message, "something");
    assert!(view.audits().next().is_some());
}

fn check(store: &Store) {
    let view = store.view();
    assert_eq!(view.job("running").unwrap().state(), JobState::Pending);
    assert_eq!(view.job("waiting").unwrap().state(), JobState::Triggered);
    assert!(view.job("finished").is_none());
    let config = view.config_version(1).unwrap();
    assert_eq!((config.number, config.message.as_str()), (1, "first"));
    assert!(view.has_blob(&[7; 32]));
    assert!(view.delivery("received").is_some());
    assert_eq!(view.agent("agent").unwrap().name, "agent-1");
    assert_eq!(read(store, "last").as_deref(), Some("word"));
}

async fn check_history(store: &Store) {
    assert!(is_archived(store, "handled").await);
    let prefix = trireme_state::archive_keys::job("finished").prefix();
    let from = (
        std::ops::Bound::Included(prefix.clone()),
        std::ops::Bound::Unbounded,
    );
    let rows = store.archive().range(from, false, 1).await.unwrap();
    assert!(rows[0].0.starts_with(&prefix));
}

/// JOB-075: what an older version left goes on at the present level, where jobs have a history from then on.
async fn go_on(store: &Store) {
    eventually("the present feature level", async || {
        (store.view().feature_level() == FEATURE_LEVEL).then_some(())
    })
    .await;
    let abort = AbortJob {
        id: "waiting".to_owned(),
        reason: "Nobody waits for it.".to_owned(),
    };
    done(store, Body::AbortJobs(AbortJobs { jobs: vec![abort] })).await;
    let view = store.view();
    let job = view.job("waiting").unwrap();
    let last = job.history.last().unwrap();
    assert_eq!(
        (last.state(), last.cause.as_str()),
        (JobState::Aborted, "Nobody waits for it.")
    );
    view.check_invariants().unwrap();
}

async fn start(data_dir: PathBuf, id: u64) -> Store {
    let listen = "127.0.0.1:0".parse().unwrap();
    let store = Store::open(StoreConfig::new(data_dir, id, listen))
        .await
        .unwrap();
    eventually("a leader", async || store.holds_lease().then_some(())).await;
    store
}

#[tokio::test(flavor = "multi_thread")]
async fn the_data_directory_of_each_version_opens() {
    for version in FIXTURES {
        let fixture = fixtures(version);
        let expected = fs::read_to_string(fixture.join("expected.txt")).unwrap();
        let home = tempfile::tempdir().unwrap();
        let packed = fs::File::open(fixture.join("data.tar.gz")).unwrap();
        tar::Archive::new(GzDecoder::new(packed))
            .unpack(home.path())
            .unwrap();
        let dir = home.path().join("data");
        let found = Recovery::open(&dir).unwrap().found().clone();
        assert!(found.snapshot.is_some_and(|at| at < found.revision));
        let data = format!("data {} {}\n", found.revision, found.digest);
        assert!(expected.contains(&data), "{version}: {data}");

        let store = start(dir, 1).await;
        check(&store);
        check_history(&store).await;
        if version != FIXTURES[0] {
            check_more(&store);
        }
        if !FIXTURES[..2].contains(&version) {
            check_pages(&store);
        }
        if !FIXTURES[..3].contains(&version) {
            check_roles_and_histories(&store);
        }
        if !FIXTURES[..4].contains(&version) {
            check_effects(&store);
        }
        write(&store, "new", "1").await;
        go_on(&store).await;
        store.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_saved_by_each_version_is_restored() {
    for version in FIXTURES {
        let fixture = fixtures(version);
        let expected = fs::read_to_string(fixture.join("expected.txt")).unwrap();
        let file = fixture.join("saved.snapshot");
        let found = offline::inspect(&file).unwrap();
        let saved = format!("saved {} {}\n", found.revision, found.digest);
        assert!(expected.contains(&saved), "{version}: {saved}");
        let home = tempfile::tempdir().unwrap();
        let options = RestoreOptions {
            file,
            data_dir: home.path().join("data"),
            node_id: 2,
            peer_address: "127.0.0.1:1".to_owned(),
            api_address: String::new(),
        };
        let dir = options.data_dir.clone();
        tokio::task::spawn_blocking(move || offline::restore(&options).unwrap())
            .await
            .unwrap();
        let store = start(dir, 2).await;
        check(&store);
        check_history(&store).await;
        if version != FIXTURES[0] {
            check_more(&store);
        }
        if !FIXTURES[..2].contains(&version) {
            check_pages(&store);
        }
        if !FIXTURES[..3].contains(&version) {
            check_roles_and_histories(&store);
        }
        if !FIXTURES[..4].contains(&version) {
            check_effects(&store);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "makes the fixture of the present version, once per release"]
async fn make_the_fixture() {
    let fixture = fixtures(FIXTURES[FIXTURES.len() - 1]);
    assert!(!fixture.exists(), "a fixture is never made again");
    let mut cluster = Cluster::tuned(1, |config| {
        config.limits.wal.segment_bytes = 16 << 10;
        config.limits.audit_every = Duration::from_millis(100);
    })
    .await;
    let store = &cluster.stores[&1];
    furnish(store).await;
    furnish_more(store).await;
    furnish_pages(store).await;
    furnish_roles(store).await;
    furnish_effects(store).await;
    store.trigger_snapshot().await.unwrap();
    write(store, "last", "word").await;
    let mut saving = store.save_snapshot().await.unwrap();
    let mut saved = Vec::new();
    while let Some(piece) = saving.pieces.recv().await {
        saved.extend_from_slice(&piece.unwrap());
    }
    cluster.kill(1).await;

    fs::create_dir_all(&fixture).unwrap();
    let snapshot = fixture.join("saved.snapshot");
    fs::write(&snapshot, saved).unwrap();
    let dir = cluster.data_dir(1);
    let mut archive = tar::Builder::new(GzEncoder::new(
        fs::File::create(fixture.join("data.tar.gz")).unwrap(),
        Compression::best(),
    ));
    archive.append_dir_all("data", &dir).unwrap();
    archive.into_inner().unwrap().finish().unwrap();
    let data = Recovery::open(&dir).unwrap().found().clone();
    let saved = offline::inspect(&snapshot).unwrap();
    let text = format!(
        "data {} {}\nsaved {} {}\n",
        data.revision, data.digest, saved.revision, saved.digest
    );
    fs::write(fixture.join("expected.txt"), text).unwrap();
}
