//! What the agent runs now, and what it still owes the cluster a word about.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use futures::FutureExt as _;
use tokio::{
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;
use trireme_podutils::{
    local::{LocalRun, Outcome, UtilityProgram, kill_leftovers},
    storage::{Storage, StorageError},
};
use trireme_proto::{
    api::{RunningJob, agent_message},
    state::{Job, JobState},
};
use trireme_prowjob::{
    GcsConfiguration, JobSpec, ProwJobState, gcs_paths, record, run_files::FINISHED_FILE,
};

use super::{AgentOptions, fitness, session::report};

/// Variables of the host that jobs see.
const HOST_ENV: [&str; 3] = ["PATH", "LANG", "TZ"];
/// Events on their way to the session; at most two per run.
const EVENTS: usize = 4096;

/// How to start the pod utilities: the program, and the arguments before the utility's name.
#[derive(Debug, Clone)]
pub struct Utility {
    pub program: PathBuf,
    pub prefix: Vec<OsString>,
}

/// Something about a run that the cluster must hear of.
#[derive(Debug, Clone)]
pub(super) enum Event {
    /// Its first process was spawned.
    Started { job_id: String, fence: u64 },
    Finished {
        job_id: String,
        fence: u64,
        state: JobState,
        description: String,
    },
}

struct Run {
    fence: u64,
    cancel: CancellationToken,
    /// Why it was cancelled.
    reason: Arc<OnceLock<String>>,
    task: JoinHandle<()>,
    directory: PathBuf,
    log: PathBuf,
    started: bool,
    /// How it ended, kept until the cluster has recorded it.
    ended: Option<(JobState, String)>,
    finished: watch::Sender<bool>,
}

impl Run {
    /// Returns when its processes are killed, which dropping its future does.
    async fn end(&mut self) {
        self.task.abort();
        if !self.task.is_finished() {
            let _aborted = (&mut self.task).await;
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Dropping the run's future kills its processes.
        self.task.abort();
    }
}

pub(super) struct Runs {
    directory: PathBuf,
    utility: Utility,
    runs: BTreeMap<String, Run>,
    /// Runs that are being killed and cleared away.
    leaving: JoinSet<()>,
    events: mpsc::Receiver<Event>,
    sender: mpsc::Sender<Event>,
}

impl Runs {
    /// Kills what an earlier process of this agent left running, and clears its directories.
    pub(super) fn open(options: &AgentOptions) -> io::Result<Self> {
        let directory = options.directory.join("runs");
        std::fs::create_dir_all(&directory)?;
        for run in std::fs::read_dir(&directory)? {
            let run = run?.path();
            let killed = kill_leftovers(&run);
            if killed > 0 {
                tracing::warn!(run = %run.display(), killed, "processes of an earlier agent were still running");
            }
            std::fs::remove_dir_all(&run)?;
        }
        let (sender, events) = mpsc::channel(EVENTS);
        Ok(Self {
            directory,
            utility: options.utility.clone(),
            runs: BTreeMap::new(),
            leaving: JoinSet::new(),
            events,
            sender,
        })
    }

    /// Starts a run unless it is known under this fence. A run under an older fence is killed first.
    pub(super) fn start(&mut self, job: Job, storage: String) {
        let Some(fence) = job.lease.as_ref().map(|lease| lease.fence) else {
            tracing::error!(job = job.id, "told to start a job without a lease");
            return;
        };
        if self.runs.get(&job.id).is_some_and(|run| run.fence >= fence) {
            return;
        }
        if let Some(older) = self.runs.remove(&job.id) {
            self.clear_away(older);
        }
        let directory = self.directory.join(format!("{}-{fence}", job.id));
        let (cancel, reason) = (CancellationToken::new(), Arc::new(OnceLock::new()));
        let stop = Stop {
            cancel: cancel.clone(),
            reason: Arc::clone(&reason),
        };
        let job_id = job.id.clone();
        let (log, task) = self.spawn(&job, fence, storage, &directory, stop);
        self.runs.insert(
            job_id,
            Run {
                fence,
                cancel,
                reason,
                task,
                directory,
                log,
                started: false,
                ended: None,
                finished: watch::Sender::new(false),
            },
        );
    }

    fn spawn(
        &self,
        job: &Job,
        fence: u64,
        storage: String,
        directory: &Path,
        stop: Stop,
    ) -> (PathBuf, JoinHandle<()>) {
        let sender = self.sender.clone();
        let job_id = job.id.clone();
        let finished = move |job_id, outcome: Outcome| Event::Finished {
            job_id,
            fence,
            state: record::job_state(outcome.state),
            description: outcome.description,
        };
        let prow_job = match record::prow_job(job) {
            Ok(prow_job) => prow_job,
            Err(why) => {
                let outcome = error(format!("The job's record is no ProwJob: {why}"));
                let task = tokio::spawn(async move {
                    // Nobody hears it only when the agent is gone.
                    let _gone = sender.send(finished(job_id, outcome)).await;
                });
                return (directory.join("log"), task);
            }
        };
        let run = LocalRun {
            job: prow_job,
            dir: directory.to_owned(),
            storage: (!storage.is_empty()).then_some(storage),
            utilities: UtilityProgram {
                executable: self.utility.program.clone(),
                prefix_args: self.utility.prefix.clone(),
            },
            host_env: HOST_ENV
                .iter()
                .filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)))
                .collect(),
            running_timeout: None,
        };
        let log = run.build_log();
        let started = sender.clone();
        let started_id = job_id.clone();
        let on_start = move || {
            let event = Event::Started {
                job_id: started_id,
                fence,
            };
            // A full queue only costs the time stamp.
            let _lost = started.try_send(event);
        };
        let task = tokio::spawn(async move {
            let carried_out = AssertUnwindSafe(carry_out(run, stop, on_start)).catch_unwind();
            let outcome = carried_out.await.unwrap_or_else(|_| {
                // The panic itself is printed where it happens. There must be a result nevertheless.
                error("The agent failed while it ran the job.".to_owned())
            });
            let _gone = sender.send(finished(job_id, outcome)).await;
        });
        (log, task)
    }

    /// False when there is no such run.
    pub(super) fn stop(&mut self, job_id: &str, fence: u64, reason: &str) -> bool {
        match self.runs.get(job_id).filter(|run| run.fence == fence) {
            Some(run) => {
                // Refused only when it was set before.
                let _before = run.reason.set(reason.to_owned());
                run.cancel.cancel();
                true
            }
            None => false,
        }
    }

    /// The lease is over: a run that ended is forgotten, one that goes on is killed.
    pub(super) fn settle(&mut self, job_id: &str, fence: u64) {
        if self.runs.get(job_id).is_some_and(|run| run.fence == fence)
            && let Some(run) = self.runs.remove(job_id)
        {
            if run.ended.is_none() {
                tracing::warn!(job = job_id, fence, "its lease is over, it is killed");
            }
            self.clear_away(run);
        }
    }

    /// What it left is in storage; a reader of its live log has the file open.
    fn clear_away(&mut self, mut run: Run) {
        while self.leaving.try_join_next().is_some() {}
        self.leaving.spawn(async move {
            run.end().await;
            let directory = std::mem::take(&mut run.directory);
            let path = directory.clone();
            // A checkout may be large.
            let removed = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(path)).await;
            match removed {
                Ok(Err(why)) if why.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(directory = %directory.display(), %why, "could not be removed");
                }
                _ => {}
            }
        });
    }

    /// The next thing that happens to a run.
    pub(super) async fn next_event(&mut self) -> Event {
        loop {
            // The sender is ours, so the channel never ends.
            let Some(event) = self.events.recv().await else {
                std::future::pending::<()>().await;
                continue;
            };
            let (job_id, fence) = match &event {
                Event::Started { job_id, fence } | Event::Finished { job_id, fence, .. } => {
                    (job_id, *fence)
                }
            };
            let Some(run) = self.runs.get_mut(job_id).filter(|run| run.fence == fence) else {
                // Killed meanwhile.
                continue;
            };
            match &event {
                Event::Started { .. } => run.started = true,
                Event::Finished {
                    state, description, ..
                } => {
                    run.ended = Some((*state, description.clone()));
                    run.finished.send_replace(true);
                }
            }
            return event;
        }
    }

    /// Everything the cluster may not have heard: said again on each attachment.
    pub(super) fn owed(&self) -> Vec<agent_message::Message> {
        let mut owed = Vec::new();
        for (job_id, run) in &self.runs {
            let (job_id, fence) = (job_id.clone(), run.fence);
            match &run.ended {
                Some((state, description)) => owed.push(report(Event::Finished {
                    job_id,
                    fence,
                    state: *state,
                    description: description.clone(),
                })),
                None if run.started => owed.push(report(Event::Started { job_id, fence })),
                None => {}
            }
        }
        owed
    }

    /// What a sign of life names.
    pub(super) fn running(&self) -> Vec<RunningJob> {
        self.runs
            .iter()
            .filter(|(_, run)| run.ended.is_none())
            .map(|(job_id, run)| RunningJob {
                job_id: job_id.clone(),
                fence: run.fence,
            })
            .collect()
    }

    /// Kills everything at once and forgets it.
    pub(super) async fn kill_all(&mut self) {
        let mut runs = std::mem::take(&mut self.runs);
        for run in runs.values() {
            run.task.abort();
        }
        for run in runs.values_mut() {
            run.end().await;
        }
        for run in runs.into_values() {
            self.clear_away(run);
        }
        while self.events.try_recv().is_ok() {}
    }

    /// The live log of a run, and whether it is over.
    pub(super) fn log(&self, job_id: &str) -> Option<(PathBuf, watch::Receiver<bool>)> {
        let run = self.runs.get(job_id)?;
        Some((run.log.clone(), run.finished.subscribe()))
    }
}

