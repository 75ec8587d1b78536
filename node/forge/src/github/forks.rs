//! Forks in our own account (GHC-019).

use async_trait::async_trait;
use http::Method;

use super::client::{Call, Effect};
use super::credentials::Behalf;
use super::wire::WireRepo;
use super::{GitHub, at};
use crate::error::Result;
use crate::forge::Forks;
use crate::types::RepoId;

#[async_trait]
impl Forks for GitHub {
    async fn create_fork(&self, repo: &RepoId) -> Result<RepoId> {
        let call = Call::change(
            Method::POST,
            at(repo, "/forks"),
            Behalf::Org(&repo.org),
            // GitHub answers with the fork that exists.
            Effect::Idempotent,
            Some(&serde_json::json!({})),
        );
        let wire: WireRepo = self.client.json(&call).await?;
        Ok(wire.id())
    }
}
