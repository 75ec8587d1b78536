//! Deltas of the configuration on a real one-node store.

#![allow(
    clippy::unwrap_used,
    reason = "a test that does not get what it needs has failed"
)]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use trireme_config::{Config, PluginConfig};
use trireme_office::{
    ConfigDelta, ConfigDeltas, ConfigVersions, Controller, ControllerError, DeltaError, Keeper,
    Office, Pace, RunningConfig, VersionError,
};
use trireme_proto::state::{
    BlobRef, Command, ConfigFile, ConfigVersion, Cursor, PutBlobChunk, PutConfig, PutCursor,
    command::Body,
};
use trireme_raft::{Node, Store, StoreConfig, archive::MemoryHome, disk::MemoryDisk};

const BOUND: Duration = Duration::from_secs(20);

/// Hands out the office that it gets.
struct Clerk(mpsc::UnboundedSender<Office>);

#[async_trait]
impl Controller for Clerk {
    fn name(&self) -> &'static str {
        "clerk"
    }

    async fn run(&self, office: Office) -> Result<(), ControllerError> {
        self.0.send(office.clone()).unwrap();
        office.resigned().cancelled().await;
        Ok(())
    }
}

/// What the archive has.
#[derive(Default)]
struct Archive {
    lost: Mutex<Vec<u64>>,
    away: Mutex<bool>,
    loads: Mutex<BTreeMap<u64, usize>>,
}

#[async_trait]
impl ConfigVersions for Archive {
    async fn version(&self, number: u64) -> Result<Arc<RunningConfig>, VersionError> {
        *self.loads.lock().unwrap().entry(number).or_default() += 1;
        if *self.away.lock().unwrap() {
            return Err(VersionError::Away("the disk is slow".to_owned()));
        }
        if self.lost.lock().unwrap().contains(&number) {
            return Err(VersionError::Lost("gone".to_owned()));
        }
        Ok(running(number))
    }
}

fn running(version: u64) -> Arc<RunningConfig> {
    Arc::new(RunningConfig {
        version,
        config: Arc::new(Config::default()),
        plugins: Arc::new(PluginConfig::default()),
    })
}

struct Stage {
    store: Store,
    office: Office,
    archive: Arc<Archive>,
    sender: watch::Sender<Option<Arc<RunningConfig>>>,
    stop: CancellationToken,
    keeping: tokio::task::JoinHandle<()>,
}

impl Stage {
    async fn new() -> Self {
        let mut config = StoreConfig::new("/data".into(), 1, "127.0.0.1:0".parse().unwrap());
        config.disk = Arc::new(MemoryDisk::new());
        config.archive = Some(Arc::new(MemoryHome::default()));
        let store = Box::pin(Store::open(config)).await.unwrap();
        let me = Node {
            id: 1,
            peer_address: "127.0.0.1:1".to_owned(),
            ..Node::default()
        };
        store.bootstrap(vec![me]).await.unwrap();
        let (sender, mut offices) = mpsc::unbounded_channel();
        let keeper = Keeper::new(store.clone(), vec![Arc::new(Clerk(sender))]);
        let stop = CancellationToken::new();
        let token = stop.clone();
        let keeping = tokio::spawn(async move { keeper.run(token).await });
        let office = timeout(BOUND, offices.recv()).await.unwrap().unwrap();
        Self {
            store,
            office,
            archive: Arc::default(),
            sender: watch::channel(None).0,
            stop,
            keeping,
        }
    }

    /// A consumer, as a holder of the office has it.
    fn consumer(&self, name: &'static str, pace: Pace) -> ConfigDeltas {
        ConfigDeltas::new(
            self.office.clone(),
            self.sender.subscribe(),
            Arc::clone(&self.archive) as Arc<dyn ConfigVersions>,
            name,
            pace,
        )
    }

    async fn propose(&self, body: Body) -> u64 {
        let command = Command {
            body: Some(body),
            ..Command::default()
        };
        let applied = self.store.propose(command).await.unwrap();
        match applied.outcome.result {
            Some(trireme_proto::state::outcome::Result::Done(done)) => done.config_version,
            other => panic!("{other:?}"),
        }
    }

    /// Puts a version; the node has parsed it when it is `parsed`.
    async fn put(&self) -> u64 {
        let text = b"{}";
        let blob = BlobRef {
            sha256: Bytes::copy_from_slice(&Sha256::digest(text)),
            size: text.len() as u64,
        };
        self.propose(Body::PutBlobChunk(PutBlobChunk {
            blob: Some(blob.clone()),
            index: 0,
            count: 1,
            data: Bytes::from_static(text),
        }))
        .await;
        self.propose(Body::PutConfig(PutConfig {
            config: Some(ConfigVersion {
                files: vec![ConfigFile {
                    role: "main".to_owned(),
                    path: "config.yaml".to_owned(),
                    blob: Some(blob),
                }],
                ..ConfigVersion::default()
            }),
            expected_current: 0,
        }))
        .await
    }

    fn parsed(&self, version: u64) {
        self.sender.send_replace(Some(running(version)));
    }

    async fn end(self) {
        self.stop.cancel();
        self.keeping.await.unwrap();
        self.store.shutdown().await;
    }
}

fn step(delta: &ConfigDelta) -> (Option<u64>, u64) {
    let before = delta.before.as_ref().map(|before| before.version);
    (before, delta.after.version)
}

