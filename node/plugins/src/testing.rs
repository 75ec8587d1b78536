//! Events and records for the tests of pure decisions.

use std::sync::Arc;

use jiff::Timestamp;
use trireme_config::{Config, FileSet, Layout, LoadOptions, PluginConfig};
use trireme_forge::owners::{OwnersOptions, RepoOwners};
use trireme_forge::webhook::{
    Changes, Event, GenericComment, IssueCommentEvent, PullRequestEvent, ReviewEvent,
};
use trireme_forge::{
    BotUser, Commit, Issue, IssueComment, Label, PullRequest, PullRequestEnd, RepoId, Repository,
    Review, ReviewState, Signature, State, User,
};

use trireme_office::RunningConfig;

use crate::options::{FunOptions, PluginOptions};
use crate::plugin::{Configured, Plugin};

pub(crate) const URL: &str = "https://github.com/org/repo/pull/5";

pub(crate) fn bot() -> BotUser {
    BotUser {
        login: "k8s-ci-robot".into(),
        email: String::new(),
        app: false,
    }
}

pub(crate) fn labels(names: &[&str]) -> Vec<Label> {
    names
        .iter()
        .map(|name| Label {
            name: (*name).to_owned(),
            ..Label::default()
        })
        .collect()
}

pub(crate) fn repository() -> Repository {
    Repository {
        id: RepoId::new("org", "repo"),
        html_url: "https://github.com/org/repo".into(),
        default_branch: "main".into(),
        archived: false,
        private: false,
        fork: false,
        allow_merge_commit: true,
        allow_squash_merge: true,
        allow_rebase_merge: true,
    }
}

/// org/repo#5 by `author`, assigned to `assigned`.
pub(crate) fn pull_request() -> PullRequest {
    PullRequest {
        repo: RepoId::new("org", "repo"),
        number: 5,
        node_id: "PR_5".into(),
        html_url: URL.into(),
        title: "Fix it".into(),
        body: "Fixes #77".into(),
        author: User::new("author"),
        author_association: "NONE".into(),
        state: State::Open,
        draft: false,
        merged: false,
        merge_commit_sha: None,
        mergeable: None,
        base: PullRequestEnd {
            branch: "main".into(),
            sha: "b".repeat(40),
            repo: Some(RepoId::new("org", "repo")),
            repo_html_url: "https://github.com/org/repo".into(),
        },
        head: PullRequestEnd {
            branch: "fix".into(),
            sha: "a".repeat(40),
            repo: Some(RepoId::new("author", "repo")),
            repo_html_url: "https://github.com/author/repo".into(),
        },
        labels: vec![],
        assignees: vec![User::new("assigned")],
        requested_reviewers: vec![],
        requested_teams: vec![],
        auto_merge: false,
        milestone: None,
        created_at: Timestamp::UNIX_EPOCH,
        updated_at: Timestamp::UNIX_EPOCH,
        commits: Some(1),
    }
}

pub(crate) fn pull_request_event(action: &str) -> PullRequestEvent {
    PullRequestEvent {
        action: action.to_owned().into(),
        pull_request: pull_request(),
        repository: repository(),
        label: None,
        sender: User::new("author"),
        changes: Changes::default(),
        requested_reviewer: None,
        requested_team: None,
        before: None,
    }
}

pub(crate) fn bot_comment(id: u64, body: &str) -> IssueComment {
    IssueComment {
        id,
        html_url: format!("{URL}#issuecomment-{id}"),
        author: User::new("k8s-ci-robot"),
        body: body.to_owned(),
        created_at: Timestamp::UNIX_EPOCH,
        updated_at: Timestamp::UNIX_EPOCH,
    }
}

pub(crate) fn comment_event(login: &str, body: &str) -> Event {
    let pr = pull_request();
    Event::IssueComment(Box::new(IssueCommentEvent {
        action: "created".into(),
        issue: Issue {
            repo: pr.repo,
            number: pr.number,
            node_id: pr.node_id,
            html_url: pr.html_url,
            title: pr.title,
            body: pr.body,
            author: pr.author,
            state: pr.state,
            is_pull_request: true,
            labels: pr.labels,
            assignees: pr.assignees,
            milestone: None,
            created_at: pr.created_at,
            updated_at: pr.updated_at,
        },
        comment: IssueComment {
            author: User::new(login),
            ..bot_comment(9, body)
        },
        repository: repository(),
        sender: User::new(login),
    }))
}

pub(crate) fn comment(login: &str, body: &str) -> GenericComment {
    comment_event(login, body)
        .generic_comment()
        .expect("a created comment is a text")
}

pub(crate) fn review_event(login: &str, body: &str, state: ReviewState) -> Event {
    Event::Review(Box::new(ReviewEvent {
        action: "submitted".into(),
        pull_request: pull_request(),
        review: Review {
            id: 3,
            node_id: "PRR_3".into(),
            html_url: format!("{URL}#pullrequestreview-3"),
            author: User::new(login),
            body: body.to_owned(),
            state,
            submitted_at: Some(Timestamp::UNIX_EPOCH),
            commit_id: None,
        },
        repository: repository(),
        sender: User::new(login),
    }))
}

