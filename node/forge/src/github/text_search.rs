//! Issues and pull requests by a text, over REST: what plugins count and look for. Tide's searches are `search`.

use serde::Deserialize;

use super::answer::{decode, next_page};
use super::client::Call;
use super::credentials::Behalf;
use super::wire::{WireIssue, nullable};
use super::{GitHub, segment};
use crate::error::{ForgeError, Result};
use crate::search::{FoundIssue, FoundIssues, SEARCH_LIMIT};
use crate::types::RepoId;

const PAGE_SIZE: usize = 100;

#[derive(Deserialize)]
struct WireFound {
    #[serde(default, deserialize_with = "nullable")]
    total_count: u64,
    #[serde(default, deserialize_with = "nullable")]
    incomplete_results: bool,
    #[serde(default, deserialize_with = "nullable")]
    items: Vec<WireItem>,
}

#[derive(Deserialize)]
struct WireItem {
    /// The only place where the repository is named: `https://…/repos/org/repo`.
    repository_url: String,
    #[serde(flatten)]
    issue: WireIssue,
}

fn repo_of(url: &str) -> Option<RepoId> {
    let mut segments = url.trim_end_matches('/').rsplit('/');
    let (repo, org) = (segments.next()?, segments.next()?);
    (!repo.is_empty() && !org.is_empty()).then(|| RepoId::new(org, repo))
}

impl WireItem {
    fn found(self) -> Option<FoundIssue> {
        let repo = repo_of(&self.repository_url)?;
        let issue = self.issue.into_issue(&repo);
        Some(FoundIssue {
            repo,
            number: issue.number,
            title: issue.title,
            body: issue.body,
            author: issue.author,
            state: issue.state,
            is_pull_request: issue.is_pull_request,
            labels: issue.labels,
            html_url: issue.html_url,
            created_at: issue.created_at,
        })
    }
}

impl GitHub {
    pub(super) async fn find_by_text(
        &self,
        query: &str,
        org: Option<&str>,
        limit: usize,
    ) -> Result<FoundIssues> {
        let limit = limit.min(usize::try_from(SEARCH_LIMIT).unwrap_or(usize::MAX));
        let size = limit.clamp(1, PAGE_SIZE);
        let path = |page: usize| {
            let query = segment(query);
            // GitHub counts the pages of a search from one.
            format!("/search/issues?q={query}&per_page={size}&page={page}")
        };
        let behalf = || org.map_or(Behalf::Ourselves, Behalf::Org);
        let mut found = FoundIssues::default();
        for page in 1..=limit.div_ceil(size).max(1) {
            let call = Call::read(path(page), behalf());
            let answer = self.client.call(&call).await?;
            let wire: WireFound = decode(&call, &answer)?;
            found.total = wire.total_count;
            found.incomplete |= wire.incomplete_results;
            for item in wire.items {
                let url = item.repository_url.clone();
                let item = item.found().ok_or_else(|| ForgeError::Decode {
                    request: call.name(),
                    reason: format!("{url} names no repository"),
                })?;
                if found.issues.len() < limit {
                    found.issues.push(item);
                }
            }
            if found.issues.len() >= limit || next_page(&answer.headers).is_none() {
                break;
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_found_issues_repository_is_in_its_url() {
        assert_eq!(
            repo_of("https://ghe.example/api/v3/repos/o/r"),
            Some(RepoId::new("o", "r"))
        );
        assert_eq!(repo_of("nonsense"), None);
    }
}
