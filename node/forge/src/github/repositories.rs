//! Repositories, branches, commits and files.

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::client::Call;
use super::credentials::Behalf;
use super::wire::{WireCommit, WireEntry, WireRepo, WireSha, nullable};
use super::{GitHub, at, segment, segments};
use crate::error::{ForgeError, Result};
use crate::forge::{Contents, Repositories};
use crate::types::{Commit, DirectoryEntry, RepoId, Repository};

#[derive(Deserialize)]
struct WireRef {
    object: WireSha,
}

#[async_trait]
impl Repositories for GitHub {
    async fn repository(&self, repo: &RepoId) -> Result<Repository> {
        let call = Call::read(at(repo, ""), Behalf::Org(&repo.org));
        let wire: WireRepo = self.client.json(&call).await?;
        Ok(wire.into())
    }

    async fn branch_head(&self, repo: &RepoId, branch: &str) -> Result<String> {
        let path = at(repo, &format!("/git/ref/heads/{}", segments(branch)));
        let wire: WireRef = self
            .client
            .json(&Call::read(path, Behalf::Org(&repo.org)))
            .await?;
        Ok(wire.object.sha)
    }

    async fn commit(&self, repo: &RepoId, reference: &str) -> Result<Commit> {
        let path = at(repo, &format!("/commits/{}", segments(reference)));
        let wire: WireCommit = self
            .client
            .json(&Call::read_new(path, Behalf::Org(&repo.org)))
            .await?;
        Ok(wire.into())
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WireContents {
    Directory(Vec<WireEntry>),
    File(WireFile),
}

#[derive(Deserialize)]
struct WireFile {
    #[serde(default, deserialize_with = "nullable")]
    encoding: String,
    #[serde(default, deserialize_with = "nullable")]
    content: String,
}

impl GitHub {
    fn contents_call<'a>(repo: &'a RepoId, path: &str, reference: &str) -> Call<'a> {
        let path = format!("/contents/{}", segments(path.trim_matches('/')));
        let path = if reference.is_empty() {
            path
        } else {
            format!("{path}?ref={}", segment(reference))
        };
        Call::read(at(repo, &path), Behalf::Org(&repo.org))
    }
}

#[async_trait]
impl Contents for GitHub {
    async fn file(&self, repo: &RepoId, path: &str, reference: &str) -> Result<Vec<u8>> {
        let call = Self::contents_call(repo, path, reference);
        let unreadable = |reason: String| ForgeError::Decode {
            request: call.name(),
            reason,
        };
        let WireContents::File(file) = self.client.json(&call).await? else {
            return Err(unreadable("it is a directory, not a file".to_owned()));
        };
        if file.encoding != "base64" {
            return Err(unreadable(format!(
                "the file is too large to be handed out this way (encoding {:?})",
                file.encoding
            )));
        }
        // GitHub breaks the text into lines.
        let text: String = file.content.split_ascii_whitespace().collect();
        STANDARD
            .decode(text)
            .map_err(|error| unreadable(error.to_string()))
    }

    async fn directory(
        &self,
        repo: &RepoId,
        path: &str,
        reference: &str,
    ) -> Result<Vec<DirectoryEntry>> {
        let call = Self::contents_call(repo, path, reference);
        match self.client.json(&call).await? {
            WireContents::Directory(entries) => Ok(entries.into_iter().map(Into::into).collect()),
            WireContents::File(_) => Err(ForgeError::Decode {
                request: call.name(),
                reason: "it is a file, not a directory".to_owned(),
            }),
        }
    }
}
