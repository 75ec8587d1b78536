//! Repositories, branches, commits and files.

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::client::Call;
use super::credentials::Behalf;
use super::wire::{
    WireCommit, WireEntry, WireFile as WireChangedFile, WireRepo, WireSha, nullable,
};
use super::{GitHub, at, segment, segments};
use crate::error::{ForgeError, Result};
use crate::forge::{Contents, Repositories};
use crate::types::{Commit, Comparison, DirectoryEntry, RepoId, Repository};

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

    async fn owner_repositories(&self, owner: &str) -> Result<Vec<Repository>> {
        match self.org_repositories(owner).await {
            Err(error) if error.is_not_found() => {}
            outcome => return outcome,
        }
        let path = format!("/users/{}/repos", segment(owner));
        let call = Call::read(path, Behalf::Org(owner));
        let repos: Vec<WireRepo> = self.client.all(call).await?;
        Ok(repos.into_iter().map(Into::into).collect())
    }

    async fn compare(&self, repo: &RepoId, base: &str, head: &str) -> Result<Comparison> {
        // Without a page GitHub tells 250 commits instead of 100, and the files are on the first page alone.
        let path = format!("/compare/{}...{}", segments(base), segments(head));
        let wire: WireComparison = self
            .client
            .json(&Call::read_new(at(repo, &path), Behalf::Org(&repo.org)))
            .await?;
        Ok(Comparison {
            merge_base_sha: wire.merge_base_commit.sha,
            ahead_by: wire.ahead_by,
            behind_by: wire.behind_by,
            total_commits: wire.total_commits,
            commits: wire.commits.into_iter().map(Into::into).collect(),
            files: wire.files.into_iter().map(Into::into).collect(),
        })
    }
}

#[derive(Deserialize)]
struct WireComparison {
    merge_base_commit: WireSha,
    ahead_by: u64,
    behind_by: u64,
    total_commits: u64,
    #[serde(default, deserialize_with = "nullable")]
    commits: Vec<WireCommit>,
    #[serde(default, deserialize_with = "nullable")]
    files: Vec<WireChangedFile>,
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
