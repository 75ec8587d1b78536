//! Secrets that this process reads from files (CFG-096, CFG-099): read again when they change, asked for at each use, and
//! kept out of the log.

mod censor;

use std::{
    fmt, fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, ensure};
use arc_swap::ArcSwap;
use tokio::{task::spawn_blocking, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

pub(crate) use self::censor::{Censor, Censored};

/// Between two looks at the files.
const LOOK: Duration = Duration::from_secs(1);
/// Looks after which all are read again, changed or not: ten minutes.
const LOOKS_TO_REREAD: u32 = 600;
/// A larger file is no secret, in bytes (Kubernetes allows 1 MiB).
const MAX_SECRET_FILE: u64 = 1 << 20;

/// What tells two contents of a file apart without reading them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: (i64, i64),
    inode: u64,
    size: u64,
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let meta = fs::metadata(path).ok()?;
        Some(Self {
            modified: (meta.mtime(), meta.mtime_nsec()),
            inode: meta.ino(),
            size: meta.size(),
        })
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    let size = fs::metadata(path)?.len();
    ensure!(
        size <= MAX_SECRET_FILE,
        "{size} bytes are more than the {MAX_SECRET_FILE} that a secret may have"
    );
    let text = fs::read_to_string(path)?;
    ensure!(!text.trim().is_empty(), "it is empty");
    Ok(text)
}

/// A value of a file as it was when it was last good.
pub(crate) struct SecretFile<T>(Arc<ArcSwap<T>>);

impl<T> Clone for SecretFile<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> SecretFile<T> {
    /// To be asked for at each use.
    pub(crate) fn get(&self) -> Arc<T> {
        self.0.load_full()
    }
}

impl<T> fmt::Debug for SecretFile<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretFile(…)")
    }
}

/// What a file says, and what of it must not be shown.
pub(crate) struct Parsed<T> {
    pub(crate) value: T,
    /// Secrets inside of the content, beside the whole of it.
    pub(crate) parts: Vec<String>,
}

struct Watched {
    /// The key in the settings.
    key: String,
    path: PathBuf,
    /// Of what was last read.
    stamp: Option<Stamp>,
    /// Of the look before: what changed since may still be being written.
    seen: Option<Stamp>,
    /// Takes the content if it can.
    take: Box<Take>,
}

type Take = dyn Fn(&str) -> Result<(), String> + Send;

impl Watched {
    /// Reads it again if it changed and the look before found the same, or in any case; what is no good changes nothing.
    fn look(&mut self, in_any_case: bool) {
        let stamp = Stamp::of(&self.path);
        let changed = stamp != self.stamp;
        let settled = std::mem::replace(&mut self.seen, stamp) == stamp;
        if !(in_any_case || changed) || (changed && !settled) {
            return;
        }
        let content = read(&self.path);
        let after = Stamp::of(&self.path);
        if after != stamp {
            self.seen = after;
            return;
        }
        self.stamp = stamp;
        let taken = content
            .map_err(|why| format!("{why:#}"))
            .and_then(|text| (self.take)(&text));
        match taken {
            Ok(()) if changed => {
                tracing::info!(key = self.key, path = %self.path.display(), "the changed secret is in use");
            }
            Ok(()) => {}
            Err(why) => {
                tracing::warn!(key = self.key, path = %self.path.display(), why, "the former secret stays in use");
            }
        }
    }
}

/// All secret files of a process. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Secrets {
    censor: Censor,
    files: Arc<Mutex<Vec<Watched>>>,
}

impl Secrets {
    pub(crate) fn new(censor: Censor) -> Self {
        Self {
            censor,
            files: Arc::default(),
        }
    }

    pub(crate) fn censor(&self) -> &Censor {
        &self.censor
    }

    /// A file whose whole content, trimmed, is the secret.
    ///
    /// # Errors
    /// When it cannot be read or is empty.
    pub(crate) fn text(
        &self,
        key: &'static str,
        path: &Path,
    ) -> anyhow::Result<SecretFile<String>> {
        self.typed(key, path, |text| {
            Ok(Parsed {
                value: text.trim().to_owned(),
                parts: Vec::new(),
            })
        })
    }

