//! Marker files: the exit code of a wrapped process, written by entrypoint, awaited by sidecar.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use crate::go_process;

/// Looks again this often even if no event came.
const POLL: Duration = Duration::from_secs(10);

/// Exit code, or why it is not known.
pub(crate) type Marker = Result<i64, String>;

/// Writes a marker so that readers see nothing or the whole of it (POD-063).
pub(crate) fn write(path: &Path, code: i64) -> io::Result<()> {
    let name = path
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let mut file = File::create(&temporary)?;
    file.write_all(code.to_string().as_bytes())?;
    file.sync_all()?;
    fs::set_permissions(&temporary, Permissions::from_mode(0o777))?;
    fs::rename(&temporary, path)
}

/// `None` while there is no such file.
pub(crate) fn read(path: &Path) -> Option<Marker> {
    match fs::read_to_string(path) {
        Ok(text) => Some(
            text.trim()
                .parse()
                .map_err(|e| format!("invalid return code: {e}")),
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(Err(format!("bad read: {}", go_process::os_error(&error)))),
    }
}

/// Waits until each of the files is there. They must lie in one directory; it is watched. Waits without limit: the
/// sidecar lives as long as the process beside it, and whoever runs both ends them.
pub(crate) async fn wait_for(paths: &[String]) -> BTreeMap<String, Marker> {
    let all = |why: String| {
        paths
            .iter()
            .map(|p| (p.clone(), Err(why.clone())))
            .collect()
    };
    let Some(dir) = paths.first().map(|p| parent(p)) else {
        return BTreeMap::new();
    };
    if paths.iter().any(|p| parent(p) != dir) {
        return all("marker files are not all written to the same directory".to_owned());
    }
    let mut watch = match Watch::new(dir) {
        Ok(watch) => watch,
        Err(error) => return all(format!("watch {}: {error}", dir.display())),
    };
    loop {
        let found: BTreeMap<String, Marker> = paths
            .iter()
            .filter_map(|p| Some((p.clone(), read(Path::new(p))?)))
            .collect();
        if found.len() == paths.len() {
            return found;
        }
        // Whichever comes first, the files are looked at again.
        let _ = tokio::time::timeout(POLL, watch.changed()).await;
    }
}

fn parent(path: &str) -> &Path {
    Path::new(path).parent().unwrap_or(Path::new("."))
}

/// Tells when something was written or moved into a directory. A thread reads the kernel's events; taking the watch
/// away makes one last event, which ends it.
#[cfg(target_os = "linux")]
struct Watch {
    events: std::sync::Arc<std::os::fd::OwnedFd>,
    watch: i32,
    changed: std::sync::Arc<tokio::sync::Notify>,
}

#[cfg(target_os = "linux")]
impl Watch {
    fn new(dir: &Path) -> io::Result<Self> {
        use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init};
        use std::sync::Arc;

        let events = Arc::new(init(CreateFlags::CLOEXEC)?);
        // Not on creation: a file that is still being written has no code in it yet.
        let watch = add_watch(
            &events,
            dir,
            WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE | WatchFlags::ONLYDIR,
        )?;
        let changed = Arc::new(tokio::sync::Notify::new());
        let (reading, notify) = (Arc::clone(&events), Arc::clone(&changed));
        std::thread::spawn(move || {
            let mut buffer = [const { std::mem::MaybeUninit::uninit() }; 4096];
            let mut reader = Reader::new(&*reading, &mut buffer);
            while let Ok(event) = reader.next() {
                if event.events().contains(ReadFlags::IGNORED) {
                    break;
                }
                notify.notify_one();
            }
        });
        Ok(Self {
            events,
            watch,
            changed,
        })
    }

    async fn changed(&mut self) {
        self.changed.notified().await;
    }
}

#[cfg(target_os = "linux")]
impl Drop for Watch {
    fn drop(&mut self) {
        // It is gone already if the directory is.
        let _ = rustix::fs::inotify::remove_watch(&self.events, self.watch);
    }
}

/// Elsewhere the poll alone must do.
#[cfg(not(target_os = "linux"))]
struct Watch;

#[cfg(not(target_os = "linux"))]
impl Watch {
    fn new(_: &Path) -> io::Result<Self> {
        Ok(Self)
    }
    async fn changed(&mut self) {
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pod_081_markers_are_seen_as_they_appear() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let paths = [path("a"), path("b"), path("c")];
        write(Path::new(&paths[0]), -1).unwrap();
        let waiting = tokio::spawn({
            let paths = paths.clone();
            async move { wait_for(&paths).await }
        });
        tokio::task::yield_now().await;
        write(Path::new(&paths[1]), 130).unwrap();
        fs::write(&paths[2], "x").unwrap();
        let found = tokio::time::timeout(POLL / 2, waiting)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(found[&paths[0]], Ok(-1));
        assert_eq!(found[&paths[1]], Ok(130));
        assert_eq!(
            found[&paths[2]],
            Err("invalid return code: invalid digit found in string".to_owned())
        );
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            3,
            "no temporary files stay"
        );
        assert_eq!(
            fs::metadata(&paths[1]).unwrap().permissions().mode() & 0o777,
            0o777
        );
    }

    #[tokio::test]
    async fn pod_081_one_directory_only() {
        let found = wait_for(&["/a/x".to_owned(), "/b/x".to_owned()]).await;
        assert!(found.values().all(Result::is_err));
        let found = wait_for(&["/no/such/directory/x".to_owned()]).await;
        assert!(found.values().all(Result::is_err));
    }
}
