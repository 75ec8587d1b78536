//! Taking and leaving office on a real one-node store.

#![allow(
    clippy::unwrap_used,
    reason = "a test that does not get what it needs has failed"
)]

use std::{
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;
use trireme_office::{Controller, ControllerError, Keeper, Office, OfficeError, unfit_alarm};
use trireme_proto::state::{
    Alarm, Command, Cursor, PutCursor, SetAlarm, TakeOffice, command::Body,
};
use trireme_raft::{Node, PeerListener, Store, StoreConfig};

const BOUND: Duration = Duration::from_secs(20);

async fn store(directory: &tempfile::TempDir) -> Store {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut config = StoreConfig::new(directory.path().join("data"), 1, address);
    config.peer_listener = PeerListener::Bound(listener);
    let store = Box::pin(Store::open(config)).await.unwrap();
    let me = Node {
        id: 1,
        peer_address: address.to_string(),
        api_address: address.to_string(),
        ..Node::default()
    };
    store.bootstrap(vec![me]).await.unwrap();
    store
}

fn remember(key: &str) -> Body {
    Body::PutCursor(PutCursor {
        cursors: vec![Cursor {
            key: key.to_owned(),
            at_ms: 1,
            ..Cursor::default()
        }],
    })
}

enum Heard {
    Began(Office),
    Ended,
}

/// Says when it runs; its first run panics.
struct Clerk {
    said: mpsc::UnboundedSender<Heard>,
    runs: AtomicUsize,
}

#[async_trait]
impl Controller for Clerk {
    fn name(&self) -> &'static str {
        "clerk"
    }

    async fn run(&self, office: Office) -> Result<(), ControllerError> {
        if self.runs.fetch_add(1, Ordering::SeqCst) == 0 {
            panic!("planned");
        }
        office.propose(remember("clerk")).await?;
        let resigned = office.resigned();
        self.said.send(Heard::Began(office)).unwrap();
        resigned.cancelled().await;
        self.said.send(Heard::Ended).unwrap();
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn controllers_run_exactly_while_the_office_is_held() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(&directory).await;
    let (said, mut heard) = mpsc::unbounded_channel();
    let clerk = Clerk {
        said,
        runs: AtomicUsize::new(0),
    };
    let stop = CancellationToken::new();
    let keeper = Keeper::new(store.clone(), vec![Arc::new(clerk)]);
    let (kept, stopping) = (stop.clone(), stop.clone());
    let keeping = tokio::spawn(async move { keeper.run(kept).await });

    // A panic is the controller's failure: it is started again.
    let Some(Heard::Began(office)) = timeout(BOUND, heard.recv()).await.unwrap() else {
        panic!("the controller did not run");
    };
    assert_eq!(store.view().office().epoch, office.epoch());
    assert!(store.view().cursor("clerk").is_some());
    office.assert_held().await.unwrap();

    stopping.cancel();
    assert!(matches!(
        timeout(BOUND, heard.recv()).await.unwrap(),
        Some(Heard::Ended)
    ));
    timeout(BOUND, keeping).await.unwrap().unwrap();
    let after = office.propose(remember("too late")).await.unwrap_err();
    assert!(matches!(after, OfficeError::Left { .. }), "{after}");
    assert!(store.view().cursor("too late").is_none());
    store.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_alone_stays_the_confirmed_leader() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(&directory).await;
    let mut leadership = store.leadership();
    timeout(BOUND, leadership.wait_for(|now| now.confirmed))
        .await
        .unwrap()
        .unwrap();
    // Longer than any lease.
    let lost = timeout(
        Duration::from_secs(2),
        leadership.wait_for(|now| !now.confirmed),
    )
    .await;
    assert!(lost.is_err(), "it has only itself to ask");
    assert!(store.holds_lease());
    store.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_older_office_asks_is_rejected_and_ends_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(&directory).await;
    let (said, mut heard) = mpsc::unbounded_channel();
    let clerk = Clerk {
        said,
        runs: AtomicUsize::new(1),
    };
    let stop = CancellationToken::new();
    let keeper = Keeper::new(store.clone(), vec![Arc::new(clerk)]);
    let kept = stop.clone();
    let keeping = tokio::spawn(async move { keeper.run(kept).await });
    let Some(Heard::Began(office)) = timeout(BOUND, heard.recv()).await.unwrap() else {
        panic!("the controller did not run");
    };

    // Somebody with a later term takes over behind its back.
    let term = store.leadership().borrow().term + 1;
    let usurper = Command {
        min_level: 1,
        principal: "node:2".to_owned(),
        body: Some(Body::TakeOffice(TakeOffice { node_id: 2, term })),
        ..Command::default()
    };
    store.propose(usurper).await.unwrap();
    let late = office.propose(remember("late")).await.unwrap_err();
    assert!(matches!(late, OfficeError::Left { .. }), "{late}");
    assert!(store.view().cursor("late").is_none(), "nothing changed");
    assert!(office.assert_held().await.is_err());
    assert!(matches!(
        timeout(BOUND, heard.recv()).await.unwrap(),
        Some(Heard::Ended)
    ));

    stop.cancel();
    timeout(BOUND, keeping).await.unwrap().unwrap();
    store.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_not_fit_leaves_office_and_takes_none() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(&directory).await;
    let (said, mut heard) = mpsc::unbounded_channel();
    let clerk = Clerk {
        said,
        runs: AtomicUsize::new(1),
    };
    let (sender, fit) = tokio::sync::watch::channel(true);
    let stop = CancellationToken::new();
    let keeper = Keeper::new(store.clone(), vec![Arc::new(clerk)]).while_fit(fit);
    let kept = stop.clone();
    let keeping = tokio::spawn(async move { keeper.run(kept).await });
    let Some(Heard::Began(first)) = timeout(BOUND, heard.recv()).await.unwrap() else {
        panic!("the controller did not run");
    };
    sender.send_replace(false);
    assert!(matches!(
        timeout(BOUND, heard.recv()).await.unwrap(),
        Some(Heard::Ended)
    ));
    assert_eq!(store.view().office().epoch, first.epoch());
    sender.send_replace(true);
    let Some(Heard::Began(second)) = timeout(BOUND, heard.recv()).await.unwrap() else {
        panic!("the controller did not run again");
    };
    // The same holder in the same term: its epoch is the same, the office that ended stays ended.
    assert_eq!(second.epoch(), first.epoch());
    assert!(first.assert_held().await.is_err());
    second.assert_held().await.unwrap();
    stop.cancel();
    timeout(BOUND, keeping).await.unwrap().unwrap();
    store.shutdown().await;
}

/// Three voters.
async fn three(directory: &tempfile::TempDir) -> Vec<Store> {
    let listeners = [1, 2, 3].map(|id| (id, TcpListener::bind("127.0.0.1:0").unwrap()));
    let members: Vec<Node> = listeners
        .iter()
        .map(|(id, listener)| Node {
            id: *id,
            peer_address: listener.local_addr().unwrap().to_string(),
            ..Node::default()
        })
        .collect();
    let mut stores = Vec::new();
    for (id, listener) in listeners {
        let address = listener.local_addr().unwrap();
        let mut config = StoreConfig::new(directory.path().join(id.to_string()), id, address);
        config.peer_listener = PeerListener::Bound(listener);
        stores.push(Box::pin(Store::open(config)).await.unwrap());
    }
    for store in &stores {
        store.bootstrap(members.clone()).await.unwrap();
    }
    stores
}

async fn is_unfit(store: &Store, node_id: u64) {
    let alarm = Alarm {
        key: unfit_alarm(node_id),
        message: "it cannot parse".to_owned(),
        node_id,
        ..Alarm::default()
    };
    let command = Command {
        min_level: 1,
        principal: format!("node:{node_id}"),
        body: Some(Body::SetAlarm(SetAlarm {
            alarm: Some(alarm),
            clear: false,
        })),
        ..Command::default()
    };
    store.propose(command).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unfit_node_hands_on_the_lead_to_a_voter_that_is_fit_or_keeps_it() {
    let directory = tempfile::tempdir().unwrap();
    let stores = three(&directory).await;
    let mut leaderships = stores[0].leadership();
    let led = leaderships.wait_for(|now| now.leader.is_some());
    let led = timeout(BOUND, led).await.unwrap().unwrap().leader.unwrap();
    let store = stores.iter().find(|store| store.node_id() == led).unwrap();
    let mut confirmed = store.leadership();
    let confirmed = confirmed.wait_for(|now| now.is_me && now.confirmed);
    timeout(BOUND, confirmed).await.unwrap().unwrap();
    // With as much of the log as another, the voter with the larger id would be the best.
    let mut others = [1, 2, 3].into_iter().filter(|id| *id != led);
    let (fit, unfit) = (others.next().unwrap(), others.next().unwrap());
    is_unfit(store, led).await;
    is_unfit(store, unfit).await;

    let (_sender, is_fit) = tokio::sync::watch::channel(false);
    let stop = CancellationToken::new();
    let keeper = Keeper::new(store.clone(), Vec::new()).while_fit(is_fit);
    let kept = stop.clone();
    let keeping = tokio::spawn(async move { keeper.run(kept).await });
    let mut leadership = store.leadership();
    let another = leadership.wait_for(|now| now.leader.is_some_and(|leader| leader != led));
    let another = timeout(BOUND, another).await.unwrap().unwrap().leader;
    assert_eq!(another, Some(fit));
    stop.cancel();
    timeout(BOUND, keeping).await.unwrap().unwrap();

    let leader = stores.iter().find(|store| store.node_id() == fit).unwrap();
    let kept = leader.hand_on(|_| false).await.unwrap_err().to_string();
    assert_eq!(
        kept,
        format!(
            "nobody else can lead now: node {} may not; node {} may not",
            led.min(unfit),
            led.max(unfit)
        )
    );
    for store in &stores {
        store.shutdown().await;
    }
}
