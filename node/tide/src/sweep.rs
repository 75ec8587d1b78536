//! The repair of the mirror: what webhooks brought late, wrongly or not at all is found by searching, now and then
//! (section 2 and TIDE-016, TIDE-017, TIDE-110).

use std::{collections::BTreeMap, collections::BTreeSet};

use jiff::Timestamp;
use prost::Message as _;
use trireme_config::tide::{OrgExceptions, Tide};
use trireme_forge::{
    RepoId,
    search::{SearchRequest, SearchedPullRequest},
};
use trireme_proto::state::{HeadContext, PullRequest, PutPullRequests, command::Body};

use crate::{
    blockers::Blocker,
    facts, mirror,
    pull::SearchOnly,
    query,
    session::{BlockerBoard, PullKey, Session, Trouble},
};

/// GitHub had no pull request before: `updated` may not be left open.
const FOUNDING: &str = "2007-01-01T00:00:00Z";
/// Issues per page of a search (TIDE-100).
const BLOCKER_PAGE: u32 = 100;
/// Pages of blockers that are read: no project blocks itself with more.
const MAX_BLOCKER_PAGES: usize = 10;
/// Continuations of one search that hit GitHub's limit of results.
const MAX_ROUNDS: usize = 50;
/// What is put into the mirror at once, encoded.
const MAX_COMMAND_BYTES: usize = 256 << 10;
/// Contexts put into the mirror at once.
const MAX_COMMAND_CONTEXTS: usize = 500;
/// Pull requests asked for one by one in a sweep, because the mirror and the searches disagree.
const MAX_SINGLE: usize = 50;
/// A search may lag behind what webhooks told: younger news are left alone.
const SEARCH_LAG_MS: i64 = 30_000;

/// How far the sweep of all open pull requests has come, by the text of its search.
#[derive(Debug, Default)]
pub(crate) struct Progress(BTreeMap<String, Timestamp>);

impl Session {
    /// Searches for everything that the queries cover; an error leaves the rest as complete as it can be.
    pub(crate) async fn sweep(&self, tide: &Tide, progress: &mut Progress) -> Result<(), Trouble> {
        let app = self.forge.sees_by_org();
        let blockers = self.sweep_blockers(tide, app).await;
        let candidates = self.sweep_queries(tide, app).await;
        let open = self.sweep_open(tide, app, progress).await;
        let view = self.office.view();
        self.memory.keep(|key| {
            view.pull_request(&key.org, &key.repo, key.number)
                .is_some_and(|pull| pull.open)
        });
        blockers?;
        candidates?;
        open
    }

    /// TIDE-100, TIDE-102: where the search fails, nothing merges until it succeeds.
    async fn sweep_blockers(&self, tide: &Tide, app: bool) -> Result<(), Trouble> {
        if tide.blocker_label.is_empty() {
            self.memory.set_blockers(BlockerBoard::default());
            return Ok(());
        }
        let mut board = BlockerBoard::default();
        let mut failure = None;
        for (org, orgs, terms) in repository_terms(tide, app) {
            let query = format!(
                "is:issue state:open label:\"{}\" {terms}",
                tide.blocker_label
            );
            match self.search_blockers(query, org).await {
                Ok(found) => board.blockers.extend(found),
                Err(trouble) => {
                    tracing::warn!(?orgs, why = %trouble, "issues that block merges are not known: nothing merges there");
                    board.unknown_orgs.extend(orgs);
                    failure = Some(trouble);
                }
            }
        }
        self.memory.set_blockers(board);
        failure.map_or(Ok(()), Err)
    }

    async fn search_blockers(
        &self,
        query: String,
        org: Option<String>,
    ) -> Result<Vec<Blocker>, Trouble> {
        let mut request = SearchRequest {
            query,
            org,
            page_size: BLOCKER_PAGE,
            after: None,
        };
        let mut found = Vec::new();
        for _ in 0..MAX_BLOCKER_PAGES {
            let page = self.forge.search_issues(&request).await?;
            if let Some(why) = page.incomplete {
                return Err(Trouble::Other(format!("the search is incomplete: {why}")));
            }
            found.extend(page.nodes.iter().map(Blocker::from));
            if page.next.is_none() {
                return Ok(found);
            }
            request.after = page.next;
        }
        Err(Trouble::Other(format!(
            "more than {} issues block merges",
            found.len()
        )))
    }

    /// The candidates of every query (TIDE-010), and those that the mirror takes for one and no search has found.
    async fn sweep_queries(&self, tide: &Tide, app: bool) -> Result<(), Trouble> {
        let started_ms = self.office.now_ms();
        let mut found = BTreeSet::new();
        let mut failure = None;
        for query in &tide.queries {
            let searches: Vec<(Option<String>, String)> = if app {
                let searches = query.org_searches().into_iter();
                searches.map(|(org, text)| (Some(org), text)).collect()
            } else {
                vec![(None, query.search())]
            };
            for (org, text) in searches {
                let text = format!("{text} {}", dates(FOUNDING, &now(started_ms)));
                match self.search_into_mirror(&text, org.as_deref()).await {
                    Ok(searched) => {
                        if let Some(why) = searched.incomplete {
                            failure = Some(Trouble::Other(why));
                        }
                        found.extend(searched.keys);
                    }
                    Err(trouble) => {
                        tracing::warn!(query = text, why = %trouble, "the search failed");
                        failure = Some(trouble);
                    }
                }
            }
        }
        if let Some(trouble) = failure {
            return Err(trouble);
        }
        self.ask_for_missing(tide, &found, started_ms).await
    }

