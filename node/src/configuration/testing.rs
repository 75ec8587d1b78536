//! A store for tests: one node, in memory.

use std::sync::Arc;

use trireme_proto::state::{Command, ConfigFile, ConfigVersion, PutConfig, command::Body};
use trireme_raft::{Node, Store, StoreConfig, archive::MemoryHome, disk::MemoryDisk};

/// A cluster of one that has its first entry.
pub(super) async fn alone() -> Store {
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
    store.at_least(1).await;
    store
}

/// A version of this `config.yaml`, whatever stands in it.
pub(super) async fn put(store: &Store, text: &str) {
    put_files(store, &[("main", "config.yaml", text)]).await;
}

/// A version of files by role and path, whatever stands in them.
pub(super) async fn put_files(store: &Store, files: &[(&str, &str, &str)]) {
    let mut bodies = Vec::new();
    let mut named = Vec::new();
    for (role, path, text) in files {
        let (name, chunks) = trireme_api::blob::chunks(text.as_bytes()).unwrap();
        bodies.extend(chunks.into_iter().map(Body::PutBlobChunk));
        named.push(ConfigFile {
            role: (*role).to_owned(),
            path: (*path).to_owned(),
            blob: Some(name),
        });
    }
    bodies.push(Body::PutConfig(PutConfig {
        config: Some(ConfigVersion {
            files: named,
            ..ConfigVersion::default()
        }),
        expected_current: 0,
    }));
    for body in bodies {
        let command = Command {
            body: Some(body),
            ..Command::default()
        };
        store.propose(command).await.unwrap();
    }
}
