//! What came of it, for people and for machines.

use std::{fmt, time::Duration};

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use tokio::time::Instant;

use super::{Options, Told, github::GitHubHere, judge::Judged};
use crate::sim::world::BEGINNING_MS;

/// Calls that met one mood of the forge.
#[derive(Debug, Clone, Serialize)]
pub struct Met {
    pub mood: &'static str,
    pub calls: u64,
    /// Of these, questions whether anybody is there.
    pub probes: u64,
}

/// The account of one run. Times are simulated but for the last.
#[derive(Debug, Clone, Serialize)]
pub struct Account {
    pub seed: u64,
    /// Events that the forge told: those that people caused, and those that our own writes did.
    pub offered: u64,
    pub by_people: u64,
    pub by_ourselves: u64,
    /// Attempts to bring them that were answered with 503, or not at all, and that were asked for again.
    pub refused: u64,
    pub unanswered: u64,
    pub redelivered: u64,
    pub accepted: u64,
    pub handled: u64,
    /// Writes that the forge's record shows, and those that it shows more than once.
    pub writes: u64,
    pub doubled: u64,
    pub plans: u64,
    pub failures: u64,
    pub begun_again: u64,
    pub skipped: u64,
    pub dead: u64,
    /// Titles that were asked for and left out for what a person had written meanwhile.
    pub overruled: u64,
    pub leaders_killed: u64,
    pub away_s: f64,
    pub met: Vec<Met>,
    pub calls_while_away: u64,
    pub most_calls_in_a_second_while_away: u64,
    /// Entries of the log in the last tenth of the time away.
    pub entries_while_quiet: u64,
    pub largest_backlog: u64,
    pub backlog_at_return: u64,
    /// From the forge's return: until it was asked again, until the backlog was worked off, until all was home and handled.
    pub asked_again_s: Option<f64>,
    pub worked_off_s: Option<f64>,
    pub drained_s: Option<f64>,
    pub simulated_s: f64,
    /// Lines of the trace, and their SHA-256.
    pub lines: u64,
    pub trace: String,
    pub real_s: f64,
    pub peak_memory_mib: Option<u64>,
    /// Promises that were broken.
    pub broken: Vec<String>,
}

/// What the machine's clock says; the process's clocks are the simulation's.
pub(super) fn real() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_nanos(nanos)
}

/// The most that this process ever took, where the system tells it.
fn peak_memory_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib >> 10)
}

pub(super) fn close(
    options: &Options,
    github: &GitHubHere,
    told: Told,
    judged: Judged,
    (lines, trace): (u64, String),
    now_ms: i64,
) -> Account {
    let since = |at: Option<Instant>| Some(at?.duration_since(told.returned).as_secs_f64());
    let calls = github.moods().calls();
    let away = calls.iter().filter(|(mood, _)| mood.is_away());
    Account {
        seed: options.seed,
        offered: judged.offered,
        by_people: judged.offered.saturating_sub(judged.by_ourselves),
        by_ourselves: judged.by_ourselves,
        refused: judged.refused,
        unanswered: judged.unanswered,
        redelivered: judged.redelivered,
        accepted: judged.accepted,
        handled: judged.handled,
        writes: judged.writes,
        doubled: judged.doubled,
        plans: judged.plans,
        failures: judged.failures,
        begun_again: judged.begun_again,
        skipped: judged.skipped,
        dead: judged.dead,
        overruled: judged.overruled,
        leaders_killed: told.kills,
        away_s: options.away_for.as_secs_f64(),
        calls_while_away: away.map(|(_, calls)| calls.all).sum(),
        met: calls
            .iter()
            .map(|(mood, calls)| Met {
                mood: mood.describe(),
                calls: calls.all,
                probes: calls.probes,
            })
            .collect(),
        most_calls_in_a_second_while_away: github.moods().most_in_a_second(),
        entries_while_quiet: told.entries_while_quiet,
        largest_backlog: told.largest_backlog,
        backlog_at_return: told.backlog_at_return,
        asked_again_s: since(github.moods().first_after()),
        worked_off_s: since(told.worked_off),
        drained_s: since(told.drained),
        simulated_s: now_ms.saturating_sub(BEGINNING_MS) as f64 / 1000.0,
        lines,
        trace,
        real_s: 0.0,
        peak_memory_mib: peak_memory_mib(),
        broken: judged.broken,
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |at: Option<f64>| match at {
            Some(at) => format!("{at:.1} s"),
            None => "never".to_owned(),
        };
        writeln!(
            f,
            "offered   {} webhooks: {} that people caused, {} that our own writes did",
            self.offered, self.by_people, self.by_ourselves
        )?;
        writeln!(
            f,
            "accepted  {}; {} attempts refused with 503, {} without an answer, {} asked for again",
            self.accepted, self.refused, self.unanswered, self.redelivered
        )?;
        writeln!(
            f,
            "handled   {}; {} plans, {} writes on the forge's record, {} doubled; {} tries used up, {} effects begun again, {} left out, {} given up, {} titles overruled by people",
            self.handled,
            self.plans,
            self.writes,
            self.doubled,
            self.failures,
            self.begun_again,
            self.skipped,
            self.dead,
            self.overruled
        )?;
        writeln!(
            f,
            "away      {:.0} s, {} leaders killed; {} calls to the forge meanwhile, {} in one second at most; {} log entries in the last tenth",
            self.away_s,
            self.leaders_killed,
            self.calls_while_away,
            self.most_calls_in_a_second_while_away,
            self.entries_while_quiet
        )?;
        for met in &self.met {
            writeln!(
                f,
                "          {:<20} {:>7} calls, {} of them probes",
                met.mood, met.calls, met.probes
            )?;
        }
        writeln!(
            f,
            "backlog   {} at most, {} at the forge's return; asked again after {}, worked off after {}, all home and handled after {}",
            self.largest_backlog,
            self.backlog_at_return,
            seconds(self.asked_again_s),
            seconds(self.worked_off_s),
            seconds(self.drained_s)
        )?;
        let memory = match self.peak_memory_mib {
            Some(mib) => format!("{mib} MiB at most"),
            None => "memory unknown".to_owned(),
        };
        writeln!(
            f,
            "took      {:.0} simulated seconds in {:.1} real ones, {memory}; seed {}, trace of {} lines {}",
            self.simulated_s,
            self.real_s,
            self.seed,
            self.lines,
            &self.trace[..16.min(self.trace.len())]
        )?;
        match self.broken.as_slice() {
            [] => write!(f, "every accepted webhook was handled, once, in order"),
            broken => write!(f, "BROKEN\n{}", broken.join("\n")),
        }
    }
}
