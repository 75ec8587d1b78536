//! The forge's records in GitHub's JSON shapes, for REST answers and webhook payloads alike.

mod actions;
mod commits;
mod hooks;
mod payload;
mod pulls;

pub(crate) use commits::Comparison;

use base64::Engine as _;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::forge::{
    Account, AccountKind, Comment, Forge, Id, Issue, IssueEvent, IssueEventKind, Label, Milestone,
    Permission, Reaction, Repo, RepoName, Team,
};

/// Shows records; `base` is the sandbox's own URL without a trailing slash.
#[derive(Clone, Copy)]
pub(crate) struct Render<'a> {
    pub(crate) forge: &'a Forge,
    pub(crate) base: &'a str,
}

/// GitHub's opaque ids.
pub(crate) fn node_id(kind: &str, id: Id) -> String {
    base64::engine::general_purpose::STANDARD.encode(format!("{:03}:{kind}{id}", kind.len()))
}

pub(crate) fn time(at: Timestamp) -> Value {
    Value::String(at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

fn times(at: Option<Timestamp>) -> Value {
    at.map_or(Value::Null, time)
}

/// URL templates of a repository: field name before `_url`, path after the repository's URL.
const REPO_URLS: [(&str, &str); 34] = [
    ("archive", "/{archive_format}{/ref}"),
    ("assignees", "/assignees{/user}"),
    ("blobs", "/git/blobs{/sha}"),
    ("branches", "/branches{/branch}"),
    ("collaborators", "/collaborators{/collaborator}"),
    ("comments", "/comments{/number}"),
    ("commits", "/commits{/sha}"),
    ("compare", "/compare/{base}...{head}"),
    ("contents", "/contents/{+path}"),
    ("contributors", "/contributors"),
    ("deployments", "/deployments"),
    ("downloads", "/downloads"),
    ("events", "/events"),
    ("forks", "/forks"),
    ("git_commits", "/git/commits{/sha}"),
    ("git_refs", "/git/refs{/sha}"),
    ("git_tags", "/git/tags{/sha}"),
    ("hooks", "/hooks"),
    ("issue_comment", "/issues/comments{/number}"),
    ("issue_events", "/issues/events{/number}"),
    ("issues", "/issues{/number}"),
    ("keys", "/keys{/key_id}"),
    ("labels", "/labels{/name}"),
    ("languages", "/languages"),
    ("merges", "/merges"),
    ("milestones", "/milestones{/number}"),
    ("notifications", "/notifications{?since,all,participating}"),
    ("pulls", "/pulls{/number}"),
    ("releases", "/releases{/id}"),
    ("stargazers", "/stargazers"),
    ("statuses", "/statuses/{sha}"),
    ("subscribers", "/subscribers"),
    ("subscription", "/subscription"),
    ("tags", "/tags"),
];

impl Render<'_> {
    pub(crate) fn repo_url(&self, name: &RepoName) -> String {
        format!("{}/repos/{name}", self.base)
    }

    pub(crate) fn html_url(&self, name: &RepoName) -> String {
        format!("{}/{name}", self.base)
    }

    /// `simple-user`, by login; an account that is gone shows as GitHub's ghost.
    pub(crate) fn user(&self, login: &str) -> Value {
        match self.forge.account(login) {
            Ok(account) => self.account(account),
            Err(_) => self.account(&Account {
                id: 10_137,
                login: "ghost".into(),
                name: None,
                email: String::new(),
                kind: AccountKind::User,
                busy: false,
                created_at: Timestamp::UNIX_EPOCH,
            }),
        }
    }

    pub(crate) fn account(&self, account: &Account) -> Value {
        let login = &account.login;
        let url = format!("{}/users/{login}", self.base);
        json!({
            "login": login,
            "id": account.id,
            "node_id": node_id("User", account.id),
            "avatar_url": format!("{}/avatars/{login}", self.base),
            "gravatar_id": "",
            "url": url,
            "html_url": format!("{}/{login}", self.base),
            "followers_url": format!("{url}/followers"),
            "following_url": format!("{url}/following{{/other_user}}"),
            "gists_url": format!("{url}/gists{{/gist_id}}"),
            "starred_url": format!("{url}/starred{{/owner}}{{/repo}}"),
            "subscriptions_url": format!("{url}/subscriptions"),
            "organizations_url": format!("{url}/orgs"),
            "repos_url": format!("{url}/repos"),
            "events_url": format!("{url}/events{{/privacy}}"),
            "received_events_url": format!("{url}/received_events"),
            "type": match account.kind {
                AccountKind::User => "User",
                AccountKind::Bot => "Bot",
                AccountKind::Organization => "Organization",
            },
            "user_view_type": "public",
            "site_admin": false,
        })
    }

    /// `GET /user` and `GET /users/{login}`.
    pub(crate) fn full_account(&self, account: &Account) -> Value {
        let mut user = self.account(account);
        let more = json!({
            "name": account.name, "company": null, "blog": "", "location": null, "email": account.email,
            "hireable": null, "bio": null, "twitter_username": null, "public_repos": 0, "public_gists": 0,
            "followers": 0, "following": 0, "created_at": time(account.created_at),
            "updated_at": time(account.created_at),
        });
        extend(&mut user, more);
        user
    }

    fn users<'b>(&self, logins: impl IntoIterator<Item = &'b String>) -> Vec<Value> {
        logins.into_iter().map(|login| self.user(login)).collect()
    }

    /// An organization as webhooks carry it (`organization-simple`).
    pub(crate) fn organization(&self, login: &str) -> Option<Value> {
        let account = self.forge.account(login).ok()?;
        if account.kind != AccountKind::Organization {
            return None;
        }
        let url = format!("{}/orgs/{}", self.base, account.login);
        Some(json!({
            "login": account.login,
            "id": account.id,
            "node_id": node_id("Organization", account.id),
            "url": url,
            "repos_url": format!("{url}/repos"),
            "events_url": format!("{url}/events"),
            "hooks_url": format!("{url}/hooks"),
            "issues_url": format!("{url}/issues"),
            "members_url": format!("{url}/members{{/member}}"),
            "public_members_url": format!("{url}/public_members{{/member}}"),
            "avatar_url": format!("{}/avatars/{}", self.base, account.login),
            "description": "",
        }))
    }

    /// A repository in full; a superset of every repository schema.
    pub(crate) fn repo(&self, repo: &Repo) -> Value {
        let name = &repo.name;
        let url = self.repo_url(name);
        let html = self.html_url(name);
        let open = repo
            .issues
            .values()
            .filter(|i| i.state == crate::forge::OpenState::Open)
            .count();
        let forks = self
            .forge
            .repos()
            .filter(|r| r.fork_of.as_ref().is_some_and(|f| f.key() == name.key()))
            .count();
        let mut value = json!({
            "id": repo.id,
            "node_id": node_id("Repository", repo.id),
            "name": name.name,
            "full_name": name.to_string(),
            "private": repo.private,
            "owner": self.user(&name.owner),
            "html_url": html,
            "description": repo.description,
            "fork": repo.fork_of.is_some(),
            "url": url,
        });
        let mut more = serde_json::Map::new();
        for (field, path) in REPO_URLS {
            more.insert(format!("{field}_url"), json!(format!("{url}{path}")));
        }
        // GitHub's one template without a separator.
        more.insert("teams_url".into(), json!(format!("{url}/teams")));
        more.insert(
            "trees_url".into(),
            json!(format!("{url}/git/trees{{/sha}}")),
        );
        extend(&mut value, Value::Object(more));
        extend(
            &mut value,
            json!({
                "created_at": time(repo.created_at),
                "updated_at": time(repo.updated_at),
                "pushed_at": time(repo.pushed_at),
                "git_url": format!("{html}.git"),
                "ssh_url": format!("ssh://git@localhost/{name}.git"),
                "clone_url": format!("{html}.git"),
                "svn_url": html,
                "homepage": null,
                "size": 1,
                "stargazers_count": 0,
                "watchers_count": 0,
                "language": null,
                "has_issues": true,
                "has_projects": false,
                "has_downloads": true,
                "has_wiki": false,
                "has_pages": false,
                "has_discussions": false,
                "forks_count": forks,
                "mirror_url": null,
                "archived": repo.archived,
                "disabled": false,
                "open_issues_count": open,
                "license": null,
                "allow_forking": true,
                "is_template": false,
                "web_commit_signoff_required": false,
                "topics": [],
                "visibility": if repo.private { "private" } else { "public" },
                "forks": forks,
                "open_issues": open,
                "watchers": 0,
                "default_branch": repo.default_branch,
            }),
        );
        value
    }

    /// `GET /repos/{o}/{r}`: also counts, merge methods and what the asker may do.
    pub(crate) fn full_repo(&self, repo: &Repo, permission: Permission) -> Value {
        use crate::forge::MergeMethod;
        let allows = |method| repo.allowed_methods.contains(&method);
        let mut value = self.repo(repo);
        extend(
            &mut value,
            json!({
                "network_count": 0,
                "subscribers_count": 0,
                "permissions": permissions(permission),
                "allow_merge_commit": allows(MergeMethod::Merge),
                "allow_squash_merge": allows(MergeMethod::Squash),
                "allow_rebase_merge": allows(MergeMethod::Rebase),
                "allow_auto_merge": false,
                "delete_branch_on_merge": false,
                "allow_update_branch": false,
            }),
        );
        if let Some(organization) = self
            .forge
            .account(&repo.name.owner)
            .ok()
            .filter(|a| a.kind == AccountKind::Organization)
        {
            value["organization"] = self.account(organization);
        }
        if let Some(parent) = repo.fork_of.as_ref().and_then(|f| self.forge.repo(f).ok()) {
            let parent = self.repo(parent);
            value["source"] = parent.clone();
            value["parent"] = parent;
        }
        value
    }

    pub(crate) fn label(&self, repo: &RepoName, label: &Label) -> Value {
        json!({
            "id": label.id,
            "node_id": node_id("Label", label.id),
            "url": format!("{}/labels/{}", self.repo_url(repo), path_segment(&label.name)),
            "name": label.name,
            "color": label.color,
            "default": false,
            "description": label.description,
        })
    }

    pub(crate) fn labels(&self, repo: &Repo, issue: &Issue) -> Vec<Value> {
        let known = issue.labels.iter().filter_map(|name| repo.label(name));
        known.map(|label| self.label(&repo.name, label)).collect()
    }

    pub(crate) fn milestone(&self, repo: &Repo, milestone: &Milestone) -> Value {
        let url = format!(
            "{}/milestones/{}",
            self.repo_url(&repo.name),
            milestone.number
        );
        let count = |state| {
            let mut issues = repo.issues.values().collect::<Vec<_>>();
            issues.retain(|i| i.milestone == Some(milestone.number) && i.state == state);
            issues.len()
        };
        json!({
            "url": url,
            "html_url": format!("{}/milestone/{}", self.html_url(&repo.name), milestone.number),
            "labels_url": format!("{url}/labels"),
            "id": milestone.id,
            "node_id": node_id("Milestone", milestone.id),
            "number": milestone.number,
            "title": milestone.title,
            "description": null,
            "creator": self.user(&milestone.creator),
            "open_issues": count(crate::forge::OpenState::Open),
            "closed_issues": count(crate::forge::OpenState::Closed),
            "state": milestone.state.as_str(),
            "created_at": time(milestone.created_at),
            "updated_at": time(milestone.created_at),
            "due_on": null,
            "closed_at": null,
        })
    }

    fn issue_milestone(&self, repo: &Repo, issue: &Issue) -> Value {
        let milestone = issue.milestone.and_then(|n| repo.milestones.get(&n));
        milestone.map_or(Value::Null, |m| self.milestone(repo, m))
    }

    /// An issue, or a pull request seen as one.
    pub(crate) fn issue(&self, repo: &Repo, issue: &Issue) -> Value {
        let repo_url = self.repo_url(&repo.name);
        let url = format!("{repo_url}/issues/{}", issue.number);
        let kind = if issue.pull.is_some() {
            "pull"
        } else {
            "issues"
        };
        let html = format!("{}/{kind}/{}", self.html_url(&repo.name), issue.number);
        let mut value = json!({
            "url": url,
            "repository_url": repo_url,
            "labels_url": format!("{url}/labels{{/name}}"),
            "comments_url": format!("{url}/comments"),
            "events_url": format!("{url}/events"),
            "html_url": html,
            "id": issue.id,
            "node_id": node_id("Issue", issue.id),
            "number": issue.number,
            "title": issue.title,
            "user": self.user(&issue.author),
            "labels": self.labels(repo, issue),
            "state": issue.state.as_str(),
            "locked": issue.locked,
            "assignee": issue.assignees.first().map_or(Value::Null, |login| self.user(login)),
            "assignees": self.users(&issue.assignees),
            "milestone": self.issue_milestone(repo, issue),
            "comments": issue.comments.len(),
            "created_at": time(issue.created_at),
            "updated_at": time(issue.updated_at),
            "closed_at": times(issue.closed_at),
            "author_association": self.forge.association(&repo.name, &issue.author),
            "active_lock_reason": null,
            "body": issue.body,
            "closed_by": issue.closed_by.as_ref().map_or(Value::Null, |login| self.user(login)),
            "reactions": reactions(&url, &issue.reactions),
            "timeline_url": format!("{url}/timeline"),
            "performed_via_github_app": null,
            "state_reason": issue.state_reason,
        });
        if let Some(pull) = &issue.pull {
            value["draft"] = json!(pull.draft);
            value["pull_request"] = json!({
                "url": format!("{repo_url}/pulls/{}", issue.number),
                "html_url": html,
                "diff_url": format!("{html}.diff"),
                "patch_url": format!("{html}.patch"),
                "merged_at": times(pull.merged.as_ref().map(|m| m.at)),
            });
        }
        value
    }

    pub(crate) fn comment(&self, repo: &Repo, comment: &Comment) -> Value {
        let url = format!(
            "{}/issues/comments/{}",
            self.repo_url(&repo.name),
            comment.id
        );
        let is_pull = repo
            .issues
            .get(&comment.issue)
            .is_some_and(|i| i.pull.is_some());
        let kind = if is_pull { "pull" } else { "issues" };
        json!({
            "url": url,
            "html_url": format!(
                "{}/{kind}/{}#issuecomment-{}", self.html_url(&repo.name), comment.issue, comment.id
            ),
            "issue_url": format!("{}/issues/{}", self.repo_url(&repo.name), comment.issue),
            "id": comment.id,
            "node_id": node_id("IssueComment", comment.id),
            "user": self.user(&comment.author),
            "created_at": time(comment.created_at),
            "updated_at": time(comment.updated_at),
            "author_association": self.forge.association(&repo.name, &comment.author),
            "body": comment.body,
            "reactions": reactions(&url, &comment.reactions),
            "performed_via_github_app": null,
        })
    }

    pub(crate) fn issue_event(&self, repo: &RepoName, event: &IssueEvent) -> Value {
        let repo_url = self.repo_url(repo);
        let mut value = json!({
            "id": event.id,
            "node_id": node_id("IssueEvent", event.id),
            "url": format!("{repo_url}/issues/events/{}", event.id),
            "actor": self.user(&event.actor),
            "event": "",
            "commit_id": null,
            "commit_url": null,
            "created_at": time(event.at),
            "performed_via_github_app": null,
        });
        let label = |label: &Label| json!({"name": label.name, "color": label.color});
        value["event"] = json!(match &event.what {
            IssueEventKind::Labeled(added) => {
                value["label"] = label(added);
                "labeled"
            }
            IssueEventKind::Unlabeled(removed) => {
                value["label"] = label(removed);
                "unlabeled"
            }
            IssueEventKind::Assigned(login) | IssueEventKind::Unassigned(login) => {
                value["assignee"] = self.user(login);
                value["assigner"] = self.user(&event.actor);
                let assigned = matches!(event.what, IssueEventKind::Assigned(_));
                if assigned { "assigned" } else { "unassigned" }
            }
            IssueEventKind::Closed => "closed",
            IssueEventKind::Reopened => "reopened",
            IssueEventKind::Milestoned(title) => {
                value["milestone"] = json!({"title": title});
                "milestoned"
            }
            IssueEventKind::Demilestoned(title) => {
                value["milestone"] = json!({"title": title});
                "demilestoned"
            }
            IssueEventKind::Pinned => "pinned",
            IssueEventKind::Unpinned => "unpinned",
            IssueEventKind::Renamed { from, to } => {
                value["rename"] = json!({"from": from, "to": to});
                "renamed"
            }
            IssueEventKind::ReviewRequested(login)
            | IssueEventKind::ReviewRequestRemoved(login) => {
                value["requested_reviewer"] = self.user(login);
                value["review_requester"] = self.user(&event.actor);
                match event.what {
                    IssueEventKind::ReviewRequested(_) => "review_requested",
                    _ => "review_request_removed",
                }
            }
            IssueEventKind::Merged { commit } => {
                value["commit_id"] = json!(commit);
                value["commit_url"] = json!(format!("{repo_url}/commits/{commit}"));
                "merged"
            }
        });
        value
    }

    pub(crate) fn team(&self, org: &Account, team: &Team) -> Value {
        let url = format!("{}/organizations/{}/team/{}", self.base, org.id, team.id);
        json!({
            "name": team.name,
            "id": team.id,
            "node_id": node_id("Team", team.id),
            "slug": team.slug,
            "description": team.description,
            "privacy": "closed",
            "notification_setting": "notifications_enabled",
            "url": url,
            "html_url": format!("{}/orgs/{}/teams/{}", self.base, org.login, team.slug),
            "members_url": format!("{url}/members{{/member}}"),
            "repositories_url": format!("{url}/repos"),
            "permission": "pull",
            "type": "organization",
            "organization_id": org.id,
            "parent": null,
        })
    }

    /// `GET /orgs/{org}/teams/{slug}`.
    pub(crate) fn full_team(&self, org: &Account, team: &Team) -> Value {
        let mut value = self.team(org, team);
        let simple = self.organization(&org.login).unwrap_or(Value::Null);
        extend(
            &mut value,
            json!({
                "created_at": time(org.created_at),
                "updated_at": time(org.created_at),
                "members_count": team.members.len(),
                "repos_count": team.repos.len(),
                "organization": self.full_organization(org, simple),
            }),
        );
        value
    }

    /// `GET /orgs/{org}`, from the simple form.
    pub(crate) fn full_organization(&self, org: &Account, mut simple: Value) -> Value {
        let repos = self.forge.repos();
        let repos = repos.filter(|r| r.name.owner == org.login).count();
        extend(
            &mut simple,
            json!({
                "name": org.login, "has_organization_projects": false, "has_repository_projects": false,
                "public_repos": repos, "public_gists": 0, "followers": 0,
                "following": 0, "html_url": format!("{}/{}", self.base, org.login),
                "created_at": time(org.created_at), "updated_at": time(org.created_at), "archived_at": null,
                "type": "Organization",
            }),
        );
        simple
    }

    /// `GET /repos/{o}/{r}/collaborators/{user}/permission`.
    pub(crate) fn collaborator_permission(&self, login: &str, permission: Permission) -> Value {
        let mut user = self.user(login);
        user["permissions"] = permissions(permission);
        user["role_name"] = json!(permission.role());
        json!({"permission": permission.legacy(), "user": user, "role_name": permission.role()})
    }

    pub(crate) fn reaction(&self, reaction: &Reaction) -> Value {
        json!({
            "id": reaction.id,
            "node_id": node_id("Reaction", reaction.id),
            "user": self.user(&reaction.user),
            "content": reaction.content,
            "created_at": time(reaction.created_at),
        })
    }

    /// One of `GET /search/issues`.
    pub(crate) fn found(&self, repo: &Repo, issue: &Issue) -> Value {
        let mut value = self.issue(repo, issue);
        value["score"] = json!(1.0);
        if value["body"].is_null() {
            // Here, unlike elsewhere, a body is described as never null.
            value["body"] = json!("");
        }
        value
    }

    /// One of `GET /repos/{o}/{r}/collaborators`.
    pub(crate) fn collaborator(&self, login: &str, permission: Permission) -> Value {
        let mut user = self.user(login);
        user["permissions"] = permissions(permission);
        user["role_name"] = json!(permission.role());
        user
    }
}

fn permissions(permission: Permission) -> Value {
    json!({
        "admin": permission >= Permission::Admin,
        "maintain": permission >= Permission::Maintain,
        "push": permission >= Permission::Write,
        "triage": permission >= Permission::Triage,
        "pull": permission >= Permission::Read,
    })
}

fn reactions(url: &str, reactions: &[Reaction]) -> Value {
    let mut value = json!({"url": format!("{url}/reactions"), "total_count": reactions.len()});
    for content in crate::forge::REACTIONS {
        let count = reactions.iter().filter(|r| r.content == content).count();
        value[content] = json!(count);
    }
    value
}

/// Moves the fields of one object into another.
pub(crate) fn extend(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}

/// Percent-encodes one path segment.
pub(crate) fn path_segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
