//! Tide's searches, in GraphQL (TIDE-013, TIDE-014).

use async_trait::async_trait;
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::GitHub;
use super::wire::{nullable, status_state, user_kind};
use crate::error::Result;
use crate::forge::Search;
use crate::search::{
    FoundIssues, LAST_COMMITS, MergeState, Mergeable, PAGE_SIZE, ReviewDecision, SearchPage,
    SearchRequest, SearchedCommit, SearchedIssue, SearchedPullRequest,
};
use crate::types::{CheckRun, CommitStatus, RepoId, User};

/// GitHub's own limit.
const MAX_PAGE_SIZE: u32 = 100;

const PULL_REQUESTS: &str = "\
query($query: String!, $first: Int!, $after: String, $commits: Int!) {
  rateLimit { cost remaining }
  search(type: ISSUE, first: $first, after: $after, query: $query) {
    issueCount
    pageInfo { hasNextPage endCursor }
    nodes {
      ... on PullRequest {
        number
        title
        body
        isDraft
        updatedAt
        author { __typename login }
        baseRefName
        baseRef { name prefix }
        headRefName
        headRefOid
        mergeable
        mergeStateStatus
        canBeRebased
        reviewDecision
        repository { name owner { login } }
        labels(first: 100) { nodes { name } }
        milestone { title }
        commits(last: $commits) {
          nodes {
            commit {
              oid
              status { contexts { context description state } }
              statusCheckRollup {
                contexts(last: 100) { nodes { ... on CheckRun { name status conclusion } } }
              }
            }
          }
        }
      }
    }
  }
}";

const ISSUES: &str = "\
query($query: String!, $first: Int!, $after: String) {
  rateLimit { cost remaining }
  search(type: ISSUE, first: $first, after: $after, query: $query) {
    issueCount
    pageInfo { hasNextPage endCursor }
    nodes {
      ... on Issue {
        number
        title
        url
        repository { name owner { login } }
      }
    }
  }
}";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireSearch {
    rate_limit: Option<WireRateLimit>,
    search: WireResults,
}

