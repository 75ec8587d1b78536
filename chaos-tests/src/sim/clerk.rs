//! A controller in place of those that need git: it plans every delivery, half of them with a job, and lets handled
//! deliveries go to the archive, which the sinker does only after a day. Like any controller it acts from the state, in
//! the name of its office.

use async_trait::async_trait;
use trireme_office::{Controller, ControllerError, Office, OfficeError};
use trireme_proto::state::{
    CommitPlans, Delivery, Job, JobType, NewJob, PlanBody, SweepDeliveries, command::Body,
};
use trireme_raft::WatchError;

use super::reporter::REPORTER;

pub(crate) const PLUGIN: &str = "clerk";
/// Deliveries that stay in memory; older ones are swept.
const KEPT: usize = 4;

pub(crate) struct Clerk;

#[async_trait]
impl Controller for Clerk {
    fn name(&self) -> &'static str {
        PLUGIN
    }

    async fn run(&self, office: Office) -> Result<(), ControllerError> {
        let resigned = office.resigned();
        while !resigned.is_cancelled() {
            let view = office.view();
            let mut watch = office.watch(view.revision);
            let open: Vec<String> = view
                .open_deliveries()
                .map(|delivery| delivery.guid.clone())
                .collect();
            for guid in &open {
                if let Some(delivery) = view.delivery(guid) {
                    settled(office.propose(plan(delivery)).await)?;
                }
            }
            let old: Vec<String> = view
                .deliveries_newest_first(None)
                .skip(KEPT)
                .map(|delivery| delivery.guid.clone())
                .filter(|guid| !open.contains(guid))
                .collect();
            if !old.is_empty() {
                let sweep = Body::SweepDeliveries(SweepDeliveries { guids: old });
                settled(office.propose(sweep).await)?;
            }
            tokio::select! {
                biased;
                () = resigned.cancelled() => return Ok(()),
                next = watch.next() => match next {
                    Err(WatchError::Closed) => return Ok(()),
                    // The next look at the view has everything.
                    Ok(_) | Err(WatchError::Compacted | WatchError::Lagging) => {}
                },
            }
        }
        Ok(())
    }
}

/// What somebody else has done, or time has overtaken, is no error.
fn settled<T>(told: Result<T, OfficeError>) -> Result<(), OfficeError> {
    match told {
        Err(error) if !error.is_conflict() => Err(error),
        _ => Ok(()),
    }
}

fn plan(delivery: &Delivery) -> Body {
    let guid = &delivery.guid;
    let job = NewJob {
        job: Some(Box::new(Job {
            id: trireme_state::ids::job_id(guid, PLUGIN, 0),
            r#type: JobType::Periodic.into(),
            job: "from-delivery".to_owned(),
            agent: "kubernetes".to_owned(),
            cluster: "default".to_owned(),
            origin: guid.clone(),
            prowjob: r#"{"spec":{"type":"periodic","job":"from-delivery"}}"#.into(),
            retries_left: 1,
            reporters: vec![REPORTER.to_owned()],
            ..Job::default()
        })),
        ..NewJob::default()
    };
    let wants_job = guid.bytes().fold(0, u8::wrapping_add).is_multiple_of(2);
    Body::CommitPlans(CommitPlans {
        guid: guid.clone(),
        config_version: 0,
        plugins: vec![PLUGIN.to_owned()],
        plans: vec![PlanBody {
            plugin: PLUGIN.to_owned(),
            jobs: wants_job.then_some(job).into_iter().collect(),
            ..PlanBody::default()
        }],
        idle: Vec::new(),
    })
}
