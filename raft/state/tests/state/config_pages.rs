//! Configurations as pages: runs of files that versions share.

use trireme_proto::state::{self as pb, Rejection, command::Body};
use trireme_state::{
    PAGES_LEVEL, ROLES_LEVEL, State, archive_keys, config_file_count, config_pages,
    ids::config_tree, limits::MAX_CONFIG_PAGE_FILES, min_level_of,
};

use crate::replica::{HOUR_MS, Replica, blob, chunk, code, command, config};

fn leveled() -> Replica {
    let mut replica = Replica::new();
    replica.done(Body::RaiseFeatureLevel(pb::RaiseFeatureLevel {
        level: PAGES_LEVEL,
    }));
    replica
}

fn file(path: &str, name: u8) -> pb::ConfigFile {
    pb::ConfigFile {
        role: "job".into(),
        path: path.into(),
        blob: Some(blob(name, 1000)),
    }
}

fn put_page(page: &pb::ConfigPage) -> Body {
    Body::PutConfigPage(pb::PutConfigPage {
        page: Some(page.clone()),
    })
}

fn page(files: &[pb::ConfigFile]) -> pb::ConfigPage {
    pb::ConfigPage {
        files: files.to_vec(),
        ..pb::ConfigPage::default()
    }
}

fn naming(pages: &[&pb::ConfigPage]) -> Body {
    let names = pages
        .iter()
        .map(|page| trireme_state::ids::config_page(&page.files).to_vec().into());
    Body::PutConfig(pb::PutConfig {
        config: Some(pb::ConfigVersion {
            pages: names.collect(),
            ..pb::ConfigVersion::default()
        }),
        expected_current: 0,
    })
}

fn sweep(state: &State, now_ms: i64) -> Body {
    Body::SweepBlobs(pb::SweepBlobs {
        sha256: state
            .expired_blobs(now_ms)
            .map(|sha| sha.to_vec().into())
            .collect(),
        config_pages: state.expired_config_pages(now_ms).cloned().collect(),
    })
}

fn put_blobs(replica: &mut Replica, names: impl IntoIterator<Item = u8>) {
    for name in names {
        replica.done(chunk(name, 0, 1, &[name]));
    }
}

#[test]
fn a_version_of_pages_has_their_files_and_a_root_of_their_names() {
    let mut replica = leveled();
    put_blobs(&mut replica, 1..=4);
    let (first, second) = (
        page(&[file("a", 1), file("b", 2)]),
        page(&[file("c", 3), file("d", 4)]),
    );
    replica.done(put_page(&first));
    replica.done(put_page(&second));
    assert_eq!(replica.done(naming(&[&first, &second])).config_version, 1);
    let version = replica.state.config().unwrap().clone();
    assert_eq!(version.root, config_tree(&version.pages).as_slice());
    assert_eq!((version.paged_files, version.paged_bytes), (4, 4000));
    assert_eq!(config_file_count(&version), 4);
    let files = replica.state.config_files(&version).unwrap();
    let paths: Vec<_> = files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["a", "b", "c", "d"]);

    // A version may change one page and keep the other.
    put_blobs(&mut replica, [5]);
    let changed = page(&[file("c", 5), file("d", 4)]);
    replica.done(put_page(&changed));
    assert_eq!(replica.done(naming(&[&first, &changed])).config_version, 2);
    assert_eq!(replica.state.counts().config_pages, 3);
}

