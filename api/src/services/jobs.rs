//! Runs: list, read, follow, abort, run again.

use std::pin::Pin;

use bytes::Bytes;
use futures::{FutureExt as _, Stream, StreamExt as _};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tonic::{Request, Response, Status, async_trait};
use trireme_proto::{
    api::{
        AbortJobRequest, AbortJobResponse, CreateJobRequest, CreateJobResponse, GetJobRequest,
        GetJobResponse, ListJobsRequest, ListJobsResponse, ReadLogRequest, ReadLogResponse,
        RerunJobRequest, RerunJobResponse, create_job_request::What,
        job_service_server::JobService,
    },
    state::{
        AbortJob, AbortJobs, CreateJobs, Done, Job, JobState, JobType, NewJob, Report,
        command::Body,
    },
};
use trireme_prowjob::{ProwJob, ProwJobSpec, record};
use trireme_state::{JobFilter, State, archive_keys as keys, seq_of};
use uuid::Uuid;

use super::{Services, caller, check_request_id, page_end, page_size, page_start};
use crate::{LogChunk, RunLogs, archived, auth::Who};

pub(crate) struct Door(pub(crate) Services);

/// In the origin of every run that a client asked for.
const BY_REQUEST: &str = " request ";
/// Reruns of reruns that are followed to what was run first.
const MAX_RERUNS: usize = 100;

fn not_found(id: &str) -> Status {
    Status::not_found(format!(
        "no job {id:?} in memory; `trireme get jobs` lists them"
    ))
}

fn brief(job: &Job) -> Job {
    Job {
        prowjob: Bytes::new(),
        history: Vec::new(),
        ..job.clone()
    }
}

