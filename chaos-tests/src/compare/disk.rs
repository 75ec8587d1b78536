//! What the disk itself can do, and what processes cost.

use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::FileExt as _,
    path::Path,
    time::{Duration, Instant},
};

/// Size of the file that is written over and over.
const FILE_BYTES: usize = 4 << 20;
/// One write, as large as a small record of a log.
const WRITE_BYTES: usize = 512;

/// fdatasync calls a second on a file that is laid out already, each after one small write: what a log that syncs for
/// every single command could reach at best.
///
/// # Errors
/// When the file cannot be written.
pub(super) fn syncs_per_second(directory: &Path, during: Duration) -> io::Result<f64> {
    let path = directory.join("fdatasync");
    let file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .open(&path)?;
    file.write_all_at(&vec![0; FILE_BYTES], 0)?;
    file.sync_all()?;
    let bytes = [7; WRITE_BYTES];
    let (start, mut syncs) = (Instant::now(), 0_u64);
    while start.elapsed() < during {
        let offset = syncs as usize * WRITE_BYTES % FILE_BYTES;
        file.write_all_at(&bytes, offset as u64)?;
        file.sync_data()?;
        syncs += 1;
    }
    let rate = syncs as f64 / start.elapsed().as_secs_f64();
    drop(file);
    std::fs::remove_file(path)?;
    Ok(rate)
}

/// Processor time that a process has used, user and system.
///
/// # Errors
/// When there is no such process, or the system does not tell (other systems than Linux).
pub(super) fn processor_time(pid: u32) -> io::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may hold anything.
    let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let field = |number: usize| -> Option<u64> {
        // utime and stime are the 14th and 15th of all, the state is the third.
        fields.split(' ').nth(number - 3)?.parse().ok()
    };
    let ticks = field(14).zip(field(15)).map(|(user, system)| user + system);
    let ticks = ticks.ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat: {stat}")))?;
    Ok(Duration::from_secs_f64(
        ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_process_uses_time() {
        let before = processor_time(std::process::id()).unwrap();
        let start = Instant::now();
        let mut after = before;
        while after == before && start.elapsed() < Duration::from_secs(10) {
            after = processor_time(std::process::id()).unwrap();
        }
        assert!(after > before);
    }

    #[test]
    fn a_disk_syncs_some_times_a_second() {
        let directory = tempfile::tempdir().unwrap();
        let rate = syncs_per_second(directory.path(), Duration::from_millis(50)).unwrap();
        assert!(rate > 0.0);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