    /// A file whose content must be of a form. What is not, later, leaves the former value.
    ///
    /// # Errors
    /// When it cannot be read, is empty, or is not of the form.
    pub(crate) fn typed<T: Send + Sync + 'static>(
        &self,
        key: &str,
        path: &Path,
        parse: impl Fn(&str) -> Result<Parsed<T>, String> + Send + 'static,
    ) -> anyhow::Result<SecretFile<T>> {
        let what = || format!("{key}: {}", path.display());
        let stamp = Stamp::of(path);
        let text = read(path).with_context(what)?;
        let source = path.display().to_string();
        let censor = self.censor.clone();
        let hide = move |text: &str, parts: &[String]| {
            let whole = text.as_bytes().to_vec();
            let parts = parts.iter().map(|part| part.clone().into_bytes());
            censor.hide(&source, std::iter::once(whole).chain(parts).collect());
        };
        let first = parse(&text)
            .map_err(anyhow::Error::msg)
            .with_context(what)?;
        hide(&text, &first.parts);
        let held = Arc::new(ArcSwap::from_pointee(first.value));
        let taken = Arc::clone(&held);
        let watched = Watched {
            key: key.to_owned(),
            path: path.to_owned(),
            stamp,
            seen: stamp,
            take: Box::new(move |text| {
                let parsed = parse(text)?;
                // Before anybody can use it, and so show it.
                hide(text, &parsed.parts);
                taken.store(Arc::new(parsed.value));
                Ok(())
            }),
        };
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.push(watched);
        Ok(SecretFile(held))
    }

    fn look(&self, in_any_case: bool) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.iter_mut().for_each(|file| file.look(in_any_case));
        drop(files);
        self.censor.refresh(SystemTime::now());
    }

    /// Looks at the files until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = 0;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            looks = (looks + 1) % LOOKS_TO_REREAD;
            let (secrets, in_any_case) = (self.clone(), looks == 0);
            // A file may lie on a disk that is away.
            if let Err(why) = spawn_blocking(move || secrets.look(in_any_case)).await {
                tracing::error!(%why, "a look at the secret files ended");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Secrets {
        /// What changed and stands still is taken.
        fn look_twice(&self) {
            self.look(false);
            self.look(false);
        }
    }

    fn number(text: &str) -> Result<Parsed<u32>, String> {
        let value = text.trim().parse().map_err(|_| "no number".to_owned())?;
        Ok(Parsed {
            value,
            parts: vec![format!("part-{value}")],
        })
    }

    /// CFG-096: a missing file is an error at first, and changes nothing later; so does one that is not of its form.
    #[test]
    fn cfg_096_a_secret_file_is_read_again_and_its_last_good_value_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let secrets = Secrets::default();
        let refused = |told: anyhow::Result<SecretFile<String>>| format!("{:#}", told.unwrap_err());
        let told = refused(secrets.text("github.token_file", &path));
        assert!(
            told.starts_with(&format!(
                "github.token_file: {}: No such file",
                path.display()
            )),
            "{told}"
        );
        fs::write(&path, " \n").unwrap();
        assert!(refused(secrets.text("github.token_file", &path)).ends_with(": it is empty"));

        fs::write(&path, "first-secret \n").unwrap();
        let token = secrets.text("github.token_file", &path).unwrap();
        assert_eq!(*token.get(), "first-secret");
        fs::write(&path, "second-secret").unwrap();
        assert_eq!(*token.get(), "first-secret", "nobody looked yet");
        secrets.look_twice();
        assert_eq!(*token.get(), "second-secret");
        for bad in ["", "\n"] {
            fs::write(&path, bad).unwrap();
            secrets.look_twice();
        }
        fs::remove_file(&path).unwrap();
        secrets.look_twice();
        assert_eq!(*token.get(), "second-secret");
        assert_eq!(
            secrets.censor().clean_text("first-secret second-secret"),
            "XXXXXXXXXXXX XXXXXXXXXXXXX"
        );

        // As a kubelet swaps it: another file behind the same links.
        let data = |name: &str| dir.path().join(name);
        fs::create_dir(data("1")).unwrap();
        fs::create_dir(data("2")).unwrap();
        fs::write(data("1/number"), "1").unwrap();
        fs::write(data("2/number"), "22").unwrap();
        std::os::unix::fs::symlink("1", data("..data")).unwrap();
        let typed = secrets.typed("x", &data("..data/number"), number).unwrap();
        std::os::unix::fs::symlink("2", data("..data_tmp")).unwrap();
        fs::rename(data("..data_tmp"), data("..data")).unwrap();
        secrets.look_twice();
        assert_eq!(*typed.get(), 22);
        assert_eq!(secrets.censor().clean_text("part-22"), "XXXXXXX");
        fs::write(data("2/number"), "no").unwrap();
        secrets.look_twice();
        assert_eq!(*typed.get(), 22, "its parser does not take it");
        assert!(secrets.typed("x", &data("2/number"), number).is_err());
    }

    /// CFG-096: what is still being written is not used, whatever it looks like.
    #[test]
    fn cfg_096_a_secret_is_used_once_it_stands_still() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "old").unwrap();
        let secrets = Secrets::default();
        let token = secrets.text("t", &path).unwrap();
        for half in ["n", "ne", "new-"] {
            fs::write(&path, half).unwrap();
            secrets.look(half == "ne");
            assert_eq!(*token.get(), "old");
        }
        fs::write(&path, "new-secret").unwrap();
        secrets.look(false);
        assert_eq!(*token.get(), "old");
        secrets.look(false);
        assert_eq!(*token.get(), "new-secret");
    }

    /// CFG-096: within two looks, and every ten minutes whatever the file's stamp says.
    #[tokio::test]
    async fn cfg_096_changed_files_are_found_by_looking() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "one").unwrap();
        let secrets = Secrets::default();
        let token = secrets.text("t", &path).unwrap();
        let stop = CancellationToken::new();
        let running = tokio::spawn(secrets.clone().run(stop.clone()));
        fs::write(&path, "second").unwrap();
        let seen = tokio::time::timeout(Duration::from_secs(20), async {
            while *token.get() != "second" {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        seen.await.unwrap();
        stop.cancel();
        running.await.unwrap();

        // The stamp is the same: only a look in any case finds it.
        fs::write(&path, "fourth").unwrap();
        for file in secrets.files.lock().unwrap().iter_mut() {
            file.stamp = Stamp::of(&path);
            file.seen = file.stamp;
        }
        secrets.look(false);
        assert_eq!(*token.get(), "second");
        secrets.look(true);
        assert_eq!(*token.get(), "fourth");
        assert_eq!(LOOK * LOOKS_TO_REREAD, Duration::from_secs(600));
    }
}