fn filter(asked: &ListJobsRequest) -> Result<JobFilter, Status> {
    Ok(JobFilter {
        org: asked.org.clone(),
        repo: asked.repo.clone(),
        job_type: Some(asked.r#type()).filter(|wanted| *wanted != JobType::Unspecified),
        state: Some(asked.state()).filter(|wanted| *wanted != JobState::Unspecified),
        author: asked.author.clone(),
        job: asked.job.clone(),
        pull: asked.pull,
        before: page_start(&asked.page_token)?,
    })
}

/// The id of what a client asks to be made: the same request makes the same id.
fn id_for(request_id: &str, what: &str) -> String {
    if request_id.is_empty() {
        return Uuid::new_v4().to_string();
    }
    trireme_state::ids::job_id(&format!("request:{request_id}"), what, 0)
}

#[async_trait]
impl JobService for Door {
    async fn create_job(
        &self,
        request: Request<CreateJobRequest>,
    ) -> Result<Response<CreateJobResponse>, Status> {
        let who = caller(&request);
        let asked = request.into_inner();
        let Some(What::Prowjob(json)) = asked.what else {
            return Err(Status::invalid_argument("prowjob: missing"));
        };
        let (made, body) = self.asked_for(&who, &asked.request_id, &json)?;
        drop((json, asked.request_id));
        let revision = self.make(&who, &made, body).await?;
        let id = made.id;
        Ok(Response::new(CreateJobResponse { id, revision }))
    }

    async fn get_job(
        &self,
        request: Request<GetJobRequest>,
    ) -> Result<Response<GetJobResponse>, Status> {
        let asked = request.get_ref();
        let view = self.0.view(asked.read.as_ref()).await?;
        let job = match view.job(&asked.id) {
            Some(job) => Job::clone(job),
            None => self.archived(&asked.id).await?,
        };
        Ok(Response::new(GetJobResponse {
            job: Some(job),
            reports: view
                .reports_of(&asked.id)
                .map(|report| Report::clone(report))
                .collect(),
            revision: view.revision,
        }))
    }

    async fn list_jobs(
        &self,
        request: Request<ListJobsRequest>,
    ) -> Result<Response<ListJobsResponse>, Status> {
        let asked = request.get_ref();
        let view = self.0.view(asked.read.as_ref()).await?;
        let size = page_size(asked.page_size);
        let mut jobs: Vec<Job> = view
            .jobs_newest_first(filter(asked)?)
            .take(size + 1)
            .map(|job| {
                if asked.brief {
                    brief(job)
                } else {
                    Job::clone(job)
                }
            })
            .collect();
        let more = jobs.len() > size;
        jobs.truncate(size);
        Ok(Response::new(ListJobsResponse {
            next_page_token: page_end(more, jobs.last().map(seq_of)),
            revision: view.revision,
            jobs,
        }))
    }

    async fn abort_job(
        &self,
        request: Request<AbortJobRequest>,
    ) -> Result<Response<AbortJobResponse>, Status> {
        let who = caller(&request);
        let asked = request.into_inner();
        if self.0.view(None).await?.job(&asked.id).is_none() {
            return Err(not_found(&asked.id));
        }
        let body = Body::AbortJobs(AbortJobs {
            jobs: vec![AbortJob {
                reason: format!("Aborted by {who}."),
                id: asked.id.clone(),
            }],
        });
        let (revision, done) = self.0.propose(&who, &asked.request_id, body).await?;
        // Nothing is aborted twice either; a run that was aborted before may still be ending.
        let complete = |job: &Job| job.completed_ms > 0;
        let view = self.0.view(None).await?;
        Ok(Response::new(AbortJobResponse {
            revision,
            was_complete: done.aborted.is_empty()
                && view.job(&asked.id).is_none_or(|job| complete(job)),
        }))
    }

    async fn rerun_job(
        &self,
        request: Request<RerunJobRequest>,
    ) -> Result<Response<RerunJobResponse>, Status> {
        let who = caller(&request);
        let asked = request.into_inner();
        let (made, body) = self.again(&who, &asked.request_id, &asked.id)?;
        drop(asked);
        let revision = self.make(&who, &made, body).await?;
        let id = made.id;
        Ok(Response::new(RerunJobResponse { id, revision }))
    }

    type ReadLogStream = Pin<Box<dyn Stream<Item = Result<ReadLogResponse, Status>> + Send>>;

    async fn read_log(
        &self,
        request: Request<ReadLogRequest>,
    ) -> Result<Response<Self::ReadLogStream>, Status> {
        let who = caller(&request);
        let asked = request.into_inner();
        if self.0.view(None).await?.job(&asked.id).is_none() {
            return Err(not_found(&asked.id));
        }
        let store = self.0.store.clone();
        let logs = RunLogs::new(self.0.clone());
        let chunks = logs.read(asked.id, asked.offset, asked.follow);
        Ok(Response::new(Box::pin(chunks.map(move |chunk| {
            who.is_still_good(&store.view())?;
            chunk.map(|LogChunk { offset, data }| ReadLogResponse { offset, data })
        }))))
    }
}

// Between two awaits: what waits for its commit holds no parsed job, and no view, which would keep alive all that was
// replaced in the state meanwhile.
impl Door {
    /// What became of a job that was swept.
    async fn archived(&self, id: &str) -> Result<Job, Status> {
        let archive = self.0.store.archive();
        match archived::record(&archive, keys::job(id)).await? {
            Some(record) => archived::decode(&record),
            None => Err(Status::not_found(format!(
                "no job {id:?}, in memory or in this node's archive; `trireme get jobs` lists those in memory"
            ))),
        }
    }

    /// What is made and the command for it, of a job that somebody sent.
    fn asked_for(
        &self,
        who: &Who,
        request_id: &str,
        json: &[u8],
    ) -> Result<(Wanted, Body), Status> {
        let invalid =
            |why: &dyn std::fmt::Display| Status::invalid_argument(format!("prowjob: {why}"));
        let mut job: ProwJob = serde_json::from_slice(json).map_err(|why| invalid(&why))?;
        if job.spec.job.is_empty() {
            return Err(invalid(&"spec.job is empty"));
        }
        let hand: ByHand = serde_json::from_slice(json).map_err(|why| invalid(&why))?;
        if hand.spec.decorate {
            job.spec.decoration_config.get_or_insert_default();
        }
        let view = self.0.store.view();
        self.0
            .check
            .admit(&mut job, &view)
            .map_err(|why| invalid(&why))?;
        new_job(who, request_id, "create", job, None, &view)
    }

    /// The same of one that runs again.
    fn again(&self, who: &Who, request_id: &str, old: &str) -> Result<(Wanted, Body), Status> {
        let view = self.0.store.view();
        let old = view.job(old).ok_or_else(|| not_found(old))?;
        if !is_by_hand(&view, old)
            && let Some(why) = self.0.check.gone(old)
        {
            return Err(Status::failed_precondition(why));
        }
        let job = record::prow_job(old).map_err(|why| Status::data_loss(why.to_string()))?;
        new_job(who, request_id, "rerun", job, Some(old), &view)
    }

    /// Makes it, unless it is there: a request that is sent again names the same job, for as long as that is in memory.
    /// So the answers that the state remembers, whose number is bounded, are left to commands that have no such name.
    fn make<'a>(
        &'a self,
        who: &'a Who,
        wanted: &'a Wanted,
        body: Body,
    ) -> impl Future<Output = Result<u64, Status>> + Send + use<'a> {
        let made = |made: Result<(u64, Done), Status>| match made {
            Ok((revision, done)) if done.created.contains(&wanted.id) => Ok(revision),
            // What was made before is not undone by a limit that is reached since.
            made => match self.0.store.view().job(&wanted.id) {
                Some(job) => wanted.is(job).map(|()| match made {
                    Ok((revision, _)) => revision,
                    Err(_) => job.created_revision,
                }),
                None => made.map(|(revision, _)| revision),
            },
        };
        self.0.propose(who, "", body).map(made)
    }
}

