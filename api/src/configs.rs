//! Configurations on both sides of a door: what a client has to send, and what the cluster keeps in memory or archive.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use prost::Message as _;
use rand::RngExt as _;
use sha2::{Digest as _, Sha256};
use tonic::{Code, Status};
use trireme_proto::{
    api::{
        ApplyConfigHeader, ApplyConfigRequest, ApplyConfigResponse, ConfigContentPiece,
        ConfigManifest, GetConfigFileRequest, GetConfigVersionRequest, PutConfigContentsRequest,
        apply_config_request::Part, get_config_version_response,
    },
    state::{BlobRef, ConfigFile, ConfigPage, ConfigVersion},
};
use trireme_raft::{ArchiveReader, Host, View};
use trireme_state::{archive_keys as keys, config_file_count};

use crate::{archived, blob, client::Client};

/// One file of a configuration.
pub const MAX_FILE_BYTES: usize = 16 << 20;
/// Contents that one call brings.
pub const MAX_LOAD_FILES: usize = 256;
/// Percent of contexts, or of jobs, that a version retires unasked.
pub const MAX_RETIRED_PERCENT: u32 = 20;
/// Of a content in one message.
pub(crate) const PIECE_BYTES: usize = 1 << 20;
/// Of a manifest in one message.
const MANIFEST_BYTES: usize = 256 << 10;
/// Of contents in one call, unless there is only one.
const LOAD_BYTES: usize = 2 << 20;
/// Calls with contents at once.
const LOADS_AT_ONCE: usize = 4;
/// How often a client begins again because contents left the cluster while others came.
const ROUNDS: usize = 3;
/// How often a call is tried that finds the node busy, and how long is waited first; doubled each time.
const BUSY_TRIES: u32 = 8;
const BUSY_WAIT: Duration = Duration::from_millis(200);

/// A manifest in messages of bounded size.
pub fn manifest_parts(files: Vec<ConfigFile>) -> impl Iterator<Item = ConfigManifest> {
    let mut files = files.into_iter().peekable();
    std::iter::from_fn(move || {
        files.peek()?;
        let mut bytes = 0;
        let mut part = Vec::new();
        while let Some(file) = files.next_if(|file| {
            bytes += file.encoded_len() + 8;
            part.is_empty() || bytes <= MANIFEST_BYTES
        }) {
            part.push(file);
        }
        Some(ConfigManifest { files: part })
    })
}

/// A version without its files, but with their number.
pub(crate) fn brief(version: &ConfigVersion) -> ConfigVersion {
    let inline = version.files.iter().filter_map(|file| file.blob.as_ref());
    let bytes = inline.fold(version.paged_bytes, |sum, blob| {
        sum.saturating_add(blob.size)
    });
    ConfigVersion {
        paged_files: u32::try_from(config_file_count(version)).unwrap_or(u32::MAX),
        paged_bytes: bytes,
        files: Vec::new(),
        pages: Vec::new(),
        ..version.clone()
    }
}

/// Versions and contents, wherever they are: at one revision in memory, or in this node's archive.
#[derive(Clone)]
pub struct Stored {
    view: Arc<View>,
    archive: ArchiveReader,
}

impl Stored {
    #[must_use]
    pub fn new(view: Arc<View>, archive: ArchiveReader) -> Self {
        Self { view, archive }
    }

    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    /// None if there is no such version, or none any more.
    ///
    /// # Errors
    /// `Unavailable` when the archive cannot be read, `DataLoss` when what stands there is none.
    pub async fn version(&self, number: u64) -> Result<Option<ConfigVersion>, Status> {
        if let Some(version) = self.view.config_version(number) {
            return Ok(Some(ConfigVersion::clone(version)));
        }
        let Some(record) = archived::record(&self.archive, keys::config(number)).await? else {
            return Ok(None);
        };
        archived::decode(&record).map(Some)
    }

