//! Pull requests, reviews, changed files.

use serde_json::{Value, json};

use super::{Render, extend, node_id, path_segment, reactions, time, times};
use crate::forge::{Forge, Issue, Mergeability, Pull, Repo, RepoName, Review, ReviewComment};
use crate::git::ChangedFile;

impl Forge {
    /// The trial merge's answer, when it was made with the current tips.
    pub(crate) fn current_mergeability<'p>(
        &self,
        repo: &Repo,
        pull: &'p Pull,
    ) -> Option<&'p Mergeability> {
        let tip = repo.branches.get(&pull.base_branch)?;
        pull.mergeability
            .as_ref()
            .filter(|m| m.base_sha == *tip && m.head_sha == pull.head_sha)
    }

    /// REST's `mergeable_state` (in lower case) and GraphQL's `mergeStateStatus` (in upper case).
    pub(crate) fn merge_state(&self, repo: &Repo, pull: &Pull) -> &'static str {
        let Some(mergeability) = self.current_mergeability(repo, pull) else {
            return "unknown";
        };
        if mergeability.merge_commit.is_none() {
            return "dirty";
        }
        if pull.draft {
            return "draft";
        }
        let statuses = self.current_statuses(&repo.name, &pull.head_sha);
        let required = repo.required_contexts.get(&pull.base_branch);
        let good = |context: &String| {
            statuses
                .iter()
                .any(|s| s.context == *context && s.state == crate::forge::StatusState::Success)
        };
        if required.is_some_and(|r| !r.iter().all(good)) {
            return "blocked";
        }
        let combined = crate::forge::combined_state(statuses.iter().copied());
        if !statuses.is_empty() && combined != crate::forge::StatusState::Success {
            return "unstable";
        }
        "clean"
    }
}