/// What a person may write into a ProwJob as into a configured job.
#[derive(Deserialize)]
struct ByHand {
    #[serde(default)]
    spec: ByHandSpec,
}

#[derive(Default, Deserialize)]
struct ByHandSpec {
    #[serde(default)]
    decorate: bool,
}

/// A job that a client asked for.
#[derive(Debug)]
struct Wanted {
    id: String,
    spec: [u8; 32],
}

impl Wanted {
    /// JOB-056: a request that is sent again with another spec would change the job, and nothing changes a job's spec.
    fn is(&self, made: &Job) -> Result<(), Status> {
        let job = record::prow_job(made).map_err(|why| Status::data_loss(why.to_string()))?;
        if fingerprint(job.spec, &made.rerun_of)? == self.spec {
            return Ok(());
        }
        Err(Status::already_exists(format!(
            "prowjob: ProwJobs may only update status: this request_id made job {} with another spec before; choose another \
             request_id",
            self.id
        )))
    }
}

/// Of what was asked for: defaults of the decoration are those of the moment.
fn fingerprint(mut spec: ProwJobSpec, rerun_of: &str) -> Result<[u8; 32], Status> {
    spec.decoration_config = None;
    let json = serde_json::to_vec(&spec).map_err(|why| Status::internal(why.to_string()))?;
    Ok(Sha256::new()
        .chain_update(rerun_of)
        .chain_update([0])
        .chain_update(json)
        .finalize()
        .into())
}

/// What a client sends has no job in the configuration that could be gone from it, nor has what is a rerun of that.
fn is_by_hand(state: &State, job: &Job) -> bool {
    let mut first = job;
    for _ in 0..MAX_RERUNS {
        if first.rerun_of.is_empty() {
            return first.origin.contains(BY_REQUEST);
        }
        match state.job(&first.rerun_of) {
            Some(before) => first = before,
            None => return false,
        }
    }
    false
}

