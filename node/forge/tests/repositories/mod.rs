//! Real repositories on disk, as a git server would have them, and mirrors of them.

#![allow(dead_code, reason = "each test program uses its part of this module")]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use trireme_forge::RepoId;
use trireme_forge::git::{MirrorLimits, Mirrors, MirrorsOptions};

/// A place with repositories, as a server would have them.
pub(crate) struct Server {
    pub(crate) dir: tempfile::TempDir,
}

impl Server {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn repository(&self, name: &str) -> Repository {
        let path = self.dir.path().join("remote/org").join(name);
        std::fs::create_dir_all(&path).unwrap();
        let repository = Repository {
            path,
            id: RepoId::new("org", name),
        };
        repository.git(&["init", "--quiet", "--initial-branch=main"]);
        repository
    }

    pub(crate) fn options(&self) -> MirrorsOptions {
        MirrorsOptions {
            dir: self.dir.path().join("cache"),
            remote: url::Url::from_file_path(self.dir.path().join("remote")).unwrap(),
            credentials: None,
            limits: MirrorLimits::default(),
        }
    }

    pub(crate) async fn mirrors(&self) -> Mirrors {
        Mirrors::open(self.options()).await.unwrap()
    }
}

pub(crate) struct Repository {
    pub(crate) path: PathBuf,
    pub(crate) id: RepoId,
}

impl Repository {
    pub(crate) fn git(&self, args: &[&str]) -> String {
        let output = Command::new("git")
            .current_dir(&self.path)
            .args([
                "-c",
                "user.name=t",
                "-c",
                "user.email=t@t",
                "-c",
                "commit.gpgSign=false",
            ])
            .args(args)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Runs a script of `git fast-import`: many commits or files in no time.
    pub(crate) fn fast_import(&self, script: &str) {
        let mut child = Command::new("git")
            .current_dir(&self.path)
            .args(["fast-import", "--quiet", "--force"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(script.as_bytes()).unwrap();
        drop(stdin);
        assert!(child.wait().unwrap().success());
    }

    /// A commit on the current branch that writes these files.
    pub(crate) fn commit(&self, files: &[(&str, &str)]) -> String {
        for (path, content) in files {
            let path = self.path.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "-m", "change"]);
        self.git(&["rev-parse", "HEAD"])
    }

    pub(crate) fn branch(&self, name: &str, from: &str) {
        self.git(&["checkout", "--quiet", "-b", name, from]);
    }
}

pub(crate) fn lines(n: usize) -> String {
    (0..n).map(|n| format!("line {n}\n")).collect()
}
