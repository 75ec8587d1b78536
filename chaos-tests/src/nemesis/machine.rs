//! What the machine allows, tried before anything starts.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use trireme_harness::Hub;

/// Where Debian puts it, on the machines that it knows; the variant for programs with threads.
const CLOCK_LIBRARY: &str = "faketime/libfaketimeMT.so.1";
const LIBRARY_DIRECTORIES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
];

/// Each with the reason when it is not allowed.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Network namespaces; links lie on loopback without them.
    pub hub: Result<Hub, String>,
    pub links: Result<(), String>,
    pub small_disk: Result<(), String>,
    pub clock_library: Result<PathBuf, String>,
}

impl Machine {
    /// Tries everything. `hub`: what came of making namespaces.
    #[must_use]
    pub fn look(hub: Result<Hub, String>, directory: &Path) -> Self {
        let links = match &hub {
            Ok(_) => Ok(()),
            Err(_) => std::fs::read_to_string("/proc/net/tcp")
                .map(|_| ())
                .map_err(|why| format!("/proc/net/tcp tells who dials, but cannot be read: {why}")),
        };
        Self {
            hub,
            links,
            small_disk: mount(directory),
            clock_library: clock_library(),
        }
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .map_err(|why| format!("{program}: {why}"))?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program}: {}", why.trim()))
}

/// A small file system in memory, for a moment.
fn mount(directory: &Path) -> Result<(), String> {
    let place = directory.join("try-mount");
    std::fs::create_dir_all(&place).map_err(|why| format!("{}: {why}", place.display()))?;
    run(Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "try"])
        .arg(&place))?;
    run(Command::new("umount").arg(&place))?;
    std::fs::remove_dir(&place).map_err(|why| format!("{}: {why}", place.display()))
}

fn clock_library() -> Result<PathBuf, String> {
    let library = LIBRARY_DIRECTORIES
        .iter()
        .map(|directory| Path::new(directory).join(CLOCK_LIBRARY))
        .find(|path| path.exists())
        .ok_or("libfaketime is not installed (Debian: apt-get install faketime)")?;
    // It does nothing for a program that is linked statically.
    let output = Command::new("date")
        .arg("+%Y")
        .env("LD_PRELOAD", &library)
        .env("FAKETIME", "@2001-01-01 00:00:00")
        .output()
        .map_err(|why| format!("date: {why}"))?;
    if String::from_utf8_lossy(&output.stdout).trim() == "2001" {
        Ok(library)
    } else {
        Err(format!("{} has no effect here", library.display()))
    }
}
