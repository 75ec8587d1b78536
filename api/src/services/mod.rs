//! The gRPC services, one module each.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt as _, future::ready};
use tonic::{Request, Status};
use trireme_proto::{
    api::{Freshness, ReadOptions},
    state::{Command, Done, command::Body},
};
use trireme_raft::{Applied, ProposeError, Store, View};
use trireme_state::Seq;

use crate::{
    Attachments, ConfigCheck, ConfigHealth, DebugSource, LeaseRenewals, Metrics, RunStore,
    auth::Who,
    flow::Flow,
    refusal::{done, unavailable},
};

pub(crate) mod agents;
pub(crate) mod auth;
pub(crate) mod cluster;
mod compare;
pub(crate) mod config;
mod debug;
pub(crate) mod deliveries;
pub(crate) mod jobs;
pub(crate) mod pools;
mod scrub;
pub(crate) mod watch;

/// How long a read waits for a revision, and a linearizable one for the quorum.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// Records on one page when the client names no number, and at most.
const PAGE: usize = 100;
const MAX_PAGE: usize = 1000;
/// Request ids are UUIDs or the like.
const MAX_REQUEST_ID: usize = 100;

/// What the services share.
#[derive(Clone)]
pub(crate) struct Services {
    pub(crate) store: Store,
    pub(crate) attachments: Attachments,
    pub(crate) check: Arc<dyn ConfigCheck>,
    pub(crate) runs: Arc<dyn RunStore>,
    pub(crate) leases: Arc<dyn LeaseRenewals>,
    pub(crate) storage: String,
    pub(crate) flow: Arc<Flow>,
    /// http or https: how a browser reaches the doors.
    pub(crate) scheme: &'static str,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) debug: Arc<dyn DebugSource>,
    pub(crate) config_health: ConfigHealth,
}

impl Services {
    /// A view as fresh as was asked for.
    async fn view(&self, read: Option<&ReadOptions>) -> Result<Arc<View>, Status> {
        let Some(read) = read else {
            return Ok(self.store.view());
        };
        let mut least = read.at_least_revision;
        if read.freshness() == Freshness::Linearizable {
            let index = tokio::time::timeout(READ_TIMEOUT, self.store.linearize())
                .await
                .map_err(|_| {
                    Status::unavailable("no quorum answered within 5 s; a local read still works")
                })?
                .map_err(|why| Status::unavailable(why.to_string()))?;
            least = least.max(index);
        }
        tokio::time::timeout(READ_TIMEOUT, self.store.at_least(least))
            .await
            .map_err(|_| {
                Status::unavailable(format!(
                    "revision {least} did not reach this node within 5 s"
                ))
            })
    }

    /// Proposes in a client's name.
    fn propose<'a>(
        &'a self,
        who: &'a Who,
        request_id: &str,
        body: Body,
    ) -> impl Future<Output = Result<(u64, Done), Status>> + Send + use<'a> {
        if let Err(refused) = check_request_id(request_id) {
            return ready(Err(refused)).left_future();
        }
        who.about(object_of(&body));
        let proposing = self.store.propose(Command {
            min_level: 1,
            principal: who.name().to_owned(),
            request_id: request_id.to_owned(),
            epoch: 0,
            body: Some(body),
        });
        let answered = |applied: Result<Applied, ProposeError>| {
            let applied = applied.map_err(|why| unavailable(&why))?;
            who.at(applied.revision);
            Ok((applied.revision, done(applied.outcome)?))
        };
        proposing.map(answered).right_future()
    }

    /// Puts a value as chunks, for a command that names it next; whether it was not there before.
    async fn put_blob(&self, who: &Who, value: Bytes) -> Result<bool, Status> {
        let now_ms = self.store.now_ms();
        let view = self.store.view();
        let chunking = self.store.host().blocking(move || {
            let name = crate::blob::name(&value);
            let keeps = view.keeps_blob(&name.sha256, now_ms);
            (!keeps).then(|| crate::blob::chunks(&value)).transpose()
        });
        let chunked = chunking
            .await
            .map_err(|why| Status::internal(why.to_string()))?
            .map_err(|why| Status::internal(why.to_string()))?;
        let Some((_, chunks)) = chunked else {
            return Ok(false);
        };
        for chunk in chunks {
            self.propose(who, "", Body::PutBlobChunk(chunk)).await?;
        }
        Ok(true)
    }
}

fn check_request_id(request_id: &str) -> Result<(), Status> {
    if request_id.len() > MAX_REQUEST_ID {
        return Err(Status::invalid_argument(format!(
            "request_id: at most {MAX_REQUEST_ID} bytes"
        )));
    }
    Ok(())
}

/// Who asks, as the guard of all doors found out.
fn caller<T>(request: &Request<T>) -> Who {
    match request.extensions().get::<Who>() {
        Some(who) => who.clone(),
        // Nothing comes past the guard; were it so, nobody is named in the log.
        None => Who::part("unknown".to_owned()),
    }
}

/// What a command is about, for the audit log.
fn object_of(body: &Body) -> String {
    match body {
        Body::CreateJobs(create) => {
            let mut jobs = create.jobs.iter().filter_map(|new| new.job.as_ref());
            jobs.next()
                .map_or_else(String::new, |job| format!("job {}", job.id))
        }
        Body::AbortJobs(abort) => abort
            .jobs
            .first()
            .map_or_else(String::new, |job| format!("job {}", job.id)),
        Body::Redrive(redrive) if redrive.job_id.is_empty() => {
            format!("delivery {} {}", redrive.guid, redrive.plugin)
        }
        Body::Redrive(redrive) => format!("report {} {}", redrive.job_id, redrive.reporter),
        Body::RegisterAgent(register) => register
            .agent
            .as_ref()
            .map_or_else(String::new, |agent| format!("agent {}", agent.id)),
        Body::SetAgent(set) => format!("agent {}", set.id),
        Body::PutConfig(_) | Body::PutConfigPage(_) | Body::PutBlobChunk(_) => "config".to_owned(),
        Body::PutToken(put) => put.token.as_ref().map_or_else(String::new, |token| {
            format!("token {} {}", token.id, token.name)
        }),
        Body::RevokeToken(revoke) => format!("token {}", revoke.id),
        _ => String::new(),
    }
}

fn page_size(asked: u32) -> usize {
    match asked as usize {
        0 => PAGE,
        asked => asked.min(MAX_PAGE),
    }
}

/// A page token is the place of the last record shown, in the order of creation: what comes meanwhile comes before it.
fn page_start(token: &str) -> Result<Option<Seq>, Status> {
    if token.is_empty() {
        return Ok(None);
    }
    let place = || {
        let (revision, ordinal) = token.split_once('.')?;
        Some(Seq {
            revision: revision.parse().ok()?,
            ordinal: ordinal.parse().ok()?,
        })
    };
    place()
        .map(Some)
        .ok_or_else(|| Status::invalid_argument("page_token: not one that this service gave"))
}

fn page_end(more: bool, last: Option<Seq>) -> String {
    last.filter(|_| more)
        .map(|last| format!("{}.{}", last.revision, last.ordinal))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_begins_where_the_last_ended() {
        let last = Seq {
            revision: 12,
            ordinal: 3,
        };
        assert_eq!(page_start(&page_end(true, Some(last))).unwrap(), Some(last));
        assert_eq!(page_end(false, Some(last)), "");
        assert_eq!(page_start("").unwrap(), None);
        assert!(page_start("12").is_err());
    }
}