/// The lines of a file of upstream's answers, beside the project; `None`, and a printed line, where it is absent.
pub(crate) fn oracle(name: &str) -> Option<Vec<serde_json::Value>> {
    use std::io::Read as _;

    let path = shared().join("oracle").join(name);
    let Ok(packed) = std::fs::read(&path) else {
        println!("skipped: {} is absent", path.display());
        return None;
    };
    let mut text = String::new();
    flate2::read::GzDecoder::new(packed.as_slice())
        .read_to_string(&mut text)
        .expect("the oracle is gzipped text");
    let lines = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"));
    Some(lines.collect())
}

pub(crate) fn shared() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared")
}

/// What these files say.
pub(crate) fn owners(files: &[(&str, &str)]) -> RepoOwners {
    let files = files.iter().map(|(path, text)| (*path, text.as_bytes()));
    RepoOwners::from_files(files, &OwnersOptions::default())
}

/// The files of one of the oracle's trees: inline for the synthetic one, else below the corpus.
pub(crate) fn owners_tree(tree: &str, md_yaml: bool) -> RepoOwners {
    let options = OwnersOptions {
        md_yaml,
        ..OwnersOptions::default()
    };
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    let inline = oracle("owners.jsonl.gz").unwrap_or_default();
    let inline = inline.iter().find(|line| {
        line["kind"] == "repo"
            && format!(
                "{}/{}",
                line["org"].as_str().unwrap(),
                line["repo"].as_str().unwrap()
            ) == tree
            && line["files"].is_object()
    });
    match inline {
        Some(line) => {
            for (path, text) in line["files"].as_object().unwrap() {
                files.push((path.clone(), text.as_str().unwrap().as_bytes().to_vec()));
            }
        }
        None => read_tree(&shared().join("corpus/owners").join(tree), "", &mut files),
    }
    let files = files
        .iter()
        .map(|(path, bytes)| (path.as_str(), bytes.as_slice()));
    RepoOwners::from_files(files, &options)
}

fn read_tree(dir: &std::path::Path, prefix: &str, files: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            read_tree(&entry.path(), &format!("{name}/"), files);
        } else if kind.is_file() {
            files.push((name, std::fs::read(entry.path()).unwrap()));
        }
    }
}

/// A configuration whose job section is `jobs`.
pub(crate) fn config(jobs: &str) -> Arc<Config> {
    let mut files = FileSet::new(Layout {
        config: "config.yaml".into(),
        ..Layout::default()
    });
    files.insert("config.yaml", jobs.as_bytes());
    let loaded = Config::load(&files, LoadOptions::default());
    assert_eq!(loaded.errors, vec![]);
    loaded.config
}

pub(crate) fn commit(sha: &str, message: &str) -> Commit {
    Commit {
        sha: sha.to_owned(),
        tree_sha: String::new(),
        parents: vec![],
        message: message.to_owned(),
        author: Signature::default(),
        committer: Signature::default(),
        author_login: None,
    }
}

/// What a `plugins.yaml` says, or the first thing that is wrong with it.
pub(crate) fn plugins_yaml(text: &str) -> Result<Arc<PluginConfig>, String> {
    let mut files = FileSet::new(Layout {
        config: "config.yaml".into(),
        plugins: Some("plugins.yaml".into()),
        ..Layout::default()
    });
    files.insert("config.yaml", *b"{}");
    files.insert("plugins.yaml", text.as_bytes());
    let registry = crate::Plugins::built_in().config_registry();
    let options = LoadOptions {
        plugins: Some(&registry),
        ..LoadOptions::default()
    };
    let loaded = Config::load(&files, options).accepted();
    loaded
        .map(|(_, plugins)| plugins)
        .map_err(|errors| errors[0].to_string())
}

/// Whether an event concerns a plugin where `plugins.yaml` is empty.
pub(crate) fn concerns(plugin: &impl Plugin, event: &Event) -> bool {
    concerns_under("{}", plugin, event)
}

/// Whether it does where `plugins.yaml` says this.
pub(crate) fn concerns_under(yaml: &str, plugin: &impl Plugin, event: &Event) -> bool {
    let running = RunningConfig {
        version: 1,
        config: config("{}"),
        plugins: plugins_yaml(yaml).expect("a good plugins.yaml"),
    };
    let options = PluginOptions {
        fun: Some(FunOptions::default()),
        ..PluginOptions::default()
    };
    let configured = Configured {
        running: &running,
        options: &options,
    };
    plugin.concerns(&configured, event)
}

/// Presubmits of org/repo of every kind.
pub(crate) const PRESUBMITS: &str = r"
presubmits:
  org/repo:
  - name: unit
    always_run: true
    spec: {containers: [{image: alpine}]}
  - name: docs
    run_if_changed: ^docs/
    spec: {containers: [{image: alpine}]}
  - name: lint
    optional: true
    spec: {containers: [{image: alpine}]}
  - name: e2e
    branches: [release]
    always_run: true
    spec: {containers: [{image: alpine}]}
";
