//! What the agent runs now, and what it still owes the cluster a word about.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use trireme_podutils::{
    local::{LocalRun, Outcome, UtilityProgram, kill_leftovers},
    storage::Storage,
};
use trireme_proto::{
    api::{RunningJob, agent_message},
    state::{Job, JobState},
};
use trireme_prowjob::record;

use super::{
    AgentOptions,
    session::{report, running},
};

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
    tails: BTreeMap<u64, CancellationToken>,
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
            tails: BTreeMap::new(),
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
        self.runs.remove(&job.id);
        let directory = self.directory.join(format!("{}-{fence}", job.id));
        let (cancel, reason) = (CancellationToken::new(), Arc::default());
        let (job_id, finished) = (job.id.clone(), watch::Sender::new(false));
        let (log, task) = self.spawn(
            job,
            fence,
            storage,
            &directory,
            cancel.clone(),
            Arc::clone(&reason),
        );
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
                finished,
            },
        );
    }

    fn spawn(
        &self,
        job: Job,
        fence: u64,
        storage: String,
        directory: &Path,
        cancel: CancellationToken,
        reason: Arc<OnceLock<String>>,
    ) -> (PathBuf, JoinHandle<()>) {
        let sender = self.sender.clone();
        let job_id = job.id.clone();
        let prow_job = match record::prow_job(&job) {
            Ok(prow_job) => prow_job,
            Err(why) => {
                let task = tokio::spawn(async move {
                    let event = Event::Finished {
                        job_id,
                        fence,
                        state: JobState::Error,
                        description: format!("The job's record is no ProwJob: {why}"),
                    };
                    // Nobody hears it only when the agent is gone.
                    let _gone = sender.send(event).await;
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
        let task = tokio::spawn(async move {
            let cancelled = async {
                cancel.cancelled().await;
                reason.get().cloned().unwrap_or_default()
            };
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
            let outcome = run.run_observed(cancelled, on_start, |_| {}).await;
            store_prow_job(&run, &outcome).await;
            let event = Event::Finished {
                job_id,
                fence,
                state: record::job_state(outcome.state),
                description: outcome.description,
            };
            let _gone = sender.send(event).await;
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
            // What it left is in storage; a reader of its live log has the file open.
            if let Err(why) = std::fs::remove_dir_all(&run.directory)
                && why.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(job = job_id, %why, "its directory could not be removed");
            }
        }
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
            .map(|(job_id, run)| running(job_id, run.fence))
            .collect()
    }

    /// Kills everything at once and forgets it.
    pub(super) async fn kill_all(&mut self) {
        for mut run in std::mem::take(&mut self.runs).into_values() {
            run.task.abort();
            // An aborted task has dropped its processes, which kills them.
            let _aborted = (&mut run.task).await;
        }
        for stop in std::mem::take(&mut self.tails).into_values() {
            stop.cancel();
        }
        while self.events.try_recv().is_ok() {}
    }

    /// The live log of a run, whether it is over, and when to stop reading.
    pub(super) fn open_tail(
        &mut self,
        job_id: &str,
        tail: u64,
    ) -> Option<(PathBuf, watch::Receiver<bool>, CancellationToken)> {
        let run = self.runs.get(job_id)?;
        let stop = CancellationToken::new();
        self.tails.insert(tail, stop.clone());
        Some((run.log.clone(), run.finished.subscribe(), stop))
    }

    pub(super) fn stop_tail(&mut self, tail: u64) {
        if let Some(stop) = self.tails.remove(&tail) {
            stop.cancel();
        }
    }
}

/// CRI-061: `prowjob.json` beside the run's other files, with its result. The result itself does not depend on it.
async fn store_prow_job(run: &LocalRun, outcome: &Outcome) {
    let mut job = run.job.clone();
    job.status.state = outcome.state;
    job.status.description.clone_from(&outcome.description);
    job.status.completion_time = Some(jiff::Timestamp::now().into());
    let decoration = job.spec.decoration_config.as_ref();
    let configured = decoration
        .and_then(|decoration| decoration.gcs_configuration.as_ref())
        .map(|config| config.bucket.clone());
    let Some(root) = run.storage.clone().or(configured) else {
        return;
    };
    let stored = match Storage::open(&root) {
        Ok(storage) => storage.put_prow_job(&job).await,
        Err(why) => Err(why),
    };
    if let Err(why) = stored {
        tracing::warn!(job = job.metadata.name, %why, "prowjob.json could not be stored");
    }
}
