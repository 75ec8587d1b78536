//! Transferring and pinning issues, which REST cannot (GHC-035).

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::json;

use super::GitHub;
use super::client::Effect;
use crate::drafts::TransferredIssue;
use crate::error::{ForgeError, Result};
use crate::forge::IssueMoves;
use crate::types::RepoId;

const REPOSITORY_ID: &str = "\
query($owner: String!, $name: String!) { repository(owner: $owner, name: $name) { id } }";

const TRANSFER: &str = "\
mutation($issue: ID!, $to: ID!) {
  transferIssue(input: { issueId: $issue, repositoryId: $to }) { issue { number url } }
}";

const PIN: &str = "\
mutation($issue: ID!) { pinIssue(input: { issueId: $issue }) { issue { number } } }";

const UNPIN: &str = "\
mutation($issue: ID!) { unpinIssue(input: { issueId: $issue }) { issue { number } } }";

#[derive(Deserialize)]
struct WireRepositoryId {
    repository: Option<WireId>,
}

#[derive(Deserialize)]
struct WireId {
    id: String,
}

#[derive(Deserialize)]
struct WireTransfer {
    #[serde(rename = "transferIssue")]
    transfer: Option<WireTransferred>,
}

#[derive(Deserialize)]
struct WireTransferred {
    issue: Option<WireMoved>,
}

#[derive(Deserialize)]
struct WireMoved {
    number: u64,
    url: String,
}

#[derive(Deserialize)]
struct WirePin {
    #[serde(alias = "pinIssue", alias = "unpinIssue")]
    outcome: Option<serde::de::IgnoredAny>,
}

/// A mutation that changed nothing answers null, and says why beside it.
fn changed<T>(name: &str, outcome: Option<T>, complaint: Option<String>) -> Result<T> {
    let complaint = complaint.unwrap_or_else(|| "nothing was changed".to_owned());
    outcome.ok_or_else(|| refused(name, complaint))
}

fn refused(name: &str, message: String) -> ForgeError {
    let request = format!("POST /graphql ({name})");
    // GitHub's words for a node, repository or issue that is not there, and for rights that we lack.
    if message.contains("Could not resolve to") {
        ForgeError::NotFound { request, message }
    } else if message.contains("does not have the correct permissions")
        || message.contains("Resource not accessible by integration")
    {
        ForgeError::Forbidden { request, message }
    } else {
        ForgeError::Refused {
            request,
            status: 200,
            message,
            errors: Vec::new(),
        }
    }
}

#[async_trait]
impl IssueMoves for GitHub {
    async fn transfer_issue(
        &self,
        repo: &RepoId,
        node_id: &str,
        to: &RepoId,
    ) -> Result<TransferredIssue> {
        let name = "find the repository to transfer to";
        let variables = json!({ "owner": to.org, "name": to.repo });
        let (found, complaint): (WireRepositoryId, _) = self
            .client
            .graphql(name, Some(&to.org), REPOSITORY_ID, &variables)
            .await?;
        let id = changed(name, found.repository, complaint)?.id;

        let name = "transfer an issue";
        let variables = json!({ "issue": node_id, "to": id });
        let (answer, complaint): (WireTransfer, _) = self
            .client
            .graphql_as(Effect::Once, name, Some(&repo.org), TRANSFER, &variables)
            .await?;
        let moved = answer.transfer.and_then(|transfer| transfer.issue);
        let moved = changed(name, moved, complaint)?;
        Ok(TransferredIssue {
            repo: to.clone(),
            number: moved.number,
            html_url: moved.url,
        })
    }

    async fn pin_issue(&self, repo: &RepoId, node_id: &str) -> Result<()> {
        self.pin(repo, node_id, "pin an issue", PIN).await
    }

    async fn unpin_issue(&self, repo: &RepoId, node_id: &str) -> Result<()> {
        self.pin(repo, node_id, "unpin an issue", UNPIN).await
    }
}

impl GitHub {
    async fn pin(&self, repo: &RepoId, node_id: &str, name: &str, mutation: &str) -> Result<()> {
        let variables = json!({ "issue": node_id });
        let (answer, complaint): (WirePin, _) = self
            .client
            .graphql_as(
                Effect::Idempotent,
                name,
                Some(&repo.org),
                mutation,
                &variables,
            )
            .await?;
        changed(name, answer.outcome, complaint).map(|_| ())
    }
}