    /// 0 = the one in force.
    pub(crate) async fn named(&self, number: u64) -> Result<ConfigVersion, Status> {
        if number == 0 {
            let current = self.view.config();
            return current.map(|version| (**version).clone()).ok_or_else(|| {
                Status::not_found("no configuration yet; `trireme config apply` puts the first")
            });
        }
        self.version(number).await?.ok_or_else(|| {
            Status::not_found(format!(
                "no configuration version {number}; `trireme config history` lists them"
            ))
        })
    }

    /// # Errors
    /// As [`Self::version`]; `DataLoss` when a page of it is nowhere.
    pub async fn files(&self, version: &ConfigVersion) -> Result<Vec<ConfigFile>, Status> {
        let mut files = version.files.clone();
        for name in &version.pages {
            if let Some(page) = self.view.config_page(name) {
                files.extend_from_slice(&page.files);
                continue;
            }
            let record = archived::record(&self.archive, keys::config_page(name)).await?;
            let record = record.ok_or_else(|| {
                Status::data_loss(format!(
                    "a page of version {} is neither in memory nor in this node's archive: ask another node",
                    version.number
                ))
            })?;
            files.extend(archived::decode::<ConfigPage>(&record)?.files);
        }
        Ok(files)
    }

    /// # Errors
    /// As [`Self::version`]; `NotFound` when it is nowhere.
    pub async fn content(&self, name: &BlobRef, host: &Host) -> Result<Bytes, Status> {
        let chunks = match self.view.blob(&name.sha256) {
            Some(chunks) => chunks,
            None => {
                let record = archived::record(&self.archive, keys::blob(&name.sha256)).await?;
                vec![record.ok_or_else(|| {
                    Status::not_found(format!(
                        "content {} is neither in memory nor in this node's archive",
                        hex::encode(&name.sha256)
                    ))
                })?]
            }
        };
        let name = name.clone();
        host.blocking(move || blob::join(&name, chunks.iter()))
            .await
            .map_err(|why| Status::internal(why.to_string()))?
            .map_err(|why| Status::data_loss(why.to_string()))
    }
}

/// A file as a client has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalFile {
    /// One of [`trireme_state::CONFIG_ROLES`].
    pub role: String,
    pub path: String,
    pub content: Bytes,
}

impl LocalFile {
    /// As it stands in a manifest.
    #[must_use]
    pub fn named(&self) -> ConfigFile {
        ConfigFile {
            role: self.role.clone(),
            path: self.path.clone(),
            blob: Some(BlobRef {
                sha256: Bytes::copy_from_slice(&Sha256::digest(&self.content)),
                size: self.content.len() as u64,
            }),
        }
    }
}

/// How far an upload is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Uploaded {
    pub files: usize,
    pub of_files: usize,
    pub bytes: u64,
    pub of_bytes: u64,
}

impl Client {
    /// Applies a configuration: uploads what the cluster lacks, then has it validated and committed, or refused. Tells how
    /// far it is after each call.
    ///
    /// # Errors
    /// When the node refuses what was sent or cannot be reached; a configuration with errors is no error of this.
    pub async fn apply_config(
        &self,
        header: ApplyConfigHeader,
        files: &[LocalFile],
        mut progress: impl FnMut(Uploaded),
    ) -> Result<(ApplyConfigResponse, Uploaded), Status> {
        let manifest: Vec<ConfigFile> = files.iter().map(LocalFile::named).collect();
        let mut uploaded = Uploaded::default();
        for _ in 0..ROUNDS {
            let answer = busy(|| self.send_manifest(&header, &manifest)).await?;
            if answer.missing.is_empty() {
                return Ok((answer, uploaded));
            }
            let missing: Vec<&LocalFile> = answer
                .missing
                .iter()
                .filter_map(|at| files.get(*at as usize))
                .collect();
            uploaded.of_files += missing.len();
            uploaded.of_bytes += missing
                .iter()
                .map(|file| file.content.len() as u64)
                .sum::<u64>();
            progress(uploaded);
            let loads = loads(missing);
            let mut sending = stream::iter(loads)
                .map(|load| async move {
                    busy(|| self.send_load(&load)).await?;
                    let bytes = load.iter().map(|content| content.len() as u64).sum::<u64>();
                    Ok::<_, Status>((load.len(), bytes))
                })
                .buffer_unordered(LOADS_AT_ONCE);
            while let Some((files, bytes)) = sending.try_next().await? {
                uploaded.files += files;
                uploaded.bytes += bytes;
                progress(uploaded);
            }
        }
        Err(Status::aborted(
            "contents left the cluster while others were uploaded: apply again",
        ))
    }

