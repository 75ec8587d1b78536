//! The outbox: for each (job, reporter) the newest state that is owed and the one that was delivered.

use std::sync::Arc;

use imbl::OrdSet;
use trireme_proto::state::{Done, Job, JobState, Redrive, Report, SettleReport};

use crate::{
    State,
    apply::Entry,
    change::{Change, RecordKey},
    digest::Sum,
    jobs::state_name,
    reject::{Verdict, conflict, cut, invalid, not_found},
    table::{Record, Table},
};

type Key = (String, String);

impl Record for Report {
    const KIND: u8 = 2;
    type Key = Key;

    fn key(&self) -> Key {
        (self.job_id.clone(), self.reporter.clone())
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Reports {
    rows: Table<Report>,
    /// What is to be sent, owed longest first.
    owed: OrdSet<(i64, Key)>,
    dead: OrdSet<Key>,
}

/// Whether the reporter is still to be told.
pub fn is_owed(report: &Report) -> bool {
    report.owed != report.reported && !report.dead
}

impl Reports {
    pub(crate) fn put(&mut self, digest: &mut Sum, report: Arc<Report>) -> Option<Arc<Report>> {
        let former = self.rows.put(digest, report.clone());
        if let Some(former) = &former {
            self.index(former, false);
        }
        self.index(&report, true);
        former
    }

    fn remove(&mut self, digest: &mut Sum, key: &Key) -> bool {
        let Some(former) = self.rows.remove(digest, key) else {
            return false;
        };
        self.index(&former, false);
        true
    }

    fn index(&mut self, report: &Report, add: bool) {
        let key = report.key();
        if is_owed(report) {
            let owed = (report.owed_since_ms, key.clone());
            if add {
                self.owed.insert(owed);
            } else {
                self.owed.remove(&owed);
            }
        }
        if report.dead {
            if add {
                self.dead.insert(key);
            } else {
                self.dead.remove(&key);
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Report>> {
        self.rows.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn owed_len(&self) -> usize {
        self.owed.len()
    }

    pub(crate) fn dead_len(&self) -> usize {
        self.dead.len()
    }
}

pub(crate) fn settle_report(
    state: &mut State,
    entry: &mut Entry,
    command: &SettleReport,
) -> Verdict {
    let key = (command.job_id.clone(), command.reporter.clone());
    let report = state.reports.rows.get(&key).cloned().ok_or_else(|| {
        not_found(
            "report",
            &format!("{}/{}", command.job_id, command.reporter),
        )
    })?;
    if command.state() == JobState::Unspecified {
        return Err(invalid("the state that was reported is missing"));
    }
    let mut next = (*report).clone();
    if command.comment_id != 0 {
        next.comment_id = command.comment_id;
    }
    if command.failed || command.dead {
        // An answer about an older state says nothing about the one that is owed now.
        if command.state != report.owed || report.reported == report.owed {
            return Err(conflict("that state is not owed"));
        }
        next.attempts = next.attempts.saturating_add(1);
        next.error = cut(&command.error);
        next.dead = command.dead;
        state.put_report(entry, next);
        return Ok(Done::default());
    }
    next.reported = command.state;
    next.reported_ms = entry.stamp_ms;
    next.error.clear();
    next.attempts = 0;
    if next.reported == next.owed {
        next.dead = false;
    }
    state.put_report(entry, next);
    if let Some(job) = state.job(&command.job_id).cloned() {
        let told = state_name(command.state()).to_owned();
        if job.prev_report_states.get(&command.reporter) != Some(&told) {
            let mut job = (*job).clone();
            job.prev_report_states
                .insert(command.reporter.clone(), told);
            state.put_job(entry, job);
        }
    }
    Ok(Done::default())
}

pub(crate) fn redrive_report(state: &mut State, entry: &mut Entry, command: &Redrive) -> Verdict {
    let key = (command.job_id.clone(), command.reporter.clone());
    let report = state.reports.rows.get(&key).cloned().ok_or_else(|| {
        not_found(
            "report",
            &format!("{}/{}", command.job_id, command.reporter),
        )
    })?;
    if !report.dead && !command.again {
        return Err(conflict("the report is not dead"));
    }
    let reported = match command.again {
        true => JobState::Unspecified.into(),
        false => report.reported,
    };
    let next = Report {
        reported,
        dead: false,
        attempts: 0,
        owed_since_ms: entry.stamp_ms,
        ..(*report).clone()
    };
    state.put_report(entry, next);
    Ok(Done::default())
}

impl State {
    /// Books the job's state with each of its reporters. A new state is new work, also for a dead letter.
    pub(crate) fn owe_reports(&mut self, entry: &mut Entry, job: &Job, silent: Option<&str>) {
        for reporter in &job.reporters {
            let key = (job.id.clone(), reporter.clone());
            let mut report = match self.reports.rows.get(&key) {
                Some(report) => (**report).clone(),
                None => Report {
                    job_id: key.0,
                    reporter: key.1,
                    ..Report::default()
                },
            };
            report.owed = job.state;
            report.owed_since_ms = entry.stamp_ms;
            report.attempts = 0;
            report.error.clear();
            report.dead = false;
            if silent == Some(reporter) {
                report.reported = job.state;
            }
            self.put_report(entry, report);
        }
    }

    fn put_report(&mut self, entry: &mut Entry, mut report: Report) {
        report.version = entry.index;
        let report = Arc::new(report);
        self.reports.put(&mut self.digest, report.clone());
        entry.changed(Change::Report(report));
    }

    pub(crate) fn drop_reports(&mut self, entry: &mut Entry, job: &Job) {
        for reporter in &job.reporters {
            let key = (job.id.clone(), reporter.clone());
            if self.reports.remove(&mut self.digest, &key) {
                entry.changed(Change::Removed(RecordKey::Report {
                    job_id: key.0,
                    reporter: key.1,
                }));
            }
        }
    }

    /// Reports to be sent, owed longest first.
    pub fn reports_owed(&self) -> impl Iterator<Item = &Arc<Report>> {
        self.reports
            .owed
            .iter()
            .filter_map(|(_, key)| self.reports.rows.get(key))
    }

    /// A job's reports, one per reporter.
    pub fn reports_of<'a>(&'a self, job_id: &'a str) -> impl Iterator<Item = &'a Arc<Report>> {
        let from = (job_id.to_owned(), String::new());
        self.reports
            .rows
            .range(from..)
            .take_while(move |report| report.job_id == job_id)
    }

    pub fn report(&self, job_id: &str, reporter: &str) -> Option<&Arc<Report>> {
        self.reports
            .rows
            .get(&(job_id.to_owned(), reporter.to_owned()))
    }

    /// Reports that were given up.
    pub fn dead_reports(&self) -> impl Iterator<Item = &Arc<Report>> {
        self.reports
            .dead
            .iter()
            .filter_map(|key| self.reports.rows.get(key))
    }
}
