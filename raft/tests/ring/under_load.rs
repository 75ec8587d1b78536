//! Kills while many write: what was acknowledged stays, on every node alike.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::support::{Cluster, put, read};
use trireme_raft::{Store, StoreConfig};

const WRITERS: u64 = 16;
const KILLS: usize = 4;

fn busy(config: &mut StoreConfig) {
    config.limits.wal.segment_bytes = 64 << 10;
    config.limits.compact_entries = 300;
    config.limits.keep_entries = 50;
    config.timing.propose = Duration::from_secs(8);
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_writes_survive_kills_on_every_node() {
    let mut cluster = Cluster::tuned(3, busy).await;
    let done = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(Mutex::new(BTreeMap::new()));
    let stores = Arc::new(Mutex::new(
        cluster.stores.values().cloned().collect::<Vec<Store>>(),
    ));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (done, stores) = (Arc::clone(&done), Arc::clone(&stores));
            let acknowledged = Arc::clone(&acknowledged);
            tokio::spawn(async move {
                let mut n = 0u64;
                while !done.load(Ordering::Relaxed) {
                    n += 1;
                    let store = {
                        let stores = stores.lock().unwrap();
                        stores[(writer + n) as usize % stores.len()].clone()
                    };
                    let (key, value) = (format!("writer-{writer}"), n.to_string());
                    let mut command = put(&key, &value);
                    command.request_id = format!("{key}-{n}");
                    // A writer goes on only when it knows; one that does not know tries elsewhere.
                    match store.propose(command).await {
                        Ok(_) => {
                            acknowledged.lock().unwrap().insert(key, n);
                        }
                        Err(_) => {
                            n -= 1;
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                    }
                }
            })
        })
        .collect();
    for kill in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(400)).await;
        let victim = match kill % 2 {
            0 => cluster.leader().await,
            _ => cluster.follower().await,
        };
        cluster.kill(victim).await;
        *stores.lock().unwrap() = cluster.stores.values().cloned().collect();
        tokio::time::sleep(Duration::from_millis(200)).await;
        cluster.start(victim).await;
        *stores.lock().unwrap() = cluster.stores.values().cloned().collect();
    }
    cluster.leader().await;
    done.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    cluster.converged().await;
    let acknowledged = acknowledged.lock().unwrap().clone();
    assert_eq!(acknowledged.len() as u64, WRITERS);
    for store in cluster.stores.values() {
        for (key, n) in &acknowledged {
            let found: u64 = read(store, key).unwrap().parse().unwrap();
            // One more may have been applied without anybody hearing of it.
            assert!(
                found == *n || found == n + 1,
                "{key}: {found}, acknowledged {n}"
            );
        }
    }
    let total: u64 = acknowledged.values().sum();
    println!("{total} writes acknowledged over {KILLS} kills");
}