    async fn send_manifest(
        &self,
        header: &ApplyConfigHeader,
        manifest: &[ConfigFile],
    ) -> Result<ApplyConfigResponse, Status> {
        let first = Part::Header(header.clone());
        let parts = std::iter::once(first)
            .chain(manifest_parts(manifest.to_vec()).map(Part::Manifest))
            .map(|part| ApplyConfigRequest { part: Some(part) });
        let answer = self.config().apply(stream::iter(parts)).await?;
        Ok(answer.into_inner())
    }

    async fn send_load(&self, load: &[Bytes]) -> Result<(), Status> {
        let messages: Vec<_> = pack(load).collect();
        self.config().put_contents(stream::iter(messages)).await?;
        Ok(())
    }

    /// A version and its files; 0 = the one in force.
    ///
    /// # Errors
    /// When there is no such version, or no answer.
    pub async fn config_version(
        &self,
        version: u64,
    ) -> Result<(ConfigVersion, Vec<ConfigFile>), Status> {
        let request = GetConfigVersionRequest { version };
        let answer = busy(|| async move { self.config().get_version(request).await }).await?;
        let mut parts = answer.into_inner();
        let mut version = None;
        let mut files = Vec::new();
        while let Some(part) = parts.message().await? {
            match part.part {
                Some(get_config_version_response::Part::Version(found)) => version = Some(found),
                Some(get_config_version_response::Part::Manifest(part)) => files.extend(part.files),
                None => {}
            }
        }
        let version = version.ok_or_else(|| Status::internal("the answer names no version"))?;
        Ok((version, files))
    }

    /// A content by its name.
    ///
    /// # Errors
    /// When it is not there, or not what its name says.
    pub async fn config_content(&self, name: &BlobRef) -> Result<Bytes, Status> {
        let request = GetConfigFileRequest {
            blob: Some(name.clone()),
            ..GetConfigFileRequest::default()
        };
        let answer = busy(|| async { self.config().get_file(request.clone()).await }).await?;
        let mut pieces = answer.into_inner();
        let mut content = Vec::new();
        while let Some(piece) = pieces.message().await? {
            content.extend_from_slice(&piece.content);
        }
        match blob::name(&content) == *name {
            true => Ok(content.into()),
            false => Err(Status::data_loss("the content is not what its name says")),
        }
    }
}

/// Tries again while the node is busy.
async fn busy<T, F: Future<Output = Result<T, Status>>>(
    mut call: impl FnMut() -> F,
) -> Result<T, Status> {
    let mut wait = BUSY_WAIT;
    for _ in 1..BUSY_TRIES {
        match call().await {
            Err(status) if status.code() == Code::ResourceExhausted => {
                let jitter = rand::rng().random_range(0.5..1.0);
                tokio::time::sleep(wait.mul_f64(jitter)).await;
                wait *= 2;
            }
            answer => return answer,
        }
    }
    call().await
}

