//! Configuration versions, and the blobs that they and large deliveries are made of.

use trireme_proto::state::{self as pb, Rejection, command::Body};
use trireme_state::{archive_keys, ids::config_root};

use crate::replica::{HOUR_MS, Replica, blob, chunk, config};

fn sweep(name: u8) -> Body {
    Body::SweepBlobs(pb::SweepBlobs {
        sha256: vec![vec![name; 32].into()],
        config_pages: vec![],
    })
}

fn put(replica: &mut Replica, name: u8) -> u64 {
    replica.done(chunk(name, 0, 1, &[name]));
    replica.done(Body::PutConfig(config(name))).config_version
}

#[test]
fn versions_are_numbered_without_gaps() {
    let mut replica = Replica::new();
    assert!(replica.state.config().is_none());
    assert_eq!(put(&mut replica, 1), 1);
    assert_eq!(
        replica.refused(Body::PutConfig(config(9))),
        Rejection::NotFound
    );
    assert_eq!(put(&mut replica, 2), 2);
    let current = replica.state.config().unwrap();
    assert_eq!((current.number, current.revision), (2, replica.index()));
    assert_eq!(current.root, config_root(&current.files).as_slice());
    assert_eq!(replica.state.config_version(1).unwrap().number, 1);
}

#[test]
fn an_author_who_saw_another_version_is_refused() {
    let mut replica = Replica::new();
    put(&mut replica, 1);
    put(&mut replica, 2);
    let stale = pb::PutConfig {
        expected_current: 1,
        ..config(1)
    };
    assert_eq!(replica.refused(Body::PutConfig(stale)), Rejection::Conflict);
    let seen = pb::PutConfig {
        expected_current: 2,
        ..config(1)
    };
    assert_eq!(replica.done(Body::PutConfig(seen)).config_version, 3);
}

#[test]
fn a_configuration_names_complete_blobs_known_roles_and_its_own_root() {
    let mut replica = Replica::new();
    replica.done(chunk(1, 1, 2, b"second"));
    assert_eq!(
        replica.refused(Body::PutConfig(config(1))),
        Rejection::Conflict
    );
    replica.done(chunk(1, 0, 2, b"first"));
    assert!(replica.state.has_blob(&[1; 32]));
    let spoilt = |spoil: fn(&mut pb::ConfigVersion)| {
        let mut put = config(1);
        spoil(put.config.as_mut().unwrap());
        Body::PutConfig(put)
    };
    assert_eq!(
        replica.refused(spoilt(|config| config.files.clear())),
        Rejection::Invalid
    );
    assert_eq!(
        replica.refused(spoilt(|config| config.files[0].role = "x".into())),
        Rejection::Invalid
    );
    assert_eq!(
        replica.refused(spoilt(|config| config.files[0].blob = None)),
        Rejection::Invalid
    );
    let twice = spoilt(|config| config.files.push(config.files[0].clone()));
    assert_eq!(replica.refused(twice), Rejection::Invalid);
    assert_eq!(
        replica.refused(spoilt(|config| config.root = vec![0; 32].into())),
        Rejection::Invalid
    );
    let size = spoilt(|config| config.files[0].blob.as_mut().unwrap().size = 7);
    assert_eq!(replica.refused(size), Rejection::Invalid);
    assert_eq!(
        replica.refused(spoilt(|config| config.rollback_of = 5)),
        Rejection::NotFound
    );
    replica.done(Body::PutConfig(config(1)));
}

#[test]
fn the_last_twenty_stay_and_older_ones_move_to_the_archive_with_their_files() {
    let mut replica = Replica::new();
    for name in 1..=21 {
        put(&mut replica, name);
    }
    let kept: Vec<_> = replica
        .state
        .config_versions()
        .map(|config| config.number)
        .collect();
    assert_eq!(kept, (2..=21).collect::<Vec<_>>());
    let rows = replica
        .archive
        .iter()
        .map(|(key, value)| (&key[..], &value[..]));
    let records = archive_keys::join(rows).unwrap();
    let keys: Vec<_> = records.iter().map(|(key, _)| key.clone()).collect();
    assert_eq!(
        keys,
        [
            archive_keys::config(1).prefix(),
            archive_keys::blob(&[1; 32]).prefix()
        ]
    );
    assert_eq!(&records[1].1[..], &[1]);

    // Nothing names the file any more: an hour after it was put it may go.
    replica.pass(HOUR_MS + 1);
    assert_eq!(
        replica
            .state
            .expired_blobs(replica.now_ms)
            .collect::<Vec<_>>(),
        [&[1; 32]]
    );
    assert!(!replica.done(sweep(1)).duplicate);
    assert!(replica.done(sweep(2)).duplicate);
    assert!(replica.state.has_blob(&[2; 32]));
}

