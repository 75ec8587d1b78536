//! Milestones of a repository, and whose they are.

use async_trait::async_trait;
use serde_json::json;

use super::client::Call;
use super::credentials::Behalf;
use super::wire::WireMilestone;
use super::{GitHub, at};
use crate::error::Result;
use crate::forge::Milestones;
use crate::types::{Milestone, RepoId};

#[async_trait]
impl Milestones for GitHub {
    async fn milestones(&self, repo: &RepoId) -> Result<Vec<Milestone>> {
        let call = Call::read(at(repo, "/milestones"), Behalf::Org(&repo.org));
        let wire: Vec<WireMilestone> = self.client.all(call).await?;
        Ok(wire.into_iter().map(Into::into).collect())
    }

    async fn set_milestone(
        &self,
        repo: &RepoId,
        number: u64,
        milestone: Option<u64>,
    ) -> Result<()> {
        self.patch_issue(repo, number, &json!({ "milestone": milestone }))
            .await
    }
}
