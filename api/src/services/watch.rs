//! The change feed.

use std::pin::Pin;

use futures::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, async_trait};
use trireme_proto::{
    api::{WatchRequest, WatchResponse, watch_service_server::WatchService},
    state::{Change, ChangeBatch, change::Record},
};
use trireme_raft::WatchError;
use trireme_state::change_batch;

use super::{Services, caller};
use crate::{flow::too_many, inbox::hide_secrets};

/// Batches on their way to one watcher; what more there is waits in the ring, until it is compacted.
const QUEUE: usize = 64;
/// Changes in one message.
const KINDS: [&str; 15] = [
    "job",
    "pull_request",
    "pool",
    "intent",
    "delivery",
    "plan",
    "report",
    "config",
    "agent",
    "office",
    "timer",
    "cursor",
    "alarm",
    "audit",
    "feature_level",
];

pub(crate) struct Door(pub(crate) Services);

fn kind(change: &Change) -> &'static str {
    match &change.record {
        Some(Record::Job(_)) => "job",
        Some(Record::PullRequest(_)) => "pull_request",
        Some(Record::Pool(_)) => "pool",
        Some(Record::Intent(_)) => "intent",
        Some(Record::Delivery(_)) => "delivery",
        Some(Record::Plan(_)) => "plan",
        Some(Record::Report(_)) => "report",
        Some(Record::Config(_)) => "config",
        Some(Record::Agent(_)) => "agent",
        Some(Record::Office(_)) => "office",
        Some(Record::Timer(_)) => "timer",
        Some(Record::Cursor(_)) => "cursor",
        Some(Record::Alarm(_)) => "alarm",
        Some(Record::Audit(_)) => "audit",
        Some(Record::FeatureLevel(_)) => "feature_level",
        // Who has tokens is for their own list, which leaves out the hashes.
        Some(Record::Token(_)) | None => "",
    }
}

#[async_trait]
impl WatchService for Door {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let who = caller(&request);
        let asked = request.into_inner();
        let cluster_id = self.0.store.cluster_id().unwrap_or_default().to_owned();
        if !asked.cluster_id.is_empty() && asked.cluster_id != cluster_id {
            return Err(Status::out_of_range(format!(
                "COMPACTED: the token is of cluster {}, this is {cluster_id}; list again",
                asked.cluster_id
            )));
        }
        if let Some(unknown) = asked
            .kinds
            .iter()
            .find(|kind| !KINDS.contains(&kind.as_str()))
        {
            return Err(Status::invalid_argument(format!(
                "kinds: {unknown:?} is none of {KINDS:?}"
            )));
        }
        let slot = self.0.flow.watchers.take();
        let slot = slot.ok_or_else(|| too_many("watchers"))?;
        let after = (asked.after_revision > 0).then_some(asked.after_revision);
        let store = self.0.store.clone();
        let mut watch = store.watch(after);
        let closing = self.0.attachments.closing();
        let (sender, receiver) = tokio::sync::mpsc::channel(QUEUE);
        let gauge = self.0.flow.gauge("watch_batches", &sender);
        tokio::spawn(async move {
            let _held = (slot, gauge);
            loop {
                let next = tokio::select! {
                    next = watch.next() => next,
                    () = sender.closed() => return,
                    () = closing.cancelled() => return,
                };
                let next = match who.is_still_good(&store.view()) {
                    Ok(()) => next,
                    Err(why) => {
                        // Whoever is gone needs no reason.
                        let _gone = sender.send(Err(why)).await;
                        return;
                    }
                };
                let message = match next {
                    Ok(batch) => {
                        let mut batch: ChangeBatch =
                            change_batch(batch.revision, batch.stamp_ms, &batch.changes);
                        batch.changes.retain(|change| {
                            let kind = kind(change);
                            !kind.is_empty()
                                && (asked.kinds.is_empty()
                                    || asked.kinds.iter().any(|wanted| wanted == kind))
                        });
                        if batch.changes.is_empty() {
                            continue;
                        }
                        for change in &mut batch.changes {
                            if let Some(Record::Delivery(delivery)) = &mut change.record {
                                hide_secrets(delivery);
                            }
                        }
                        Ok(WatchResponse {
                            cluster_id: cluster_id.clone(),
                            batch: Some(batch),
                        })
                    }
                    Err(WatchError::Closed) => Err(Status::unavailable("the node is stopping")),
                    Err(why) => Err(Status::out_of_range(format!(
                        "COMPACTED: {why}; list again"
                    ))),
                };
                let last = message.is_err();
                if sender.send(message).await.is_err() || last {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}