/// A cluster that has not raised its level keeps to configurations that hold their files themselves.
#[test]
fn below_their_level_pages_are_refused_and_inline_files_still_do() {
    let mut replica = Replica::new();
    put_blobs(&mut replica, [1]);
    let some = page(&[file("a", 1)]);
    assert_eq!(min_level_of(&command(put_page(&some))), PAGES_LEVEL);
    assert_eq!(min_level_of(&command(naming(&[&some]))), PAGES_LEVEL);
    let sourced = pb::PutConfig {
        config: Some(pb::ConfigVersion {
            source: "commit".into(),
            ..config(1).config.unwrap()
        }),
        ..config(1)
    };
    assert_eq!(
        min_level_of(&command(Body::PutConfig(sourced))),
        PAGES_LEVEL
    );
    assert_eq!(replica.refused(put_page(&some)), Rejection::Conflict);
    assert_eq!(replica.refused(naming(&[&some])), Rejection::Conflict);
    assert_eq!(min_level_of(&command(Body::PutConfig(config(1)))), 1);
    assert_eq!(replica.done(Body::PutConfig(config(1))).config_version, 1);
    // The same goes on above it, and both kinds stand side by side.
    replica.done(Body::RaiseFeatureLevel(pb::RaiseFeatureLevel {
        level: PAGES_LEVEL,
    }));
    replica.done(put_page(&some));
    replica.done(naming(&[&some]));
    assert_eq!(replica.done(Body::PutConfig(config(1))).config_version, 3);
}

/// A build of the level before would not know what such a file is, and must not apply it.
#[test]
fn roles_of_their_own_level_are_refused_below_it() {
    let mut replica = leveled();
    put_blobs(&mut replica, [1]);
    for role in ["plugin_supplemental", "job+supplemental"] {
        let role = role.to_owned();
        let some = page(&[pb::ConfigFile {
            role,
            ..file("a", 1)
        }]);
        let mut inline = config(1);
        inline.config.as_mut().unwrap().files = some.files.clone();
        for body in [put_page(&some), Body::PutConfig(inline)] {
            assert_eq!(min_level_of(&command(body.clone())), ROLES_LEVEL);
            assert_eq!(replica.refused(body), Rejection::Conflict);
        }
    }
    replica.done(Body::RaiseFeatureLevel(pb::RaiseFeatureLevel {
        level: ROLES_LEVEL,
    }));
    let role = "plugin_supplemental".to_owned();
    replica.done(put_page(&page(&[pb::ConfigFile {
        role,
        ..file("a", 1)
    }])));
    let role = "supplemental+job".to_owned();
    let unknown = page(&[pb::ConfigFile {
        role,
        ..file("a", 1)
    }]);
    assert_eq!(replica.refused(put_page(&unknown)), Rejection::Invalid);
}

#[test]
fn malformed_pages_and_versions_are_refused() {
    let mut replica = leveled();
    put_blobs(&mut replica, 1..=3);
    let refused =
        |replica: &mut Replica, files: &[pb::ConfigFile]| code(replica.run(put_page(&page(files))));
    assert_eq!(refused(&mut replica, &[]), Rejection::Invalid);
    assert_eq!(refused(&mut replica, &[file("a", 9)]), Rejection::NotFound);
    let unsorted = [file("b", 1), file("a", 2)];
    assert_eq!(refused(&mut replica, &unsorted), Rejection::Invalid);
    let twice = [file("a", 1), file("a", 2)];
    assert_eq!(refused(&mut replica, &twice), Rejection::Invalid);
    let many: Vec<_> = (0..=MAX_CONFIG_PAGE_FILES)
        .map(|at| file(&format!("{at:04}"), 1))
        .collect();
    assert_eq!(refused(&mut replica, &many), Rejection::Invalid);
    let long: Vec<_> = (0..200)
        .map(|at| file(&format!("{}{at:04}", "x".repeat(1000)), 1))
        .collect();
    assert_eq!(refused(&mut replica, &long), Rejection::Invalid);
    let misnamed = pb::ConfigPage {
        sha256: vec![1; 32].into(),
        ..page(&[file("a", 1)])
    };
    assert_eq!(replica.refused(put_page(&misnamed)), Rejection::Invalid);

    let (a, b) = (page(&[file("a", 1), file("c", 1)]), page(&[file("b", 2)]));
    assert_eq!(replica.refused(naming(&[&a])), Rejection::NotFound);
    replica.done(put_page(&a));
    replica.done(put_page(&b));
    assert_eq!(replica.refused(naming(&[&a, &b])), Rejection::Invalid);
    assert_eq!(replica.refused(naming(&[&a, &a])), Rejection::Invalid);
    let both = pb::PutConfig {
        config: Some(pb::ConfigVersion {
            pages: vec![vec![1; 32].into()],
            ..config(1).config.unwrap()
        }),
        ..config(1)
    };
    assert_eq!(replica.refused(Body::PutConfig(both)), Rejection::Invalid);
    replica.done(naming(&[&b]));
}

