//! The overlay over both stores, and sled's directory.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use proptest::prelude::*;

use super::*;

fn put(key: &str, value: &str) -> ArchiveOp {
    ArchiveOp::Put {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
    }
}

fn delete(key: &str) -> ArchiveOp {
    ArchiveOp::Delete {
        key: Bytes::copy_from_slice(key.as_bytes()),
    }
}

fn sled(dir: &Path) -> Archive {
    Archive::open(Arc::new(SledHome::new(dir)), &ArchiveOptions::default()).unwrap()
}

fn get(archive: &Archive, key: &str) -> Option<String> {
    let value = archive.get(key.as_bytes()).unwrap()?;
    Some(String::from_utf8(value.to_vec()).unwrap())
}

fn all(archive: &Archive) -> Vec<Row> {
    let everything = (Bound::Unbounded, Bound::Unbounded);
    archive.range(everything, false, usize::MAX).unwrap()
}

#[tokio::test]
async fn what_is_checkpointed_is_found_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let archive = sled(dir.path());
    archive
        .submit(3, vec![put("a", "1"), put("b", "2")])
        .await
        .unwrap();
    archive
        .submit(5, vec![delete("a"), put("c", "")])
        .await
        .unwrap();
    assert_eq!(get(&archive, "a"), None, "read at once");
    assert_eq!(get(&archive, "c").as_deref(), Some(""));
    archive.checkpoint(9).await.unwrap();
    drop(archive);
    let archive = sled(dir.path());
    assert_eq!(archive.lost(), None);
    assert_eq!(archive.applied().unwrap(), 9);
    let keys: Vec<_> = all(&archive).into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["b", "c"]);
}

#[tokio::test]
async fn a_store_of_another_format_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let archive = sled(dir.path());
    archive.submit(3, vec![put("a", "1")]).await.unwrap();
    archive.checkpoint(3).await.unwrap();
    drop(archive);
    fs::write(dir.path().join("CURRENT"), "sled-1.0 7 db-1\n").unwrap();
    let archive = sled(dir.path());
    insta::assert_snapshot!(archive.lost().unwrap(), @"CURRENT says `sled-1.0 7 db-1`, expected `sled-0.34 1 db-<n>`");
    assert!(dir.path().join("broken-1").exists());
    assert_eq!((get(&archive, "a"), archive.applied().unwrap()), (None, 0));
    archive.submit(4, vec![put("b", "1")]).await.unwrap();
    drop(archive);
    assert_eq!(get(&sled(dir.path()), "b").as_deref(), Some("1"));
}

#[tokio::test]
async fn a_damaged_store_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let archive = sled(dir.path());
    archive.submit(3, vec![put("a", "1")]).await.unwrap();
    archive.checkpoint(3).await.unwrap();
    drop(archive);
    let conf = dir.path().join("db-1/conf");
    let mut bytes = fs::read(&conf).unwrap();
    bytes[0] ^= 0xff;
    fs::write(&conf, bytes).unwrap();
    let archive = sled(dir.path());
    assert!(archive.lost().is_some());
    assert_eq!(get(&archive, "a"), None);
}

/// A store that is not damaged is never set aside: its owner may be about to let go of it.
#[tokio::test]
async fn a_store_that_is_open_elsewhere_is_waited_for_then_refused() {
    let dir = tempfile::tempdir().unwrap();
    let archive = sled(dir.path());
    archive.submit(3, vec![put("a", "1")]).await.unwrap();
    archive.checkpoint(3).await.unwrap();
    let impatient = SledHome::new(dir.path()).waiting(Duration::from_millis(50));
    let refused = impatient.open().unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
    let path = dir.path().display().to_string();
    insta::assert_snapshot!(refused.to_string().replace(&path, "archive"), @"archive/db-1 is open elsewhere, and nothing in it was changed: end whatever uses it (`fuser archive/db-1/db` names it), then start again");
    assert!(!dir.path().join("broken-1").exists());

    let second = SledHome::new(dir.path());
    let (begun, begins) = std::sync::mpsc::channel();
    let opening = std::thread::spawn(move || {
        begun.send(()).unwrap();
        second.open()
    });
    begins.recv().unwrap();
    // Long enough to find it held.
    std::thread::sleep(Duration::from_millis(200));
    assert!(!opening.is_finished());
    // Whoever holds it still, a closed archive holds its store no more.
    archive.close();
    let opened = opening.join().unwrap().unwrap();
    assert_eq!(opened.lost, None);
    assert_eq!(opened.store.applied().unwrap(), 3);
    assert_eq!(
        archive.get(b"a").unwrap_err().kind(),
        io::ErrorKind::BrokenPipe
    );
}

