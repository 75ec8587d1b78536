//! Commits, statuses, check runs, refs, branches, contents.

use base64::Engine as _;
use serde_json::{Value, json};

use super::{Render, extend, node_id, path_segment, time, times};
use crate::forge::{
    CheckRun, Commit, Forge, PushedCommit, Repo, RepoName, Signature, Status, combined_state,
};
use crate::git::{ChangedFile, Entry};

/// What lies between two commits.
pub(crate) struct Comparison {
    pub(crate) base: Commit,
    pub(crate) head_sha: String,
    pub(crate) merge_base: Commit,
    pub(crate) ahead_by: u64,
    pub(crate) behind_by: u64,
    pub(crate) commits: Vec<Commit>,
    pub(crate) files: Vec<ChangedFile>,
}

impl Forge {
    /// The account that a commit's email belongs to.
    pub(crate) fn account_by_email(&self, email: &str) -> Option<&crate::forge::Account> {
        self.accounts().find(|a| a.email == email)
    }
}

impl Render<'_> {
    fn git_user(&self, signature: &Signature) -> Value {
        json!({"name": signature.name, "email": signature.email, "date": time(signature.at)})
    }

    fn commit_account(&self, signature: &Signature) -> Value {
        self.forge
            .account_by_email(&signature.email)
            .map_or(Value::Null, |account| self.account(account))
    }

    /// A commit as lists show it.
    pub(crate) fn commit(&self, repo: &RepoName, commit: &Commit) -> Value {
        let repo_url = self.repo_url(repo);
        let html = self.html_url(repo);
        let sha = &commit.sha;
        let parents: Vec<Value> = commit
            .parents
            .iter()
            .map(|parent| {
                json!({
                    "sha": parent,
                    "url": format!("{repo_url}/commits/{parent}"),
                    "html_url": format!("{html}/commit/{parent}"),
                })
            })
            .collect();
        json!({
            "sha": sha,
            "node_id": format!("C_{sha}"),
            "commit": {
                "author": self.git_user(&commit.author),
                "committer": self.git_user(&commit.committer),
                "message": commit.message,
                "tree": {"sha": commit.tree, "url": format!("{repo_url}/git/trees/{}", commit.tree)},
                "url": format!("{repo_url}/git/commits/{sha}"),
                "comment_count": 0,
                "verification": {
                    "verified": false, "reason": "unsigned", "signature": null, "payload": null, "verified_at": null,
                },
            },
            "url": format!("{repo_url}/commits/{sha}"),
            "html_url": format!("{html}/commit/{sha}"),
            "comments_url": format!("{repo_url}/commits/{sha}/comments"),
            "author": self.commit_account(&commit.author),
            "committer": self.commit_account(&commit.committer),
            "parents": parents,
        })
    }

    /// A commit by itself: also what it changes.
    pub(crate) fn full_commit(
        &self,
        repo: &RepoName,
        commit: &Commit,
        files: &[ChangedFile],
    ) -> Value {
        let additions: u64 = files.iter().map(|f| f.additions).sum();
        let deletions: u64 = files.iter().map(|f| f.deletions).sum();
        let mut value = self.commit(repo, commit);
        let files: Vec<Value> = files
            .iter()
            .map(|file| self.file(repo, &commit.sha, file))
            .collect();
        extend(
            &mut value,
            json!({
                "stats": {"total": additions + deletions, "additions": additions, "deletions": deletions},
                "files": files,
            }),
        );
        value
    }

    /// A commit in a push payload.
    pub(crate) fn pushed_commit(&self, repo: &RepoName, pushed: &PushedCommit) -> Value {
        let commit = &pushed.commit;
        let user = |signature: &Signature| {
            let mut user = json!({
                "name": signature.name, "email": signature.email, "date": time(signature.at),
            });
            if let Some(account) = self.forge.account_by_email(&signature.email) {
                user["username"] = json!(account.login);
            }
            user
        };
        json!({
            "id": commit.sha,
            "tree_id": commit.tree,
            "distinct": true,
            "message": commit.message,
            "timestamp": time(commit.committer.at),
            "url": format!("{}/commit/{}", self.html_url(repo), commit.sha),
            "author": user(&commit.author),
            "committer": user(&commit.committer),
            "added": pushed.added,
            "removed": pushed.removed,
            "modified": pushed.modified,
        })
    }

    /// A status without its creator, as the combined status lists it.
    fn simple_status(&self, repo: &RepoName, status: &Status) -> Value {
        json!({
            "url": format!("{}/statuses/{}", self.repo_url(repo), status.sha),
            "avatar_url": format!("{}/avatars/{}", self.base, status.creator),
            "id": status.id,
            "node_id": node_id("StatusContext", status.id),
            "state": status.state.as_str(),
            "description": status.description,
            "target_url": status.target_url,
            "context": status.context,
            "created_at": time(status.created_at),
            "updated_at": time(status.updated_at),
        })
    }

    pub(crate) fn status(&self, repo: &RepoName, status: &Status) -> Value {
        let mut value = self.simple_status(repo, status);
        value["creator"] = self.user(&status.creator);
        value
    }

    /// `page` is the part of the current statuses to list; the state is that of all.
    pub(crate) fn combined_status(
        &self,
        repo: &Repo,
        sha: &str,
        all: &[&Status],
        page: &[&Status],
    ) -> Value {
        let repo_url = self.repo_url(&repo.name);
        let statuses: Vec<Value> = page
            .iter()
            .map(|status| self.simple_status(&repo.name, status))
            .collect();
        json!({
            "state": combined_state(all.iter().copied()).as_str(),
            "statuses": statuses,
            "sha": sha,
            "total_count": all.len(),
            "repository": self.repo(repo),
            "commit_url": format!("{repo_url}/commits/{sha}"),
            "url": format!("{repo_url}/commits/{sha}/status"),
        })
    }

    pub(crate) fn check_run(&self, repo: &RepoName, run: &CheckRun) -> Value {
        let url = format!("{}/check-runs/{}", self.repo_url(repo), run.id);
        let html = format!("{}/runs/{}", self.html_url(repo), run.id);
        json!({
            "id": run.id,
            "node_id": node_id("CheckRun", run.id),
            "head_sha": run.sha,
            "external_id": "",
            "url": url,
            "html_url": html,
            "details_url": run.details_url.as_ref().unwrap_or(&html),
            "status": run.status,
            "conclusion": run.conclusion,
            "started_at": time(run.started_at),
            "completed_at": times(run.completed_at),
            "output": {
                "title": run.output.as_ref().map(|(title, _)| title),
                "summary": run.output.as_ref().map(|(_, summary)| summary), "text": null, "annotations_count": 0,
                "annotations_url": format!("{url}/annotations"),
            },
            "name": run.name,
            "check_suite": {"id": run.id},
            "app": run.app.as_ref().map_or(Value::Null, |slug| self.app(slug, run)),
            "pull_requests": [],
        })
    }

    fn app(&self, slug: &str, run: &CheckRun) -> Value {
        json!({
            "id": 1,
            "slug": slug,
            "node_id": node_id("App", 1),
            "owner": self.user(slug),
            "name": slug,
            "description": null,
            "external_url": format!("{}/{slug}", self.base),
            "html_url": format!("{}/apps/{slug}", self.base),
            "created_at": time(run.started_at),
            "updated_at": time(run.started_at),
            "permissions": {"checks": "write"},
            "events": [],
        })
    }

    /// What two commits differ by: `commits` and `files` are those to show.
    pub(crate) fn comparison(&self, repo: &RepoName, found: &Comparison) -> Value {
        let spec = format!("{}...{}", found.base.sha, found.head_sha);
        let (url, html) = (self.repo_url(repo), self.html_url(repo));
        let status = match (found.ahead_by, found.behind_by) {
            (0, 0) => "identical",
            (_, 0) => "ahead",
            (0, _) => "behind",
            _ => "diverged",
        };
        let commits = found.commits.iter();
        let files = found.files.iter();
        json!({
            "url": format!("{url}/compare/{spec}"),
            "html_url": format!("{html}/compare/{spec}"),
            "permalink_url": format!("{html}/compare/{spec}"),
            "diff_url": format!("{html}/compare/{spec}.diff"),
            "patch_url": format!("{html}/compare/{spec}.patch"),
            "base_commit": self.commit(repo, &found.base),
            "merge_base_commit": self.commit(repo, &found.merge_base),
            "status": status,
            "ahead_by": found.ahead_by,
            "behind_by": found.behind_by,
            "total_commits": found.ahead_by,
            "commits": commits.map(|commit| self.commit(repo, commit)).collect::<Vec<_>>(),
            "files": files
                .map(|file| self.file(repo, &found.head_sha, file))
                .collect::<Vec<_>>(),
        })
    }

    pub(crate) fn git_ref(&self, repo: &RepoName, branch: &str, sha: &str) -> Value {
        let repo_url = self.repo_url(repo);
        json!({
            "ref": format!("refs/heads/{branch}"),
            "node_id": format!("REF_{sha}"),
            "url": format!("{repo_url}/git/refs/heads/{branch}"),
            "object": {"sha": sha, "type": "commit", "url": format!("{repo_url}/git/commits/{sha}")},
        })
    }

    /// One of `GET …/branches`.
    pub(crate) fn short_branch(&self, repo: &Repo, name: &str, sha: &str) -> Value {
        json!({
            "name": name,
            "commit": {"sha": sha, "url": format!("{}/commits/{sha}", self.repo_url(&repo.name))},
            "protected": repo.required_contexts.contains_key(name),
        })
    }

    /// `GET …/branches/{branch}/protection` of a branch that requires contexts.
    pub(crate) fn protection(&self, repo: &Repo, branch: &str, contexts: &[String]) -> Value {
        let url = format!("{}/branches/{branch}/protection", self.repo_url(&repo.name));
        let checks = contexts
            .iter()
            .map(|context| json!({"context": context, "app_id": null}));
        json!({
            "url": url,
            "required_status_checks": {
                "url": format!("{url}/required_status_checks"),
                "strict": false,
                "contexts": contexts,
                "contexts_url": format!("{url}/required_status_checks/contexts"),
                "checks": checks.collect::<Vec<_>>(),
            },
            "enforce_admins": {"url": format!("{url}/enforce_admins"), "enabled": false},
            "required_linear_history": {"enabled": false},
            "allow_force_pushes": {"enabled": false},
            "allow_deletions": {"enabled": false},
        })
    }

    pub(crate) fn branch(&self, repo: &Repo, name: &str, commit: &Commit) -> Value {
        let url = format!("{}/branches/{name}", self.repo_url(&repo.name));
        let contexts = repo.required_contexts.get(name);
        let checks = json!({
            "enforcement_level": if contexts.is_some() { "everyone" } else { "off" },
            "contexts": contexts.cloned().unwrap_or_default(),
            "checks": [],
        });
        json!({
            "name": name,
            "commit": self.commit(&repo.name, commit),
            "_links": {"self": url, "html": format!("{}/tree/{name}", self.html_url(&repo.name))},
            "protected": contexts.is_some(),
            "protection": {"enabled": contexts.is_some(), "required_status_checks": checks},
            "protection_url": format!("{url}/protection"),
        })
    }

    /// A file (with its content) or an entry of a directory (without).
    pub(crate) fn content(
        &self,
        repo: &RepoName,
        reference: &str,
        entry: &Entry,
        content: Option<&[u8]>,
    ) -> Value {
        let repo_url = self.repo_url(repo);
        let html = self.html_url(repo);
        let segments: Vec<String> = entry.path.split('/').map(path_segment).collect();
        let path = segments.join("/");
        let url = format!("{repo_url}/contents/{path}?ref={reference}");
        let (kind, object) = match entry.kind.as_str() {
            "tree" => ("dir", "trees"),
            "commit" => ("submodule", "trees"),
            _ => ("file", "blobs"),
        };
        let git_url = format!("{repo_url}/git/{object}/{}", entry.sha);
        let view = if kind == "dir" { "tree" } else { "blob" };
        let html_url = format!("{html}/{view}/{reference}/{path}");
        let download = (kind == "file").then(|| format!("{html}/raw/{reference}/{path}"));
        let mut value = json!({
            "name": entry.path.rsplit('/').next().unwrap_or_default(),
            "path": entry.path,
            "sha": entry.sha,
            "size": entry.size,
            "url": url,
            "html_url": html_url,
            "git_url": git_url,
            "download_url": download,
            "type": kind,
        });
        if let Some(content) = content {
            value["content"] = json!(wrapped_base64(content));
            value["encoding"] = json!("base64");
        }
        value["_links"] = json!({"self": url, "git": git_url, "html": html_url});
        value
    }
}

/// Base64 in lines of sixty characters, as GitHub writes it.
fn wrapped_base64(bytes: &[u8]) -> String {
    let encoded = base64::engine::general_purpose::STANDARD.encode(bytes);
    let mut wrapped = String::with_capacity(encoded.len() + encoded.len() / 60 + 1);
    for (at, character) in encoded.chars().enumerate() {
        wrapped.push(character);
        if at % 60 == 59 {
            wrapped.push('\n');
        }
    }
    if !wrapped.is_empty() && !wrapped.ends_with('\n') {
        wrapped.push('\n');
    }
    wrapped
}
