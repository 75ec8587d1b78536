//! What the clock starts, and what leaves memory: the configuration that simulated nodes plan with, and whether the real
//! [`trireme_jobs::Periodics`] and [`trireme_jobs::Sinker`] keep to it over all that is done to their offices.

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};
use trireme::{configuration, serve};
use trireme_office::RunningConfig;
use trireme_proto::state::{Job, JobType, change::Record};
use trireme_state::{JobFilter, State, is_complete};

use super::cluster::Cluster;
use crate::History;

/// Short, so that runs leave memory in the shortest simulation, but longer than a request to make one may be under way: two
/// attempts of a client, the last of which a node goes on proposing.
const MAIN: &str = "sinker: {resync_period: 1s, max_prowjob_age: 20s}";
const MAX_AGE_MS: i64 = 20_000;
/// One of each kind; what agents make of them does not matter.
const JOBS: &str = "periodics:
- {name: by-interval, interval: 2s, spec: {containers: [{image: alpine, command: [\"true\"]}]}}
- {name: by-pause, minimum_interval: 1s, spec: {containers: [{image: alpine, command: [\"true\"]}]}}
- {name: by-cron, cron: \"@every 3s\", spec: {containers: [{image: alpine, command: [\"true\"]}]}}
";
/// The least time between the due times of two runs of each. Those of a cron line are whole seconds, but for the time at
/// which it was seen first.
const PERIODICS: [(&str, i64); 3] = [("by-interval", 2000), ("by-pause", 1000), ("by-cron", 2001)];
/// A run may be decided on by one leader's clock and stamped by the next one's: so far they may be apart before a node must
/// not lead.
const HANDOVER_MS: i64 = 2000;
/// How the origin of such a run begins, and what stands before the time that it was due; the first run of an interval
/// has none.
const ORIGIN: &str = "periodic ";
const DUE: &str = " due ";
/// Nothing disturbs any more: a run that was under way is over and the next is started within this. The lease of a lost
/// agent has to end before.
const GOES_ON: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(100);

/// The configuration that these files (role, path, text) make, as nodes plan with it.
pub(crate) fn loaded(
    version: u64,
    files: &[(&str, &str, &[u8])],
) -> io::Result<Arc<RunningConfig>> {
    let set = configuration::file_set(files.iter().copied());
    let loaded = configuration::load(&set, &serve::registry());
    let (config, plugins) = loaded
        .accepted()
        .map_err(|errors| io::Error::other(format!("{errors:?}")))?;
    Ok(Arc::new(RunningConfig {
        version,
        config,
        plugins,
    }))
}

fn running(version: u64, jobs: &str) -> io::Result<Arc<RunningConfig>> {
    let files = [("main", "config.yaml", MAIN), ("job", "jobs.yaml", jobs)];
    let files = files.map(|(role, path, text)| (role, path, text.as_bytes()));
    loaded(version, &files)
}

/// What is in force from the beginning.
pub(crate) fn wound_up() -> io::Result<Arc<RunningConfig>> {
    running(1, JOBS)
}

/// The same without periodics: a cluster that starts something all the time never comes to rest.
pub(crate) fn stopped() -> io::Result<Arc<RunningConfig>> {
    running(2, "periodics: []")
}

/// Whether the clock started this job.
pub(crate) fn is_run(job: &Job) -> bool {
    job.origin.starts_with(ORIGIN)
}

/// Waits until a run of every periodic is begun anew; why not otherwise.
pub(crate) async fn goes_on(cluster: &Cluster) -> Result<(), String> {
    let since = cluster.chronicle().last_revision();
    let deadline = Instant::now() + GOES_ON;
    loop {
        let silent: Vec<&str> = PERIODICS
            .iter()
            .map(|(name, _)| *name)
            .filter(|name| !has_begun(cluster, name, since))
            .collect();
        if silent.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(format!(
                "{silent:?} did not begin within {} s after everything was healed",
                GOES_ON.as_secs()
            ));
        }
        sleep(LOOK).await;
    }
}

/// Whether some node shows a run of this periodic that was created after a revision.
fn has_begun(cluster: &Cluster, name: &str, since: u64) -> bool {
    let filter = || JobFilter {
        job: name.to_owned(),
        job_type: Some(JobType::Periodic),
        ..JobFilter::default()
    };
    let up = cluster.ids().into_iter().filter_map(|id| cluster.up(id));
    up.map(|up| up.store.view()).any(|view| {
        let newest = view.jobs_newest_first(filter()).next();
        newest.is_some_and(|job| job.created_revision > since)
    })
}

/// A job that is over and should have left memory by now.
pub(crate) fn overdue(state: &State, now_ms: i64) -> Option<&Job> {
    state
        .jobs_finished_before(now_ms)
        .map(|job| &**job)
        .find(|job| now_ms - job.created_ms > MAX_AGE_MS && state.is_sweepable(job))
}

/// The newest run of a periodic.
struct Newest<'a> {
    id: &'a str,
    is_over: bool,
    due_ms: i64,
}

/// Every due time of a periodic made one run, none before it was due, none before the former was over.
pub(crate) fn judge(history: &History) -> Vec<String> {
    let mut found = Vec::new();
    let mut by_origin: BTreeMap<&str, &str> = BTreeMap::new();
    let mut newest: BTreeMap<&str, Newest<'_>> = BTreeMap::new();
    for (revision, record, removed) in history.changes() {
        let Record::Job(job) = record else {
            continue;
        };
        if removed || !is_run(job) {
            continue;
        }
        let (name, id, origin) = (job.job.as_str(), job.id.as_str(), job.origin.as_str());
        let first = *by_origin.entry(origin).or_insert(id);
        if first != id {
            found.push(format!("{origin:?} made run {first} and run {id}"));
        }
        if let Some(newest) = newest.get_mut(name)
            && newest.id == id
        {
            newest.is_over = is_complete(job);
            continue;
        }
        if job.created_revision != revision {
            // A change of one that was replaced; that its creation was shown is judged elsewhere.
            continue;
        }
        let due_ms = match origin.rsplit_once(DUE) {
            Some((_, due)) => due.parse().unwrap_or(i64::MAX),
            None => job.created_ms,
        };
        if job.created_ms + HANDOVER_MS < due_ms {
            found.push(format!(
                "{origin:?} was begun {} ms too early",
                due_ms.saturating_sub(job.created_ms)
            ));
        }
        let every_ms = PERIODICS.iter().find(|(periodic, _)| *periodic == name);
        let Some((_, every_ms)) = every_ms else {
            found.push(format!("{origin:?} is not configured"));
            continue;
        };
        if let Some(former) = newest.get(name) {
            if !former.is_over {
                found.push(format!(
                    "{origin:?} made run {id} at {revision} before run {} was over",
                    former.id
                ));
            }
            let after = due_ms.saturating_sub(former.due_ms);
            if after < *every_ms {
                found.push(format!(
                    "{origin:?} is {after} ms after the former, not {every_ms}"
                ));
            }
        }
        newest.insert(
            name,
            Newest {
                id,
                is_over: is_complete(job),
                due_ms,
            },
        );
    }
    for (name, _) in PERIODICS {
        if !newest.contains_key(name) {
            found.push(format!("{name} was never started"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use trireme_proto::state::{Change, ChangeBatch};

    use super::*;
    use crate::Watched;

    /// A run as it is created.
    fn run(name: &str, id: &str, due_ms: Option<i64>, revision: u64, created_ms: i64) -> Job {
        let origin = match due_ms {
            Some(due_ms) => format!("periodic {name} due {due_ms}"),
            None => format!("periodic {name} new in configuration 1"),
        };
        Job {
            id: id.to_owned(),
            job: name.to_owned(),
            origin,
            created_revision: revision,
            created_ms,
            ..Job::default()
        }
    }

    fn over(job: &Job) -> Job {
        Job {
            completed_ms: job.created_ms + 500,
            ..job.clone()
        }
    }

    /// The changes of two runs of each.
    fn good() -> Vec<(u64, Job)> {
        let pairs = [
            [
                run("by-interval", "a", None, 2, 1000),
                run("by-interval", "b", Some(3000), 4, 3005),
            ],
            [
                run("by-pause", "c", None, 12, 1000),
                run("by-pause", "d", Some(2500), 14, 2500),
            ],
            [
                run("by-cron", "e", Some(1000), 22, 1000),
                run("by-cron", "f", Some(4000), 24, 4001),
            ],
        ];
        pairs
            .into_iter()
            .flat_map(|[first, second]| {
                let at = first.created_revision;
                [
                    (at, first.clone()),
                    (at + 1, over(&first)),
                    (at + 2, second.clone()),
                    (at + 3, over(&second)),
                ]
            })
            .collect()
    }

    fn judged(changes: Vec<(u64, Job)>) -> Vec<String> {
        let batch = |(revision, job)| ChangeBatch {
            revision,
            stamp_ms: 0,
            changes: vec![Change {
                removed: false,
                record: Some(Record::Job(job)),
            }],
        };
        judge(&History {
            watched: vec![Watched {
                batches: changes.into_iter().map(batch).collect(),
                ..Watched::default()
            }],
            ..History::default()
        })
    }

    #[test]
    fn runs_that_come_when_they_are_due_are_fine() {
        assert_eq!(judged(good()), Vec::<String>::new());
    }

    /// As when a new leader does not know what the former started.
    #[test]
    fn a_due_time_that_makes_two_runs_is_found() {
        let mut changes = good();
        changes.push((31, run("by-cron", "g", Some(4000), 31, 4100)));
        assert_eq!(
            judged(changes),
            [
                "\"periodic by-cron due 4000\" made run f and run g",
                "\"periodic by-cron due 4000\" is 0 ms after the former, not 2001",
            ]
        );
    }

    /// As when the time at which somebody looked takes the place of the time that was due.
    #[test]
    fn a_run_that_is_made_twice_under_two_due_times_is_found() {
        let mut changes = good();
        changes.push((31, run("by-interval", "g", Some(3040), 31, 3050)));
        assert_eq!(
            judged(changes),
            ["\"periodic by-interval due 3040\" is 40 ms after the former, not 2000"]
        );
    }

    #[test]
    fn a_run_that_begins_before_the_former_is_over_is_found() {
        let mut changes = good();
        changes.retain(|(revision, _)| *revision != 3);
        assert_eq!(
            judged(changes),
            ["\"periodic by-interval due 3000\" made run b at 4 before run a was over"]
        );
    }

    #[test]
    fn a_run_before_its_time_is_found() {
        let mut changes = good();
        for (_, job) in &mut changes {
            if job.id == "d" {
                job.created_ms = 400;
            }
        }
        assert_eq!(
            judged(changes),
            ["\"periodic by-pause due 2500\" was begun 2100 ms too early"]
        );
    }

    #[test]
    fn a_periodic_that_never_ran_or_is_not_configured_is_found() {
        let mut changes = good();
        changes.retain(|(_, job)| job.job != "by-pause");
        changes.push((31, run("by-moon", "g", Some(9000), 31, 9000)));
        assert_eq!(
            judged(changes),
            [
                "\"periodic by-moon due 9000\" is not configured",
                "by-pause was never started",
            ]
        );
    }

    #[test]
    fn the_configuration_says_what_is_judged() {
        let config = &wound_up().unwrap().config;
        let periodics = config.jobs.periodics.iter().map(|job| {
            let least_ms = match job.cron.as_str() {
                "" => (job.every.as_nanos() + job.at_least_every.as_nanos()) / 1_000_000,
                "@every 3s" => 3000 - 999,
                other => panic!("{other}"),
            };
            (job.base.name.as_str(), least_ms)
        });
        assert_eq!(periodics.collect::<Vec<_>>(), PERIODICS);
        let age = config.prow.sinker.max_prowjob_age.unwrap().get();
        assert_eq!(age.as_nanos() / 1_000_000, MAX_AGE_MS);
        assert!(stopped().unwrap().config.jobs.periodics.is_empty());
    }
}