#[tokio::test]
async fn what_the_system_refuses_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let archive = sled(dir.path());
    archive.submit(3, vec![put("a", "1")]).await.unwrap();
    archive.checkpoint(3).await.unwrap();
    drop(archive);
    // Even root is refused to write a directory.
    let (conf, away) = (dir.path().join("db-1/conf"), dir.path().join("conf"));
    fs::rename(&conf, &away).unwrap();
    fs::create_dir(&conf).unwrap();
    fs::write(conf.join("in the way"), "").unwrap();
    let refused = SledHome::new(dir.path()).open().unwrap_err();
    let path = dir.path().display().to_string();
    insta::assert_snapshot!(refused.to_string().replace(&path, "archive"), @"archive/db-1: Is a directory (os error 21); nothing in it was changed: mend that, then start again");
    fs::remove_dir_all(&conf).unwrap();
    fs::rename(&away, &conf).unwrap();
    let archive = sled(dir.path());
    assert_eq!(
        (archive.lost(), get(&archive, "a").as_deref()),
        (None, Some("1"))
    );
}

/// Directories of databases.
fn databases(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.starts_with("db-")).collect();
    names.sort();
    names
}

/// Waits until a former database was removed.
fn left_alone(dir: &Path, database: &str) {
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while databases(dir) != [database] {
        assert!(std::time::Instant::now() < deadline, "{:?}", databases(dir));
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn a_replacement_counts_only_once_it_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    let archive = sled(dir.path());
    archive.submit(3, vec![put("a", "old")]).await.unwrap();
    archive.checkpoint(3).await.unwrap();
    archive.begin_fill(3).await.unwrap();
    let next = archive.begin_replacement().unwrap();
    next.store().unwrap().write(&[put("b", "new")], 0).unwrap();
    // One that is given up takes no room.
    drop(next);
    left_alone(dir.path(), "db-1");
    drop(archive);
    let archive = sled(dir.path());
    assert_eq!(get(&archive, "a").as_deref(), Some("old"));
    assert_eq!(archive.missing(), Some(3));
    // Two at once are two.
    let other = archive.begin_replacement().unwrap();
    let next = archive.begin_replacement().unwrap();
    let store = next.store().unwrap();
    store.write(&[put("b", "new")], 7).unwrap();
    store.checkpoint().unwrap();
    archive.replace(next).await.unwrap();
    assert_eq!(
        (get(&archive, "a"), get(&archive, "b").as_deref()),
        (None, Some("new"))
    );
    assert_eq!(archive.missing(), None, "a replacement lacks nothing");
    drop(other);
    let present = fs::read_to_string(dir.path().join("CURRENT")).unwrap();
    let present = present.trim().rsplit(' ').next().unwrap();
    left_alone(dir.path(), present);
    drop(archive);
    let archive = sled(dir.path());
    assert_eq!((all(&archive).len(), archive.applied().unwrap()), (1, 7));
}

#[tokio::test]
async fn filling_in_gives_way_to_what_was_written_since() {
    let home = Arc::new(MemoryHome::default());
    let archive = Archive::open(home, &ArchiveOptions::default()).unwrap();
    archive.begin_fill(4).await.unwrap();
    archive.submit(5, vec![put("a", "new")]).await.unwrap();
    let row = |key: &'static str| (Bytes::from(key), Bytes::from("old"));
    archive.fill(vec![row("a"), row("c")]).await.unwrap();
    archive.end_fill(4).await.unwrap();
    assert_eq!(get(&archive, "a").as_deref(), Some("new"));
    assert_eq!(get(&archive, "c").as_deref(), Some("old"));
}

/// What is missing is known until it was filled in, however often the node is started meanwhile.
#[tokio::test]
async fn rows_are_missing_until_all_of_them_were_filled_in() {
    let dir = tempfile::tempdir().unwrap();
    let archive = sled(dir.path());
    assert_eq!(archive.missing(), None);
    archive.begin_fill(7).await.unwrap();
    archive.submit(8, vec![put("a", "1")]).await.unwrap();
    archive.checkpoint(9).await.unwrap();
    drop(archive);
    let archive = sled(dir.path());
    assert_eq!((archive.missing(), archive.lost()), (Some(7), None));
    // More became missing while it was filled.
    archive.begin_fill(12).await.unwrap();
    archive.begin_fill(10).await.unwrap();
    archive.end_fill(7).await.unwrap();
    assert_eq!(archive.missing(), Some(12));
    archive.end_fill(12).await.unwrap();
    drop(archive);
    let archive = sled(dir.path());
    assert_eq!((archive.missing(), archive.applied().unwrap()), (None, 12));
}

/// Performs nothing until it is allowed to.
#[derive(Debug)]
struct Gate {
    inner: Arc<dyn ArchiveStore>,
    open: Mutex<bool>,
    opened: std::sync::Condvar,
}

impl ArchiveStore for Gate {
    fn applied(&self) -> io::Result<u64> {
        self.inner.applied()
    }
    fn owner(&self) -> io::Result<Option<String>> {
        self.inner.owner()
    }
    fn set_owner(&self, cluster_id: &str) -> io::Result<()> {
        self.inner.set_owner(cluster_id)
    }
    fn missing(&self) -> io::Result<Option<u64>> {
        self.inner.missing()
    }
    fn set_missing(&self, upto: Option<u64>) -> io::Result<()> {
        self.inner.set_missing(upto)
    }
    fn write(&self, ops: &[ArchiveOp], applied: u64) -> io::Result<()> {
        let _open = self
            .opened
            .wait_while(self.open.lock().unwrap(), |open| !*open)
            .unwrap();
        self.inner.write(ops, applied)
    }
    fn get(&self, key: &[u8]) -> io::Result<Option<Bytes>> {
        self.inner.get(key)
    }
    fn range(
        &self,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        reverse: bool,
        limit: usize,
    ) -> io::Result<Vec<Row>> {
        self.inner.range(range, reverse, limit)
    }
    fn checkpoint(&self) -> io::Result<()> {
        self.inner.checkpoint()
    }
}

#[derive(Debug)]
struct GateHome(Arc<Gate>);

impl ArchiveHome for GateHome {
    fn open(&self) -> io::Result<Opened> {
        Ok(Opened {
            store: Arc::clone(&self.0) as Arc<dyn ArchiveStore>,
            lost: None,
        })
    }
    fn begin(&self) -> io::Result<(u64, Arc<dyn ArchiveStore>)> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn finish(&self, _: u64) -> io::Result<u64> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn discard(&self, _: u64) {}
}

fn gated(open: bool, overlay_bytes: usize) -> (Arc<Gate>, Archive) {
    let gate = Arc::new(Gate {
        inner: MemoryHome::default().open().unwrap().store,
        open: Mutex::new(open),
        opened: std::sync::Condvar::new(),
    });
    let options = ArchiveOptions { overlay_bytes };
    let archive = Archive::open(Arc::new(GateHome(Arc::clone(&gate))), &options).unwrap();
    (gate, archive)
}

impl Gate {
    fn let_through(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

#[tokio::test]
async fn a_full_overlay_makes_apply_wait() {
    let (gate, archive) = gated(false, 2048);
    let value = "x".repeat(1000);
    archive.submit(1, vec![put("a", &value)]).await.unwrap();
    archive.submit(2, vec![put("b", &value)]).await.unwrap();
    let mut third = Box::pin(archive.submit(3, vec![put("c", &value)]));
    assert!(futures::poll!(&mut third).is_pending());
    gate.let_through();
    third.await.unwrap();
    archive.checkpoint(3).await.unwrap();
    assert_eq!(all(&archive).len(), 3);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    /// Half of it in the store, half in the overlay: ranges read as if all were in one place.
    #[test]
    fn ranges_read_through_the_overlay(
        written in proptest::collection::vec((0..12u8, any::<bool>()), 0..20),
        waiting in proptest::collection::vec((0..12u8, any::<bool>()), 0..20),
        from in 0..12u8, to in 0..14u8, reverse: bool, limit in 0..8usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (gate, archive) = gated(true, 1 << 20);
            let mut model = BTreeMap::new();
            let mut index = 0;
            for (round, ops) in [written, waiting].into_iter().enumerate() {
                if round == 1 {
                    archive.checkpoint(index).await.unwrap();
                    *gate.open.lock().unwrap() = false;
                }
                for (key, is_put) in ops {
                    index += 1;
                    let key = format!("k{key:02}");
                    if is_put {
                        let value = format!("{index}");
                        archive.submit(index, vec![put(&key, &value)]).await.unwrap();
                        model.insert(Bytes::from(key), Bytes::from(value));
                    } else {
                        archive.submit(index, vec![delete(&key)]).await.unwrap();
                        model.remove(key.as_bytes());
                    }
                }
            }
            let (from, to) = (format!("k{from:02}"), format!("k{to:02}"));
            let range = (Bound::Included(from.as_bytes()), Bound::Excluded(to.as_bytes()));
            let found = archive.range(range, reverse, limit).unwrap();
            let mut expected: Vec<Row> = model
                .into_iter()
                .filter(|(key, _)| *key >= from.as_bytes() && *key < to.as_bytes())
                .collect();
            if reverse {
                expected.reverse();
            }
            expected.truncate(limit);
            gate.let_through();
            prop_assert_eq!(found, expected);
            Ok(())
        })?;
    }
}

fn saved(rows: &mut SavedRows, index: u64) -> io::Result<Vec<(String, String)>> {
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    let mut all = Vec::new();
    while let Some(page) = rows.next(index)? {
        all.extend(page.iter().map(|(key, value)| (text(key), text(value))));
    }
    Ok(all)
}

/// What a saved snapshot holds is the archive at its index, whatever is written while it is read.
#[tokio::test]
async fn rows_are_saved_as_they_were_at_an_index() {
    let archive = Arc::new(
        Archive::open(Arc::new(MemoryHome::default()), &ArchiveOptions::default()).unwrap(),
    );
    let kept: Vec<_> = (0..2500).map(|n| put(&format!("k{n:04}"), "old")).collect();
    archive.submit(3, kept).await.unwrap();
    let mut reader = archive.begin_save().unwrap();
    assert!(archive.begin_save().is_none(), "one at a time");
    assert_eq!(reader.floor, 3);
    archive
        .submit(4, vec![put("k0001", "four"), put("n1", "four")])
        .await
        .unwrap();
    archive.checkpoint(4).await.unwrap();
    // The index wanted is 4; what follows comes too late.
    let first = reader.next(4).unwrap().unwrap();
    assert_eq!(first.len(), 1000);
    archive
        .submit(
            5,
            vec![put("n1", "five"), delete("k2000"), put("n2", "five")],
        )
        .await
        .unwrap();
    archive
        .submit(6, vec![put("k2001", "six"), put("n1", "six"), delete("n2")])
        .await
        .unwrap();
    archive.checkpoint(6).await.unwrap();
    let rest = saved(&mut reader, 4).unwrap();
    let value = |key: &str| {
        let found = rest.iter().find(|(found, _)| found == key);
        found.map(|(_, value)| value.clone())
    };
    assert_eq!(rest.len(), 1501);
    assert_eq!(value("n1").as_deref(), Some("four"));
    assert_eq!(value("n2"), None);
    assert_eq!(value("k2000").as_deref(), Some("old"));
    assert_eq!(value("k2001").as_deref(), Some("old"));
    drop(reader);
    let mut reader = archive.begin_save().unwrap();
    assert_eq!(saved(&mut reader, 6).unwrap().len(), 2500);

    // A replaced store is another history.
    let replacement = archive.begin_replacement().unwrap();
    drop(reader);
    let mut reader = archive.begin_save().unwrap();
    archive.replace(replacement).await.unwrap();
    let error = reader.next(6).unwrap_err().to_string();
    assert!(error.contains("save again"), "{error}");
}
