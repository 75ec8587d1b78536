//! Signs under comments, issues and pull requests.

use async_trait::async_trait;
use http::Method;
use serde_json::json;

use super::client::{Call, Effect};
use super::credentials::Behalf;
use super::{GitHub, at};
use crate::drafts::Reaction;
use crate::error::Result;
use crate::forge::Reactions;
use crate::types::RepoId;

#[async_trait]
impl Reactions for GitHub {
    async fn react_to_issue(&self, repo: &RepoId, number: u64, reaction: Reaction) -> Result<()> {
        self.react(repo, &format!("/issues/{number}/reactions"), reaction)
            .await
    }

    async fn react_to_comment(&self, repo: &RepoId, id: u64, reaction: Reaction) -> Result<()> {
        self.react(repo, &format!("/issues/comments/{id}/reactions"), reaction)
            .await
    }
}

impl GitHub {
    async fn react(&self, repo: &RepoId, path: &str, reaction: Reaction) -> Result<()> {
        let call = Call::change(
            Method::POST,
            at(repo, path),
            Behalf::Org(&repo.org),
            // GitHub keeps one of each kind per account.
            Effect::Idempotent,
            Some(&json!({ "content": reaction.as_str() })),
        );
        self.client.call(&call).await.map(|_| ())
    }
}
