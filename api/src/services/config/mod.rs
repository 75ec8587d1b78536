//! Configuration versions: put as contents, applied whole or refused whole, read back from memory or archive.

use std::pin::Pin;

use futures::{Stream, StreamExt as _, stream};
use tonic::{Request, Response, Status, Streaming, async_trait};
use trireme_proto::{
    api::{
        ApplyConfigHeader, ApplyConfigRequest, ApplyConfigResponse, ConfigHistoryRequest,
        ConfigHistoryResponse, GetConfigFileRequest, GetConfigFileResponse,
        GetConfigVersionRequest, GetConfigVersionResponse, PutConfigContentsRequest,
        PutConfigContentsResponse, RollbackConfigRequest, config_service_server::ConfigService,
        get_config_version_response::Part,
    },
    state::BlobRef,
};

use super::{Services, caller};
use crate::{
    configs::{MAX_FILE_BYTES, PIECE_BYTES, Stored, brief, manifest_parts},
    flow::{Slot, too_many},
};

mod apply;
mod contents;
mod part;

pub use part::ConfigDoor;

/// Versions on one page of history when the client names no number, and at most.
const HISTORY: u64 = 50;
const MAX_HISTORY: u64 = 200;

pub(crate) struct Door(pub(crate) Services);

impl Door {
    /// For as long as its answer is on its way.
    fn reader(&self) -> Result<Slot, Status> {
        let slot = self.0.flow.config_readers.take();
        slot.ok_or_else(|| too_many("readers of configurations"))
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[async_trait]
impl ConfigService for Door {
    type GetVersionStream = Answers<GetConfigVersionResponse>;
    type GetFileStream = Answers<GetConfigFileResponse>;

    /// A configuration with errors is answered with `accepted: false` and what is wrong; nothing changes.
    async fn apply(
        &self,
        request: Request<Streaming<ApplyConfigRequest>>,
    ) -> Result<Response<ApplyConfigResponse>, Status> {
        let who = caller(&request);
        let (header, files) = apply::read_manifest(request.into_inner()).await?;
        let answer = self.apply_files(&who, &header, files, 0).await?;
        Ok(Response::new(answer))
    }

    async fn put_contents(
        &self,
        request: Request<Streaming<PutConfigContentsRequest>>,
    ) -> Result<Response<PutConfigContentsResponse>, Status> {
        let who = caller(&request);
        let answer = contents::take(&self.0, &who, request.into_inner()).await?;
        Ok(Response::new(answer))
    }

    async fn history(
        &self,
        request: Request<ConfigHistoryRequest>,
    ) -> Result<Response<ConfigHistoryResponse>, Status> {
        let asked = request.get_ref();
        let view = self.0.view(None).await?;
        let current = view.config().map_or(0, |version| version.number);
        let before = match asked.before {
            0 => current.saturating_add(1),
            before => before.min(current.saturating_add(1)),
        };
        let limit = match u64::from(asked.limit) {
            0 => HISTORY,
            limit => limit.min(MAX_HISTORY),
        };
        let revision = view.revision;
        let stored = Stored::new(view, self.0.store.archive());
        let mut versions = Vec::new();
        for number in (1..before).rev().take(limit as usize) {
            // What a lost archive does not hold any more is left out.
            if let Some(version) = stored.version(number).await? {
                versions.push(brief(&version));
            }
        }
        Ok(Response::new(ConfigHistoryResponse {
            versions,
            current,
            revision,
        }))
    }

    /// A rollback is a new version with an old one's files, checked again by what runs now.
    async fn rollback(
        &self,
        request: Request<RollbackConfigRequest>,
    ) -> Result<Response<ApplyConfigResponse>, Status> {
        let who = caller(&request);
        let asked = request.into_inner();
        let view = self.0.view(Some(&apply::newest())).await?;
        let stored = Stored::new(view, self.0.store.archive());
        let old = stored.named(asked.version).await?;
        let files = stored.files(&old).await?;
        self.bring_back(&who, &stored, &files).await?;
        let header = ApplyConfigHeader {
            message: format!("rollback to version {}", old.number),
            request_id: asked.request_id,
            dry_run: asked.dry_run,
            expected_current: asked.expected_current,
            source: old.source.clone(),
            retire: asked.retire,
            max_retired_percent: asked.max_retired_percent,
        };
        let answer = self.apply_files(&who, &header, files, old.number).await?;
        if !answer.missing.is_empty() {
            return Err(Status::unavailable(
                "contents of that version left the state meanwhile: try again",
            ));
        }
        Ok(Response::new(answer))
    }

    async fn get_version(
        &self,
        request: Request<GetConfigVersionRequest>,
    ) -> Result<Response<Self::GetVersionStream>, Status> {
        let slot = self.reader()?;
        let stored = Stored::new(self.0.view(None).await?, self.0.store.archive());
        let version = stored.named(request.get_ref().version).await?;
        let files = stored.files(&version).await?;
        let first = Part::Version(brief(&version));
        let parts = std::iter::once(first)
            .chain(manifest_parts(files).map(Part::Manifest))
            .map(move |part| {
                let _held = &slot;
                Ok(GetConfigVersionResponse { part: Some(part) })
            });
        Ok(Response::new(stream::iter(parts).boxed()))
    }

    async fn get_file(
        &self,
        request: Request<GetConfigFileRequest>,
    ) -> Result<Response<Self::GetFileStream>, Status> {
        let slot = self.reader()?;
        let asked = request.into_inner();
        let stored = Stored::new(self.0.view(None).await?, self.0.store.archive());
        let name: BlobRef = match asked.blob {
            Some(name) => name,
            None => {
                let version = stored.named(asked.version).await?;
                let files = stored.files(&version).await?;
                let found = files.into_iter().find(|file| file.path == asked.path);
                found.and_then(|file| file.blob).ok_or_else(|| {
                    Status::not_found(format!(
                        "version {} has no file {:?}",
                        version.number, asked.path
                    ))
                })?
            }
        };
        if name.size > MAX_FILE_BYTES as u64 {
            return Err(Status::invalid_argument(format!(
                "a content of {} bytes; a file of a configuration is at most {MAX_FILE_BYTES}",
                name.size
            )));
        }
        let host = self.0.store.host().clone();
        let content = stored.content(&name, &host).await?;
        let mut rest = content;
        let pieces = std::iter::from_fn(move || {
            let _held = &slot;
            let piece = rest.split_to(rest.len().min(PIECE_BYTES));
            (!piece.is_empty()).then_some(Ok(GetConfigFileResponse { content: piece }))
        });
        Ok(Response::new(stream::iter(pieces).boxed()))
    }
}