    /// The mirror says that they would be found: they were closed, moved or changed unseen.
    async fn ask_for_missing(
        &self,
        tide: &Tide,
        found: &BTreeSet<PullKey>,
        started_ms: i64,
    ) -> Result<(), Trouble> {
        let view = self.office.view();
        let missing: Vec<PullKey> = view
            .open_pull_requests()
            .filter(|pull| pull.updated_ms < started_ms - SEARCH_LAG_MS)
            .filter_map(|mirror| {
                let key = PullKey {
                    org: mirror.org.clone(),
                    repo: mirror.repo.clone(),
                    number: mirror.number,
                };
                let pull = facts::pull(&view, mirror, &SearchOnly::default());
                let meets = tide
                    .queries
                    .iter()
                    .any(|query| query::matches(query, &pull));
                (meets && !found.contains(&key)).then_some(key)
            })
            .take(MAX_SINGLE)
            .collect();
        for key in missing {
            let told = self.forge.pull_request(&key.repo_id(), key.number).await;
            let view = self.office.view();
            let former = view.pull_request(&key.org, &key.repo, key.number);
            let next = match told {
                Ok(told) => mirror::from_forge(&told, former.map(|pull| &**pull)),
                Err(why) if why.is_not_found() => former.map(|pull| PullRequest {
                    open: false,
                    contexts: BTreeMap::new(),
                    ..(**pull).clone()
                }),
                Err(why) => return Err(why.into()),
            };
            if let Some(next) = next {
                tracing::info!(repo = %key.repo_id(), number = key.number, "the mirror was behind");
                self.put_pulls(vec![next]).await?;
            }
        }
        Ok(())
    }

