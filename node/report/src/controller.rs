//! The controller that works off the outbox.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::time::sleep;
use trireme_office::{Backoff, Controller, ControllerError, KeyedQueue, Office, OfficeError, Work};
use trireme_proto::state::{JobState, Report, SettleReport, command::Body};
use trireme_state::{Change, State, is_owed, limits::MAX_JOBS};

use crate::{
    lane::Lane,
    reporter::{Owed, Reporter, Told},
};

/// Refusals until a report is given up; it stays visible and can be driven again.
pub const MAX_TRIES: u32 = 5;

/// Before following again after changes were missed.
const REWATCH: Duration = Duration::from_millis(100);

/// Lanes that are told at once.
const WORKERS: usize = 16;

/// Tells what the outbox owes, through the reporters it was given.
pub struct Outbox {
    reporters: Vec<Arc<dyn Reporter>>,
}

impl Outbox {
    /// Rows of reporters that are not among these stay as they are.
    #[must_use]
    pub fn new(reporters: Vec<Arc<dyn Reporter>>) -> Self {
        Self { reporters }
    }

    fn reporter(&self, name: &str) -> Option<&Arc<dyn Reporter>> {
        self.reporters
            .iter()
            .find(|reporter| reporter.name() == name)
    }
}

#[async_trait]
impl Controller for Outbox {
    fn name(&self) -> &'static str {
        "report"
    }

    async fn run(&self, office: Office) -> Result<(), ControllerError> {
        let queue = KeyedQueue::new("report", WORKERS, Backoff::default());
        let _gauge = queue.gauge(office.queues(), MAX_JOBS);
        let work = queue.run(office.resigned(), |lane: Lane, _| {
            let reporter = self.reporter(lane.reporter()).cloned();
            let office = office.clone();
            async move {
                match reporter {
                    Some(reporter) => tell(&office, reporter.as_ref(), &lane).await,
                    None => Work::Done,
                }
            }
        });
        // Both end when the office does; reports under way are given the grace that the keeper gives.
        tokio::join!(work, self.follow(&office, &queue));
        Ok(())
    }
}

impl Outbox {
    /// Adds the lanes of all rows that are owed, then of those that become so.
    async fn follow(&self, office: &Office, queue: &KeyedQueue<Lane>) {
        let resigned = office.resigned();
        loop {
            let view = office.view();
            let mut watch = office.watch(view.revision);
            for report in view.reports_owed() {
                self.queue(&view, queue, report);
            }
            loop {
                let batch = tokio::select! {
                    () = resigned.cancelled() => return,
                    batch = watch.next() => batch,
                };
                match batch {
                    Ok(batch) => {
                        for change in &batch.changes {
                            if let Change::Report(report) = change {
                                self.queue(&office.view(), queue, report);
                            }
                        }
                    }
                    Err(why) => {
                        tracing::info!(%why, "changes were missed, looking at the whole outbox");
                        break;
                    }
                }
            }
            tokio::select! {
                () = resigned.cancelled() => return,
                () = sleep(REWATCH) => {}
            }
        }
    }

    fn queue(&self, state: &State, queue: &KeyedQueue<Lane>, report: &Report) {
        if is_owed(report)
            && self.reporter(&report.reporter).is_some()
            && let Some(job) = state.job(&report.job_id)
        {
            queue.add(Lane::of(&report.reporter, job));
        }
    }
}

async fn tell(office: &Office, reporter: &dyn Reporter, lane: &Lane) -> Work {
    let owed = lane.owed(&office.view());
    if owed.is_empty() {
        return Work::Done;
    }
    let told = reporter.tell(office, &owed).await;
    let mut next = Next::default();
    for (owed, told) in owed.iter().zip(told) {
        if let Err(why) = settle(office, reporter.name(), owed, told, &mut next).await {
            match why {
                OfficeError::Left { .. } => return Work::Done,
                // The job moved on meanwhile: its newer state is owed now, and the row's change has queued the lane.
                why if why.is_conflict() => {}
                why => return Work::Outage(why.to_string(), None),
            }
        }
    }
    next.work()
}

/// What the rows of a lane ask for together.
#[derive(Default)]
struct Next {
    outage: Option<(String, Option<Duration>)>,
    refused: Option<String>,
    later: Option<Duration>,
}

impl Next {
    fn work(self) -> Work {
        if let Some((why, retry_after)) = self.outage {
            return Work::Outage(why, retry_after);
        }
        if let Some(why) = self.refused {
            return Work::Retry(why);
        }
        self.later.map_or(Work::Done, Work::After)
    }
}

async fn settle(
    office: &Office,
    reporter: &str,
    owed: &Owed,
    told: Told,
    next: &mut Next,
) -> Result<(), OfficeError> {
    let mut settled = SettleReport {
        job_id: owed.record.id.clone(),
        reporter: reporter.to_owned(),
        state: owed.report.owed,
        ..SettleReport::default()
    };
    match told {
        Told::Delivered { comment_id } => settled.comment_id = comment_id,
        Told::Later(delay) => {
            next.later = Some(next.later.map_or(delay, |least| least.min(delay)));
            return Ok(());
        }
        Told::Outage { why, retry_after } => {
            next.outage = Some((why, retry_after));
            return Ok(());
        }
        Told::Refused(why) => {
            settled.failed = true;
            settled.dead = owed.report.attempts + 1 >= MAX_TRIES;
            if settled.dead {
                let state = JobState::try_from(owed.report.owed).unwrap_or_default();
                tracing::error!(job = owed.record.id, reporter, ?state, %why, "given up, can be driven again");
            } else {
                next.refused = Some(why.clone());
            }
            settled.error = why;
        }
    }
    office.propose(Body::SettleReport(settled)).await.map(drop)
}