#[test]
fn a_page_keeps_its_blobs_and_is_swept_when_no_version_names_it() {
    let mut replica = leveled();
    put_blobs(&mut replica, [1, 2]);
    let (kept, dropped) = (page(&[file("a", 1)]), page(&[file("b", 2)]));
    replica.done(put_page(&kept));
    replica.done(put_page(&dropped));
    replica.done(naming(&[&kept]));
    replica.pass(HOUR_MS);
    assert!(
        !replica.done(put_page(&dropped)).duplicate,
        "its hour began anew"
    );
    assert!(replica.done(put_page(&kept)).duplicate);
    replica.pass(HOUR_MS);
    assert!(
        replica
            .done(sweep(&replica.state.clone(), replica.now_ms))
            .duplicate
    );
    replica.pass(1);
    assert_eq!(
        replica.state.expired_config_pages(replica.now_ms).count(),
        1
    );
    assert_eq!(replica.state.expired_blobs(replica.now_ms).count(), 0);
    let all = Body::SweepBlobs(pb::SweepBlobs {
        sha256: vec![],
        config_pages: [&kept, &dropped]
            .map(|page| trireme_state::ids::config_page(&page.files).to_vec().into())
            .to_vec(),
    });
    assert!(!replica.done(all).duplicate);
    assert_eq!(replica.state.counts().config_pages, 1);
    let rest = sweep(&replica.state, replica.now_ms);
    assert!(!replica.done(rest).duplicate);
    assert!(replica.state.has_blob(&[1; 32]));
    assert!(!replica.state.has_blob(&[2; 32]));
}

#[test]
fn what_only_old_versions_have_moves_to_the_archive() {
    let mut replica = leveled();
    put_blobs(&mut replica, 1..=22);
    let shared = page(&[file("a", 22)]);
    replica.done(put_page(&shared));
    for name in 1..=21 {
        let own = page(&[file("b", name)]);
        replica.done(put_page(&own));
        replica.done(naming(&[&shared, &own]));
    }
    let first = page(&[file("b", 1)]);
    let name = trireme_state::ids::config_page(&first.files);
    assert!(replica.state.config_page(&name).is_none());
    let rows = replica
        .archive
        .iter()
        .map(|(key, value)| (&key[..], &value[..]));
    let keys: Vec<_> = archive_keys::join(rows)
        .unwrap()
        .into_iter()
        .map(|(key, _)| key)
        .collect();
    assert_eq!(
        keys,
        [
            archive_keys::config(1).prefix(),
            archive_keys::config_page(&name).prefix(),
            archive_keys::blob(&[1; 32]).prefix(),
        ]
    );
    // Brought back, it is as it was.
    replica.done(put_page(&first));
    replica.done(naming(&[&shared, &first]));
}

/// The split that doors make is one that apply takes.
#[test]
fn the_pages_that_files_are_cut_into_make_a_version() {
    let mut replica = leveled();
    put_blobs(&mut replica, [1]);
    let files: Vec<_> = (0..500).map(|at| file(&format!("{at}"), 1)).collect();
    let pages = config_pages(files);
    for page in &pages {
        replica.done(put_page(page));
    }
    replica.done(naming(&pages.iter().collect::<Vec<_>>()));
    let version = replica.state.config().unwrap();
    assert_eq!(version.paged_files, 500);
}

#[test]
fn a_blob_that_may_go_soon_is_to_be_put_again() {
    let mut replica = leveled();
    put_blobs(&mut replica, [1, 2]);
    replica.done(put_page(&page(&[file("a", 1)])));
    let keeps = |replica: &Replica, name| replica.state.keeps_blob(&[name; 32], replica.now_ms);
    assert!(keeps(&replica, 1) && keeps(&replica, 2) && !keeps(&replica, 3));
    replica.pass(HOUR_MS / 2 + 1);
    assert!(keeps(&replica, 1), "a page names it");
    assert!(!keeps(&replica, 2));
}