#[test]
fn a_file_that_newer_versions_share_stays() {
    let mut replica = Replica::new();
    put(&mut replica, 1);
    for _ in 0..25 {
        replica.done(Body::PutConfig(config(1)));
    }
    replica.pass(2 * HOUR_MS);
    assert!(replica.done(sweep(1)).duplicate);
    assert!(replica.state.has_blob(&[1; 32]));
}

#[test]
fn chunks_come_in_any_order_and_repeat() {
    let mut replica = Replica::new();
    replica.done(chunk(1, 2, 3, b"c"));
    replica.done(chunk(1, 0, 3, b"a"));
    assert!(replica.done(chunk(1, 0, 3, b"a")).duplicate);
    assert!(replica.state.blob(&[1; 32]).is_none());
    replica.done(chunk(1, 1, 3, b"b"));
    assert_eq!(replica.state.blob(&[1; 32]).unwrap().concat(), b"abc");
    assert_eq!(
        (
            replica.state.counts().blobs,
            replica.state.counts().blob_bytes
        ),
        (1, 3)
    );
}

#[test]
fn malformed_chunks_are_refused() {
    let mut replica = Replica::new();
    assert_eq!(replica.refused(chunk(1, 0, 0, b"")), Rejection::Invalid);
    assert_eq!(replica.refused(chunk(1, 2, 2, b"")), Rejection::Invalid);
    assert_eq!(replica.refused(chunk(1, 0, 129, b"")), Rejection::Invalid);
    assert_eq!(
        replica.refused(chunk(1, 0, 1, &vec![0; (512 << 10) + 1])),
        Rejection::Invalid
    );
    let put = |blob| pb::PutBlobChunk {
        blob,
        index: 0,
        count: 1,
        data: vec![].into(),
    };
    let short = pb::BlobRef {
        sha256: vec![1; 31].into(),
        size: 1,
    };
    assert_eq!(
        replica.refused(Body::PutBlobChunk(put(Some(short)))),
        Rejection::Invalid
    );
    assert_eq!(
        replica.refused(Body::PutBlobChunk(put(None))),
        Rejection::Invalid
    );
    let huge = blob(1, (64 << 20) + 1);
    assert_eq!(
        replica.refused(Body::PutBlobChunk(put(Some(huge)))),
        Rejection::Invalid
    );
}

/// Two doors may compress the same value differently.
#[test]
fn chunks_of_two_compressions_never_mix() {
    let mut replica = Replica::new();
    replica.done(chunk(1, 1, 2, b"old one"));
    replica.done(chunk(1, 0, 2, b"new zero"));
    replica.done(chunk(1, 1, 2, b"new one"));
    assert!(!replica.state.has_blob(&[1; 32]), "began anew");
    replica.done(chunk(1, 0, 2, b"new zero"));
    assert_eq!(
        replica.state.blob(&[1; 32]).unwrap().concat(),
        b"new zeronew one"
    );
    replica.done(chunk(1, 0, 1, b"whole"));
    assert_eq!(replica.state.blob(&[1; 32]).unwrap().concat(), b"whole");

    // What a record names is never touched.
    replica.done(Body::PutConfig(config(1)));
    assert!(replica.done(chunk(1, 0, 2, b"other")).duplicate);
    assert_eq!(replica.state.blob(&[1; 32]).unwrap().concat(), b"whole");
}

#[test]
fn what_nothing_names_expires_after_an_hour_without_a_put() {
    let mut replica = Replica::new();
    replica.done(chunk(1, 0, 1, b"a"));
    replica.pass(HOUR_MS);
    assert!(replica.done(sweep(1)).duplicate);
    assert!(
        !replica.done(chunk(1, 0, 1, b"a")).duplicate,
        "its hour began anew"
    );
    replica.pass(HOUR_MS);
    assert!(replica.done(sweep(1)).duplicate);
    replica.pass(1);
    assert!(!replica.done(sweep(1)).duplicate);
    assert_eq!(replica.state.counts().blob_bytes, 0);
}