impl Render<'_> {
    /// A pull request as lists show it (`pull-request-simple`).
    pub(crate) fn pull_simple(&self, repo: &Repo, issue: &Issue, pull: &Pull) -> Value {
        let name = &repo.name;
        let number = issue.number;
        let repo_url = self.repo_url(name);
        let url = format!("{repo_url}/pulls/{number}");
        let issue_url = format!("{repo_url}/issues/{number}");
        let html = format!("{}/pull/{number}", self.html_url(name));
        let statuses = format!("{repo_url}/statuses/{}", pull.head_sha);
        let href = |url: String| json!({"href": url});
        let merge_commit = match &pull.merged {
            Some(merged) => Some(merged.commit.clone()),
            None => pull
                .mergeability
                .as_ref()
                .and_then(|m| m.merge_commit.clone()),
        };
        let mut labels = self.labels(repo, issue);
        for label in &mut labels {
            // Here, unlike elsewhere, a description is described as never null.
            if label["description"].is_null() {
                label["description"] = json!("");
            }
        }
        json!({
            "url": url,
            "id": pull.id,
            "node_id": node_id("PullRequest", pull.id),
            "html_url": html,
            "diff_url": format!("{html}.diff"),
            "patch_url": format!("{html}.patch"),
            "issue_url": issue_url,
            "number": number,
            "state": issue.state.as_str(),
            "locked": issue.locked,
            "title": issue.title,
            "user": self.user(&issue.author),
            "body": issue.body,
            "created_at": time(issue.created_at),
            "updated_at": time(issue.updated_at),
            "closed_at": times(issue.closed_at),
            "merged_at": times(pull.merged.as_ref().map(|m| m.at)),
            "merge_commit_sha": merge_commit,
            "assignee": issue.assignees.first().map_or(Value::Null, |login| self.user(login)),
            "assignees": self.users(&issue.assignees),
            "requested_reviewers": self.users(&pull.requested_reviewers),
            "requested_teams": self.teams(name, &pull.requested_teams),
            "labels": labels,
            "milestone": self.issue_milestone(repo, issue),
            "draft": pull.draft,
            "commits_url": format!("{url}/commits"),
            "review_comments_url": format!("{url}/comments"),
            "review_comment_url": format!("{repo_url}/pulls/comments{{/number}}"),
            "comments_url": format!("{issue_url}/comments"),
            "statuses_url": statuses,
            "head": self.end(&pull.head_repo, &pull.head_branch, &pull.head_sha),
            "base": self.end(name, &pull.base_branch, &pull.base_sha),
            "_links": {
                "self": href(url.clone()),
                "html": href(html.clone()),
                "issue": href(issue_url.clone()),
                "comments": href(format!("{issue_url}/comments")),
                "review_comments": href(format!("{url}/comments")),
                "review_comment": href(format!("{repo_url}/pulls/comments{{/number}}")),
                "commits": href(format!("{url}/commits")),
                "statuses": href(statuses.clone()),
            },
            "author_association": self.forge.association(name, &issue.author),
            "auto_merge": null,
            "active_lock_reason": null,
        })
    }

    /// Teams of the repository's owner, by slug.
    fn teams(&self, repo: &RepoName, slugs: &[String]) -> Vec<Value> {
        let (Ok(account), Ok(org)) = (self.forge.account(&repo.owner), self.forge.org(&repo.owner))
        else {
            return Vec::new();
        };
        let teams = slugs.iter().filter_map(|slug| org.teams.get(slug));
        teams.map(|team| self.team(account, team)).collect()
    }

    fn end(&self, repo: &RepoName, branch: &str, sha: &str) -> Value {
        let repo_value = self
            .forge
            .repo(repo)
            .map_or(Value::Null, |record| self.repo(record));
        json!({
            "label": format!("{}:{branch}", repo.owner),
            "ref": branch,
            "sha": sha,
            "user": self.user(&repo.owner),
            "repo": repo_value,
        })
    }

    /// A pull request in full.
    pub(crate) fn pull(&self, repo: &Repo, issue: &Issue, pull: &Pull) -> Value {
        let mut value = self.pull_simple(repo, issue, pull);
        let current = self.forge.current_mergeability(repo, pull);
        let (mergeable, rebaseable) = match (current, &pull.merged) {
            (Some(m), None) => (json!(m.merge_commit.is_some()), json!(m.rebaseable)),
            _ => (Value::Null, Value::Null),
        };
        let merged_by = pull.merged.as_ref().map(|m| self.user(&m.by));
        extend(
            &mut value,
            json!({
                "merged": pull.merged.is_some(),
                "mergeable": mergeable,
                "rebaseable": rebaseable,
                "mergeable_state": if pull.merged.is_some() { "unknown" } else { self.forge.merge_state(repo, pull) },
                "merged_by": merged_by,
                "comments": issue.comments.len(),
                "review_comments": pull.review_comments.len(),
                "maintainer_can_modify": pull.maintainer_can_modify,
                "commits": pull.head.commits.len(),
                "additions": pull.head.additions,
                "deletions": pull.head.deletions,
                "changed_files": pull.head.changed_files,
            }),
        );
        value
    }

    pub(crate) fn review(&self, repo: &Repo, number: u64, review: &Review) -> Value {
        let pull = format!("{}/pulls/{number}", self.repo_url(&repo.name));
        let html = format!(
            "{}/pull/{number}#pullrequestreview-{}",
            self.html_url(&repo.name),
            review.id
        );
        json!({
            "id": review.id,
            "node_id": node_id("PullRequestReview", review.id),
            "user": self.user(&review.author),
            "body": review.body,
            "state": review.state.as_str(),
            "html_url": html,
            "pull_request_url": pull,
            "author_association": self.forge.association(&repo.name, &review.author),
            "_links": {"html": {"href": html}, "pull_request": {"href": pull}},
            "submitted_at": time(review.submitted_at),
            "commit_id": review.commit,
        })
    }

    pub(crate) fn review_comment(
        &self,
        repo: &Repo,
        number: u64,
        comment: &ReviewComment,
    ) -> Value {
        let repo_url = self.repo_url(&repo.name);
        let pull = format!("{repo_url}/pulls/{number}");
        let url = format!("{repo_url}/pulls/comments/{}", comment.id);
        let html = format!(
            "{}/pull/{number}#discussion_r{}",
            self.html_url(&repo.name),
            comment.id
        );
        let mut value = json!({
            "url": url,
            "pull_request_review_id": comment.review,
            "id": comment.id,
            "node_id": node_id("PullRequestReviewComment", comment.id),
            "diff_hunk": comment.diff_hunk,
            "path": comment.path,
            "position": comment.position,
            "original_position": comment.position,
            "commit_id": comment.commit,
            "original_commit_id": comment.commit,
            "user": self.user(&comment.author),
            "body": comment.body,
            "created_at": time(comment.created_at),
            "updated_at": time(comment.updated_at),
            "html_url": html,
            "pull_request_url": pull,
            "author_association": self.forge.association(&repo.name, &comment.author),
            "_links": {"self": {"href": url}, "html": {"href": html}, "pull_request": {"href": pull}},
            "start_line": null,
            "original_start_line": null,
            "start_side": null,
            "line": comment.line,
            "original_line": comment.line,
            "side": "RIGHT",
            "subject_type": "line",
            "reactions": reactions(&url, &[]),
        });
        if let Some(parent) = comment.in_reply_to {
            value["in_reply_to_id"] = json!(parent);
        }
        value
    }

    pub(crate) fn file(&self, repo: &RepoName, head: &str, file: &ChangedFile) -> Value {
        let html = self.html_url(repo);
        let path: Vec<String> = file.path.split('/').map(path_segment).collect();
        let path = path.join("/");
        let mut value = json!({
            "sha": file.sha,
            "filename": file.path,
            "status": file.status,
            "additions": file.additions,
            "deletions": file.deletions,
            "changes": file.additions + file.deletions,
            "blob_url": format!("{html}/blob/{head}/{path}"),
            "raw_url": format!("{html}/raw/{head}/{path}"),
            "contents_url": format!("{}/contents/{path}?ref={head}", self.repo_url(repo)),
        });
        if let Some(patch) = &file.patch {
            value["patch"] = json!(patch);
        }
        if let Some(previous) = &file.previous {
            value["previous_filename"] = json!(previous);
        }
        value
    }
}