/// Whether and why a run is to be stopped.
struct Stop {
    cancel: CancellationToken,
    reason: Arc<OnceLock<String>>,
}

fn error(description: String) -> Outcome {
    Outcome {
        state: ProwJobState::Error,
        description,
    }
}

async fn carry_out(run: LocalRun, stop: Stop, on_start: impl FnOnce()) -> Outcome {
    let outcome = match fitness::check(&run.job) {
        Ok(left_out) => {
            let cancelled = async {
                stop.cancel.cancelled().await;
                stop.reason.get().cloned().unwrap_or_default()
            };
            let mut outcome = Box::pin(run.run_observed(cancelled, on_start, |_| {})).await;
            if let Some(missing) = missing_result(&run, &outcome).await {
                tracing::warn!(job = run.job.metadata.name, missing);
                outcome.description = format!("{} {missing}", outcome.description);
            }
            if !left_out.is_empty() {
                let left_out = left_out.join(", ");
                tracing::warn!(
                    job = run.job.metadata.name,
                    left_out,
                    "not honoured by a plain process"
                );
                outcome.description = format!(
                    "{} Not honoured by a plain process: {left_out}.",
                    outcome.description
                );
            }
            outcome
        }
        Err(why) => error(format!("Pod can not be created: {why}")),
    };
    store_prow_job(&run, &outcome).await;
    outcome
}