#[derive(Deserialize)]
struct WireRateLimit {
    cost: u64,
    remaining: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireResults {
    issue_count: u64,
    page_info: WirePageInfo,
    /// A node is null if we may not see it, and `{}` if it is of the other kind.
    #[serde(default = "Vec::new")]
    nodes: Vec<Option<serde_json::Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WirePageInfo {
    has_next_page: bool,
    end_cursor: Option<String>,
}

#[derive(Deserialize)]
struct WireNodes<N> {
    #[serde(default = "Vec::new")]
    nodes: Vec<Option<N>>,
}

impl<N> WireNodes<N> {
    fn present(list: Option<Self>) -> impl Iterator<Item = N> {
        list.map(|list| list.nodes)
            .unwrap_or_default()
            .into_iter()
            .flatten()
    }
}

#[derive(Deserialize)]
struct WireRepository {
    name: String,
    owner: WireOwner,
}

#[derive(Deserialize)]
struct WireOwner {
    login: String,
}

impl From<WireRepository> for RepoId {
    fn from(wire: WireRepository) -> Self {
        Self::new(wire.owner.login, wire.name)
    }
}

#[derive(Deserialize)]
struct WireActor {
    #[serde(rename = "__typename", default)]
    kind: String,
    login: String,
}

#[derive(Deserialize)]
struct WireBaseRef {
    name: String,
    prefix: String,
}

#[derive(Deserialize)]
struct WireNamed {
    name: String,
}

#[derive(Deserialize)]
struct WireTitled {
    title: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WirePullRequestNode {
    number: u64,
    title: String,
    #[serde(default, deserialize_with = "nullable")]
    body: String,
    #[serde(default, deserialize_with = "nullable")]
    is_draft: bool,
    updated_at: Timestamp,
    author: Option<WireActor>,
    #[serde(default, deserialize_with = "nullable")]
    base_ref_name: String,
    base_ref: Option<WireBaseRef>,
    head_ref_name: String,
    head_ref_oid: String,
    mergeable: Mergeable,
    merge_state_status: MergeState,
    #[serde(default, deserialize_with = "nullable")]
    can_be_rebased: bool,
    review_decision: Option<ReviewDecision>,
    repository: WireRepository,
    labels: Option<WireNodes<WireNamed>>,
    milestone: Option<WireTitled>,
    commits: Option<WireNodes<WireCommitNode>>,
}

#[derive(Deserialize)]
struct WireCommitNode {
    commit: WireSearchedCommit,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireSearchedCommit {
    oid: String,
    status: Option<WireContexts>,
    status_check_rollup: Option<WireRollup>,
}

#[derive(Deserialize)]
struct WireContexts {
    contexts: Vec<WireContext>,
}

#[derive(Deserialize)]
struct WireContext {
    context: String,
    #[serde(default, deserialize_with = "nullable")]
    description: String,
    state: String,
}

#[derive(Deserialize)]
struct WireRollup {
    contexts: WireNodes<WireCheck>,
}

/// `{}` for a status, which is asked for elsewhere.
#[derive(Deserialize)]
struct WireCheck {
    #[serde(default, deserialize_with = "nullable")]
    name: String,
    #[serde(default, deserialize_with = "nullable")]
    status: String,
    #[serde(default, deserialize_with = "nullable")]
    conclusion: String,
}

impl From<WirePullRequestNode> for SearchedPullRequest {
    fn from(wire: WirePullRequestNode) -> Self {
        let (base_branch, base_prefix) = wire
            .base_ref
            .map_or((wire.base_ref_name, String::new()), |base| {
                (base.name, base.prefix)
            });
        Self {
            repo: wire.repository.into(),
            number: wire.number,
            title: wire.title,
            body: wire.body,
            author: wire.author.map_or_else(User::default, |actor| User {
                kind: user_kind(&actor.kind),
                login: actor.login,
                html_url: String::new(),
            }),
            base_branch,
            base_prefix,
            head_branch: wire.head_ref_name,
            head_sha: wire.head_ref_oid,
            draft: wire.is_draft,
            mergeable: wire.mergeable,
            merge_state: wire.merge_state_status,
            can_be_rebased: wire.can_be_rebased,
            review_decision: wire.review_decision,
            labels: WireNodes::present(wire.labels)
                .map(|label| label.name)
                .collect(),
            milestone: wire.milestone.map(|milestone| milestone.title),
            updated_at: wire.updated_at,
            last_commits: WireNodes::present(wire.commits)
                .map(|node| node.commit.into())
                .collect(),
        }
    }
}

impl From<WireSearchedCommit> for SearchedCommit {
    fn from(wire: WireSearchedCommit) -> Self {
        let contexts = wire.status.map(|status| status.contexts);
        Self {
            sha: wire.oid,
            statuses: contexts
                .unwrap_or_default()
                .into_iter()
                .map(|context| CommitStatus {
                    state: status_state(&context.state),
                    context: context.context,
                    description: context.description,
                    target_url: String::new(),
                })
                .collect(),
            check_runs: WireNodes::present(wire.status_check_rollup.map(|rollup| rollup.contexts))
                .filter(|check| !check.name.is_empty())
                .map(|check| CheckRun {
                    name: check.name,
                    status: check.status,
                    conclusion: check.conclusion,
                    app: String::new(),
                })
                .collect(),
        }
    }
}

#[derive(Deserialize)]
struct WireIssueNode {
    number: u64,
    title: String,
    url: String,
    repository: WireRepository,
}

impl From<WireIssueNode> for SearchedIssue {
    fn from(wire: WireIssueNode) -> Self {
        Self {
            repo: wire.repository.into(),
            number: wire.number,
            title: wire.title,
            url: wire.url,
        }
    }
}

#[async_trait]
impl Search for GitHub {
    async fn search_pull_requests(
        &self,
        request: &SearchRequest,
    ) -> Result<SearchPage<SearchedPullRequest>> {
        let mut variables = variables(request);
        variables["commits"] = json!(LAST_COMMITS);
        self.search::<WirePullRequestNode, _>(
            "search pull requests",
            PULL_REQUESTS,
            request,
            &variables,
        )
        .await
    }

    async fn search_issues(&self, request: &SearchRequest) -> Result<SearchPage<SearchedIssue>> {
        self.search::<WireIssueNode, _>("search issues", ISSUES, request, &variables(request))
            .await
    }

    async fn find_issues(
        &self,
        query: &str,
        org: Option<&str>,
        limit: usize,
    ) -> Result<FoundIssues> {
        self.find_by_text(query, org, limit).await
    }
}

impl GitHub {
    async fn search<N: DeserializeOwned, T: From<N>>(
        &self,
        name: &str,
        query: &str,
        request: &SearchRequest,
        variables: &serde_json::Value,
    ) -> Result<SearchPage<T>> {
        let (found, mut incomplete): (WireSearch, _) = self
            .client
            .graphql(name, request.org.as_deref(), query, variables)
            .await?;
        let mut nodes = Vec::with_capacity(found.search.nodes.len());
        for node in found.search.nodes.into_iter().flatten() {
            if node.as_object().is_some_and(serde_json::Map::is_empty) {
                continue;
            }
            match serde_json::from_value::<N>(node) {
                Ok(node) => nodes.push(node.into()),
                // One that cannot be read must not take the others with it.
                Err(error) => {
                    incomplete.get_or_insert_with(|| format!("a node cannot be read: {error}"));
                }
            }
        }
        let page = found.search.page_info;
        let (cost, remaining) = found
            .rate_limit
            .map_or((0, 0), |limit| (limit.cost, limit.remaining));
        Ok(SearchPage {
            nodes,
            total: found.search.issue_count,
            next: page.end_cursor.filter(|_| page.has_next_page),
            cost,
            remaining,
            incomplete,
        })
    }
}

fn variables(request: &SearchRequest) -> serde_json::Value {
    let first = match request.page_size {
        0 => PAGE_SIZE,
        size => size.min(MAX_PAGE_SIZE),
    };
    json!({ "query": request.query, "first": first, "after": request.after })
}