/// Contents by call: small ones together.
fn loads(files: Vec<&LocalFile>) -> Vec<Vec<Bytes>> {
    let mut loads: Vec<Vec<Bytes>> = Vec::new();
    let mut bytes = usize::MAX;
    for file in files {
        let size = file.content.len();
        match loads.last_mut() {
            Some(load)
                if bytes.saturating_add(size) <= LOAD_BYTES && load.len() < MAX_LOAD_FILES =>
            {
                load.push(file.content.clone());
                bytes += size;
            }
            _ => {
                loads.push(vec![file.content.clone()]);
                bytes = size;
            }
        }
    }
    loads
}

/// Contents in messages of at most a piece.
fn pack(load: &[Bytes]) -> impl Iterator<Item = PutConfigContentsRequest> {
    let mut messages: Vec<PutConfigContentsRequest> = Vec::new();
    let mut room = 0;
    for content in load {
        let mut rest = content.clone();
        loop {
            if room == 0 {
                messages.push(PutConfigContentsRequest::default());
                room = PIECE_BYTES;
            }
            let data = rest.split_to(rest.len().min(room));
            room -= data.len();
            let end = rest.is_empty();
            if let Some(message) = messages.last_mut() {
                message.pieces.push(ConfigContentPiece { data, end });
            }
            if end {
                break;
            }
        }
    }
    messages.into_iter()
}

/// What differs between two manifests: path by role, with the content before and after.
#[must_use]
pub fn compare(
    from: &[ConfigFile],
    to: &[ConfigFile],
) -> BTreeMap<(String, String), (Option<BlobRef>, Option<BlobRef>)> {
    let mut both: BTreeMap<(String, String), (Option<BlobRef>, Option<BlobRef>)> = BTreeMap::new();
    let place = |file: &ConfigFile| (file.role.clone(), file.path.clone());
    for file in from {
        both.entry(place(file)).or_default().0 = file.blob.clone();
    }
    for file in to {
        both.entry(place(file)).or_default().1 = file.blob.clone();
    }
    both.retain(|_, (before, after)| before != after);
    both
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(size: usize) -> LocalFile {
        LocalFile {
            role: "job".into(),
            path: String::new(),
            content: vec![b'x'; size].into(),
        }
    }

    fn joined(messages: impl Iterator<Item = PutConfigContentsRequest>) -> Vec<usize> {
        let mut found = vec![0];
        for message in messages {
            let bytes: usize = message.pieces.iter().map(|piece| piece.data.len()).sum();
            assert!(bytes <= PIECE_BYTES);
            for piece in message.pieces {
                *found.last_mut().unwrap() += piece.data.len();
                if piece.end {
                    found.push(0);
                }
            }
        }
        assert_eq!(found.pop(), Some(0), "the last one has an end");
        found
    }

    #[test]
    fn contents_come_in_bounded_messages_and_calls() {
        let sizes = [0, 1, PIECE_BYTES, PIECE_BYTES - 1, 5 * PIECE_BYTES + 3, 0];
        let contents: Vec<Bytes> = sizes.iter().map(|size| local(*size).content).collect();
        assert_eq!(joined(pack(&contents)), sizes);

        let small: Vec<_> = (0..1000).map(|_| local(10)).collect();
        let calls = loads(small.iter().collect());
        assert_eq!(calls.len(), 4);
        let large = [local(LOAD_BYTES), local(1), local(3 * LOAD_BYTES)];
        assert_eq!(loads(large.iter().collect()).len(), 3);
    }

    #[test]
    fn a_manifest_comes_in_bounded_parts() {
        let files: Vec<_> = (0..5000)
            .map(|at| LocalFile {
                path: format!("{}{at}", "x".repeat(100)),
                ..local(1)
            })
            .map(|file| file.named())
            .collect();
        let parts: Vec<_> = manifest_parts(files.clone()).collect();
        assert!(parts.len() > 2);
        assert!(
            parts
                .iter()
                .all(|part| part.encoded_len() <= MANIFEST_BYTES)
        );
        let together: Vec<_> = parts.into_iter().flat_map(|part| part.files).collect();
        assert_eq!(together, files);
    }
}
