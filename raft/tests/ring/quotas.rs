//! A kind of record that comes near its bound is told of in time.

use futures::future::join_all;
use trireme_proto::state::{Alarm, Command, SetAlarm, command::Body, outcome};
use trireme_raft::Store;
use trireme_state::limits::MAX_ALARMS;

use crate::support::{Cluster, eventually};

async fn set_alarms(store: &Store, numbers: std::ops::Range<usize>, clear: bool) {
    let set = join_all(numbers.map(|number| {
        store.propose(Command {
            principal: "test".to_owned(),
            body: Some(Body::SetAlarm(SetAlarm {
                alarm: Some(Alarm {
                    key: format!("test/{number}"),
                    message: "something".to_owned(),
                    ..Alarm::default()
                }),
                clear,
            })),
            ..Command::default()
        })
    }));
    for applied in set.await {
        let outcome = applied.unwrap().outcome;
        assert!(
            matches!(outcome.result, Some(outcome::Result::Done(_))),
            "{outcome:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_tells_of_a_kind_near_its_bound_until_there_is_room_again() {
    let cluster = Cluster::of(1).await;
    let store = &cluster.stores[&1];
    let many = MAX_ALARMS * 85 / 100;
    set_alarms(store, 0..many, false).await;
    let told = eventually("an alarm", async || {
        Some(store.view().alarm("quota/alarm")?.message.clone())
    })
    .await;
    // This machine's own disk may be full enough to have one as well.
    assert!(
        told.contains("of at most 1000 alarm are there (85 %)"),
        "{told}"
    );
    set_alarms(store, 0..many / 10, true).await;
    eventually("the alarm is lowered", async || {
        store.view().alarm("quota/alarm").is_none().then_some(())
    })
    .await;
}
