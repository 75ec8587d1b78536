//! Processes that a run left behind, known by a variable that all of its processes inherit: they may have left their
//! group, their session and their parents, but hardly their environment.

use std::fs;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

/// Carries the run's identity.
const COOKIE: &str = "TRIREME_LOCAL_RUN";
/// Looks through the process table, each time killing what is found; more than one because processes may fork meanwhile.
const MAX_PASSES: usize = 50;

/// The variable that marks all processes of a run, and its value: the run's own directory, which no other run has, not
/// even a later attempt of the same job beside it on this host.
pub(super) fn cookie(dir: &Path) -> (&'static str, String) {
    (COOKIE, value(dir))
}

fn value(dir: &Path) -> String {
    std::path::absolute(dir)
        .unwrap_or_else(|_| dir.to_owned())
        .display()
        .to_string()
}

/// Kills what is left of a run when dropped.
pub(super) struct Leftovers {
    entry: Vec<u8>,
}

impl Leftovers {
    pub(super) fn of(dir: &Path) -> Self {
        Self {
            entry: format!("{COOKIE}={}", value(dir)).into_bytes(),
        }
    }

    /// Returns how many processes were killed.
    pub(super) fn kill(&self) -> usize {
        let mut killed = std::collections::BTreeSet::new();
        for _ in 0..MAX_PASSES {
            let found = self.find();
            if found.is_empty() {
                break;
            }
            for pid in found {
                // It may have ended since it was found.
                if kill_process(pid, Signal::KILL).is_ok() {
                    killed.insert(pid.as_raw_nonzero());
                }
            }
            std::thread::yield_now();
        }
        killed.len()
    }

    /// Only where the process table can be read as files; elsewhere nothing is found.
    fn find(&self) -> Vec<Pid> {
        let Ok(table) = fs::read_dir("/proc") else {
            return Vec::new();
        };
        let own = std::process::id();
        let pids = table
            .flatten()
            .filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok())
            .filter(|p| *p != own);
        pids.filter(|pid| self.marks(*pid))
            .filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?))
            .collect()
    }

    fn marks(&self, pid: u32) -> bool {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment
            .split(|b| *b == 0)
            .any(|entry| entry == self.entry)
    }
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Kills every process of the run of that directory that may still be there, e.g. after this program was restarted.
/// Returns how many.
pub fn kill_leftovers(dir: &Path) -> usize {
    Leftovers::of(dir).kill()
}