    /// All open pull requests, the longest untouched first, so that each look continues where the last one ended
    /// (TIDE-110, TIDE-111).
    async fn sweep_open(
        &self,
        tide: &Tide,
        app: bool,
        progress: &mut Progress,
    ) -> Result<(), Trouble> {
        let mut failure = None;
        for (org, _, terms) in repository_terms(tide, app) {
            let query = format!("is:pr state:open sort:updated-asc archived:false {terms}");
            for _ in 0..MAX_ROUNDS {
                let start = progress.0.get(&query).copied();
                let text = format!(
                    "{query} {}",
                    dates(
                        &start.map_or_else(|| FOUNDING.to_owned(), seconds),
                        &now(self.office.now_ms())
                    )
                );
                let searched = match self.search_into_mirror(&text, org.as_deref()).await {
                    Ok(searched) => searched,
                    Err(trouble) => {
                        failure = Some(trouble);
                        break;
                    }
                };
                let Some(latest) = searched.latest else { break };
                // An overlap, because the forge's index may lag.
                let next = if searched.incomplete.is_some() {
                    latest
                } else {
                    latest - jiff::SignedDuration::from_millis(SEARCH_LAG_MS)
                };
                let further = start.is_none_or(|start| next > start);
                if further {
                    progress.0.insert(query.clone(), next);
                }
                if searched.incomplete.is_none() || !further {
                    break;
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }

    async fn search_into_mirror(&self, text: &str, org: Option<&str>) -> Result<Searched, Trouble> {
        let seen_ms = self.office.now_ms();
        let result = self.forge.search_all_pull_requests(text, org).await?;
        if let Some(why) = &result.incomplete {
            tracing::warn!(query = text, why, "the search is incomplete");
        }
        let mut batch = Batch::default();
        for found in &result.nodes {
            self.take_in(found, seen_ms, &mut batch).await?;
            if batch.is_full() {
                self.put_batch(&mut batch).await?;
            }
        }
        self.put_batch(&mut batch).await?;
        Ok(Searched {
            keys: result.nodes.iter().map(key_of).collect(),
            latest: result.nodes.iter().map(|found| found.updated_at).max(),
            incomplete: result.incomplete,
        })
    }

    async fn take_in(
        &self,
        found: &SearchedPullRequest,
        seen_ms: i64,
        batch: &mut Batch,
    ) -> Result<(), Trouble> {
        let key = key_of(found);
        let view = self.office.view();
        let former = view
            .pull_request(&key.org, &key.repo, key.number)
            .map(|pull| &**pull);
        if self.memory.learn(key.clone(), SearchOnly::from(found)) {
            self.pools.add(crate::pool::PoolKey {
                org: key.org.clone(),
                repo: key.repo.clone(),
                branch: found.base_branch.clone(),
            });
        }
        let contexts = match found.head_commit() {
            Some(commit) => mirror::contexts(&commit.statuses, &commit.check_runs),
            // Only a head that the mirror has never seen is worth two more requests.
            None if former.is_none_or(|former| former.head_sha != found.head_sha) => {
                let status = self
                    .forge
                    .combined_status(&found.repo, &found.head_sha)
                    .await?;
                let runs = self.forge.check_runs(&found.repo, &found.head_sha).await?;
                mirror::contexts(&status.statuses, &runs)
            }
            None => Vec::new(),
        };
        let repo = RepoId::new(&key.org, &key.repo);
        let new = mirror::new_contexts(&repo, &found.head_sha, &contexts, former, seen_ms);
        batch.push(mirror::from_search(found, former), new);
        Ok(())
    }

    async fn put_batch(&self, batch: &mut Batch) -> Result<(), Trouble> {
        let Batch {
            pulls, contexts, ..
        } = std::mem::take(batch);
        if pulls.is_empty() && contexts.is_empty() {
            return Ok(());
        }
        let command = PutPullRequests {
            pull_requests: pulls,
            contexts,
        };
        self.office.propose(Body::PutPullRequests(command)).await?;
        Ok(())
    }
}

/// What one search found.
struct Searched {
    keys: Vec<PullKey>,
    latest: Option<Timestamp>,
    incomplete: Option<String>,
}

/// What goes into the mirror with one command.
#[derive(Default)]
struct Batch {
    pulls: Vec<PullRequest>,
    contexts: Vec<HeadContext>,
    bytes: usize,
}

impl Batch {
    fn push(&mut self, pull: Option<PullRequest>, contexts: Vec<HeadContext>) {
        self.bytes += pull.as_ref().map_or(0, PullRequest::encoded_len);
        self.bytes += contexts.iter().map(HeadContext::encoded_len).sum::<usize>();
        self.pulls.extend(pull);
        self.contexts.extend(contexts);
    }

    fn is_full(&self) -> bool {
        self.bytes >= MAX_COMMAND_BYTES || self.contexts.len() >= MAX_COMMAND_CONTEXTS
    }
}

fn key_of(found: &SearchedPullRequest) -> PullKey {
    PullKey {
        org: found.repo.org.clone(),
        repo: found.repo.repo.clone(),
        number: found.number,
    }
}

/// What the queries cover, as search terms: one text, or under an app one per org. With each the org to search as, and
/// the orgs it is about.
fn repository_terms(tide: &Tide, app: bool) -> Vec<(Option<String>, BTreeSet<String>, String)> {
    let covered = OrgExceptions::of(&tide.queries);
    let mut by_org: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (org, excepted) in &covered.orgs {
        let terms = by_org.entry(org.clone()).or_default();
        terms.push(format!("org:\"{org}\""));
        terms.extend(excepted.iter().map(|repo| format!("-repo:\"{repo}\"")));
    }
    for repo in &covered.repos {
        if let Some((org, _)) = repo.split_once('/') {
            let terms = by_org.entry(org.to_owned()).or_default();
            terms.push(format!("repo:\"{repo}\""));
        }
    }
    if app {
        return by_org
            .into_iter()
            .map(|(org, terms)| (Some(org.clone()), BTreeSet::from([org]), terms.join(" ")))
            .collect();
    }
    if by_org.is_empty() {
        return Vec::new();
    }
    let orgs = by_org.keys().cloned().collect();
    let terms: Vec<String> = by_org.into_values().flatten().collect();
    vec![(None, orgs, terms.join(" "))]
}

fn dates(start: &str, end: &str) -> String {
    format!("updated:{start}..{end}")
}

fn now(ms: i64) -> String {
    seconds(Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX))
}

fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use trireme_config::tide::TideQuery;

    use super::*;

    #[test]
    fn tide_110_all_that_the_queries_cover_in_one_search_or_one_per_org() {
        let list = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let tide = Tide {
            queries: vec![
                TideQuery {
                    orgs: list(&["a"]),
                    excluded_repos: list(&["a/x", "a/y"]),
                    ..TideQuery::default()
                },
                TideQuery {
                    repos: list(&["a/y", "b/z"]),
                    ..TideQuery::default()
                },
            ],
            ..Tide::default()
        };
        let texts = |app| -> Vec<String> {
            repository_terms(&tide, app)
                .into_iter()
                .map(|(_, _, text)| text)
                .collect()
        };
        assert_eq!(
            texts(true),
            [r#"org:"a" -repo:"a/x" repo:"a/y""#, r#"repo:"b/z""#]
        );
        assert_eq!(
            texts(false),
            [r#"org:"a" -repo:"a/x" repo:"a/y" repo:"b/z""#]
        );
    }

    #[test]
    fn tide_010_times_are_in_whole_seconds() {
        assert_eq!(
            dates(FOUNDING, &now(1_500)),
            "updated:2007-01-01T00:00:00Z..1970-01-01T00:00:01Z"
        );
    }
}