async fn next(consumer: &ConfigDeltas) -> ConfigDelta {
    timeout(BOUND, consumer.next()).await.unwrap().unwrap()
}

/// CFG-093, CFG-094: one delta per version from an empty one on; each until it is handled, whoever asks.
#[tokio::test(flavor = "multi_thread")]
async fn cfg_094_each_version_is_a_step_from_where_the_cursor_stands() {
    let stage = Stage::new().await;
    stage.put().await;
    stage.parsed(1);
    let each = stage.consumer("each", Pace::Each);
    let first = next(&each).await;
    assert_eq!(step(&first), (None, 1));
    assert_eq!(step(&next(&each).await), (None, 1), "not handled yet");
    each.commit(&first).await.unwrap();
    let newest = stage.consumer("newest", Pace::Newest);
    newest.commit(&next(&newest).await).await.unwrap();

    for _ in 2..=4 {
        stage.put().await;
    }
    stage.parsed(4);
    let second = next(&each).await;
    assert_eq!(step(&second), (Some(1), 2));
    each.commit(&second).await.unwrap();
    // Whoever holds the office next goes on.
    let resumed = stage.consumer("each", Pace::Each);
    for wanted in [(Some(2), 3), (Some(3), 4)] {
        let delta = next(&resumed).await;
        assert_eq!(step(&delta), wanted);
        resumed.commit(&delta).await.unwrap();
    }
    let leap = next(&newest).await;
    assert_eq!(step(&leap), (Some(1), 4));
    newest.commit(&leap).await.unwrap();
    assert_eq!(newest.handled().unwrap(), Some(4));
    stage.end().await;
}

/// CFG-094: a node that has yet to parse what was handled elsewhere takes no step back, and none before it has.
#[tokio::test(flavor = "multi_thread")]
async fn cfg_094_a_step_waits_until_the_version_in_force_is_parsed() {
    let stage = Stage::new().await;
    stage.put().await;
    stage.parsed(1);
    let consumer = Arc::new(stage.consumer("c", Pace::Newest));
    consumer.commit(&next(&consumer).await).await.unwrap();
    stage.put().await;
    let asked = Arc::clone(&consumer);
    let waiting = tokio::spawn(async move { next(&asked).await });
    stage.put().await;
    // Not in force any more when it is parsed.
    stage.parsed(2);
    stage.parsed(3);
    let delta = waiting.await.unwrap();
    assert_eq!(step(&delta), (Some(1), 3));
    consumer.commit(&delta).await.unwrap();
    stage.stop.cancel();
    stage.keeping.await.unwrap();
    let left = consumer.next().await.unwrap_err();
    assert!(
        matches!(&left, DeltaError::Office(why) if why.to_string().contains("is over")),
        "{left}"
    );
    stage.store.shutdown().await;
}

/// CFG-094: what cannot be had is told, as an alarm until a step is whole again; what is away for a while is waited for.
#[tokio::test(flavor = "multi_thread")]
async fn cfg_094_what_is_lost_is_told() {
    let stage = Stage::new().await;
    for _ in 1..=3 {
        stage.put().await;
    }
    stage.parsed(3);
    let cursors = vec![Cursor {
        key: "config/c".to_owned(),
        at_ms: 1,
        value: "1".to_owned(),
        ..Cursor::default()
    }];
    stage.propose(Body::PutCursor(PutCursor { cursors })).await;
    let consumer = stage.consumer("c", Pace::Each);
    *stage.archive.away.lock().unwrap() = true;
    let away = consumer.next().await.unwrap_err();
    assert!(matches!(&away, DeltaError::Away(why) if why == "the disk is slow"));
    *stage.archive.away.lock().unwrap() = false;

    // The next version is lost: a larger step. Then where it stands is: a first one.
    stage.archive.lost.lock().unwrap().push(2);
    assert_eq!(step(&next(&consumer).await), (Some(1), 3));
    stage.archive.lost.lock().unwrap().push(1);
    let lost = next(&consumer).await;
    assert_eq!(
        (step(&lost), lost.lost.as_deref()),
        ((None, 3), Some("gone"))
    );
    let alarm = stage.store.view().alarm("config/c").unwrap().clone();
    assert!(
        alarm.message.starts_with(
            "c: configuration 1, which it handled last, cannot be read any more (gone)"
        ),
        "{}",
        alarm.message
    );
    consumer.commit(&lost).await.unwrap();
    stage.put().await;
    stage.parsed(4);
    assert_eq!(step(&next(&consumer).await), (Some(3), 4));
    assert!(stage.store.view().alarm("config/c").is_none());
    stage.end().await;
}

/// An old version is large: it is loaded once for all who look at it at a time.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_version_is_loaded_once_while_somebody_holds_it() {
    let stage = Stage::new().await;
    let consumer = stage.consumer("c", Pace::Newest);
    let held = consumer.version(7).await.unwrap();
    let (again, once_more) = tokio::join!(consumer.version(7), consumer.version(7));
    assert!(Arc::ptr_eq(&held, &again.unwrap()) && Arc::ptr_eq(&held, &once_more.unwrap()));
    assert_eq!(stage.archive.loads.lock().unwrap()[&7], 1);
    drop(held);
    stage.end().await;
}