/// Where the run's files are: the store, and the configuration of the paths in it.
fn place(run: &LocalRun) -> Option<(String, GcsConfiguration)> {
    let decoration = run.job.spec.decoration_config.as_ref()?;
    let mut config = decoration.gcs_configuration.clone()?;
    if config.path_strategy.is_empty() {
        "explicit".clone_into(&mut config.path_strategy);
    }
    match &run.storage {
        Some(root) => Some((root.clone(), config)),
        // A copy for somebody to look at, not a store.
        None if !config.local_output_dir.is_empty() => None,
        None => Some((config.bucket.clone(), config)),
    }
}

/// A decorated run whose result is in nobody's hands but ours did not go as it seems.
async fn missing_result(run: &LocalRun, outcome: &Outcome) -> Option<String> {
    if !matches!(outcome.state, ProwJobState::Success | ProwJobState::Failure) {
        return None;
    }
    let (root, config) = place(run)?;
    let found = async {
        let folder = gcs_paths::for_job(&config, &JobSpec::from(&run.job), "")?.run;
        let path = gcs_paths::join(&[&folder, FINISHED_FILE]);
        Ok::<_, StorageError>(Storage::open(&root)?.get(&path).await?.is_some())
    };
    match found.await {
        Ok(true) => None,
        Ok(false) => Some(format!(
            "{FINISHED_FILE} is not in storage: its log and artifacts may be missing, too."
        )),
        Err(why) => Some(format!("{FINISHED_FILE} could not be looked up: {why}.")),
    }
}

/// CRI-061: `prowjob.json` beside the run's other files, with its result. The result itself does not depend on it.
async fn store_prow_job(run: &LocalRun, outcome: &Outcome) {
    let Some((root, config)) = place(run) else {
        return;
    };
    let mut job = run.job.clone();
    job.status.state = outcome.state;
    job.status.description.clone_from(&outcome.description);
    job.status.completion_time = Some(jiff::Timestamp::now().into());
    if let Some(decoration) = &mut job.spec.decoration_config {
        decoration.gcs_configuration = Some(config);
    }
    let stored = match Storage::open(&root) {
        Ok(storage) => storage.put_prow_job(&job).await,
        Err(why) => Err(why),
    };
    if let Err(why) = stored {
        tracing::warn!(job = job.metadata.name, %why, "prowjob.json could not be stored");
    }
}