fn new_job(
    who: &Who,
    request_id: &str,
    what: &str,
    mut job: ProwJob,
    old: Option<&Job>,
    view: &State,
) -> Result<(Wanted, Body), Status> {
    check_request_id(request_id)?;
    let id = id_for(request_id, what);
    job.metadata.name.clone_from(&id);
    job.status = trireme_prowjob::ProwJobStatus {
        state: trireme_prowjob::ProwJobState::Triggered,
        ..Default::default()
    };
    let rerun_of = old.map(|old| old.id.clone()).unwrap_or_default();
    let wanted = Wanted {
        spec: fingerprint(job.spec.clone(), &rerun_of)?,
        id,
    };
    let source = record::Source {
        origin: format!("{who}{BY_REQUEST}{request_id}"),
        config_version: view.config().map_or(0, |config| config.number),
        reporters: old.map(|old| old.reporters.clone()).unwrap_or_default(),
        rerun_of,
    };
    let record = record::new_record(&job, source)
        .map_err(|why| Status::invalid_argument(format!("prowjob: {why}")))?;
    let body = Body::CreateJobs(CreateJobs {
        jobs: vec![NewJob {
            job: Some(Box::new(record)),
            ..NewJob::default()
        }],
        cursors: Vec::new(),
    });
    Ok((wanted, body))
}

#[cfg(test)]
mod tests {
    use trireme_proto::state::{Batch, Command};

    use super::*;

    #[test]
    fn what_a_client_sent_is_by_hand_and_so_are_its_reruns() {
        let mut state = State::new();
        let mut index = 0;
        let mut add = |id: &str, origin: &str, rerun_of: &str| {
            let job = Job {
                id: id.to_owned(),
                job: "x".to_owned(),
                r#type: JobType::Periodic.into(),
                state: JobState::Triggered.into(),
                prowjob: Bytes::from_static(b"{}"),
                origin: origin.to_owned(),
                rerun_of: rerun_of.to_owned(),
                ..Job::default()
            };
            let body = Body::CreateJobs(CreateJobs {
                jobs: vec![NewJob {
                    job: Some(Box::new(job)),
                    ..NewJob::default()
                }],
                cursors: Vec::new(),
            });
            index += 1;
            let command = Command {
                principal: "test".to_owned(),
                body: Some(body),
                ..Command::default()
            };
            state.apply(
                index,
                Batch {
                    stamp_ms: 1,
                    commands: vec![command],
                },
            );
        };
        add("sent", "alice request 1", "");
        add("again", "alice request 2", "sent");
        add("due", "periodic x due 5", "");
        add("due-again", "alice request 3", "due");
        add("orphan", "alice request 4", "gone");
        let by_hand = |id: &str| is_by_hand(&state, state.job(id).unwrap());
        assert_eq!(
            ["sent", "again", "due", "due-again", "orphan"].map(by_hand),
            [true, true, false, false, false]
        );
    }

    /// JOB-056
    #[test]
    fn job_056_nothing_changes_the_spec_of_a_job() {
        let spec = |json: &str| -> ProwJobSpec { serde_json::from_str(json).unwrap() };
        let sent = r#"{"type": "periodic", "job": "x", "agent": "kubernetes"}"#;
        let wanted = |json: &str, rerun_of: &str| Wanted {
            id: "id".to_owned(),
            spec: fingerprint(spec(json), rerun_of).unwrap(),
        };
        let made = Job {
            prowjob: Bytes::from_static(
                br#"{"spec": {"type": "periodic", "job": "x", "agent": "kubernetes", "decoration_config": {"timeout": "1h"}}}"#,
            ),
            ..Job::default()
        };
        wanted(sent, "").is(&made).unwrap();
        assert!(wanted(sent, "another").is(&made).is_err());
        let other = wanted(
            &sent.replace("periodic\"", "periodic\", \"cluster\": \"arm\""),
            "",
        );
        insta::assert_snapshot!(other.is(&made).unwrap_err().message(), @"prowjob: ProwJobs may only update status: this request_id made job id with another spec before; choose another request_id");
    }

    #[test]
    fn the_same_request_makes_the_same_id() {
        assert_eq!(id_for("r", "rerun"), id_for("r", "rerun"));
        assert_ne!(id_for("r", "rerun"), id_for("s", "rerun"));
        assert_ne!(id_for("", "rerun"), id_for("", "rerun"));
    }
}
