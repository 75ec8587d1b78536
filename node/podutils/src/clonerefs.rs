//! `clonerefs`: clones a job's repositories and writes down what it did.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use trireme_prowjob::go_json::{self, null_as_zero};
use trireme_prowjob::{CloneCommand, CloneRecord, Pull, Refs};

pub use crate::clone::{clone_path, work_dir};

use crate::clone::{self, CloneSettings, Credentials, FETCH_RETRIES};
use crate::go_flags::{self, FlagError, Kind};
use crate::utility_log::UtilityLog;
use crate::{go_process, ssh};

/// Variable that holds the options as JSON.
pub const OPTIONS_ENV: &str = "CLONEREFS_OPTIONS";
/// `user.name` of merges made while cloning.
pub const DEFAULT_GIT_USER_NAME: &str = "ci-robot";
/// `user.email` of merges made while cloning.
pub const DEFAULT_GIT_USER_EMAIL: &str = "ci-robot@k8s.io";

/// Options of the program (POD-030).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CloneRefsOptions {
    /// Everything is cloned below this directory.
    #[serde(deserialize_with = "null_as_zero")]
    pub src_root: String,
    /// Gets the clone records.
    #[serde(deserialize_with = "null_as_zero")]
    pub log: String,
    /// `user.name`, empty to leave it to git.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_as_zero"
    )]
    pub git_user_name: String,
    /// `user.email`, empty to leave it to git.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_as_zero"
    )]
    pub git_user_email: String,
    /// What to clone.
    #[serde(deserialize_with = "null_as_zero")]
    pub refs: Vec<Refs>,
    /// SSH keys, or directories of them.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_as_zero"
    )]
    pub key_files: Vec<String>,
    /// File that holds an OAuth token.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_as_zero"
    )]
    pub oauth_token_file: String,
    /// Lines for `known_hosts`.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_as_zero"
    )]
    pub host_fingerprints: Vec<String>,
    /// Repositories cloned at once; 0 = all.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_as_zero")]
    pub max_parallel_workers: usize,
    /// Exit with an error when a clone failed.
    #[serde(skip_serializing_if = "is_false", deserialize_with = "null_as_zero")]
    pub fail: bool,
    /// git's `http.cookiefile`.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_as_zero"
    )]
    pub cookie_path: String,
    /// For authentication as a GitHub App.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_as_zero"
    )]
    pub github_api_endpoints: Vec<String>,
    /// For authentication as a GitHub App.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_as_zero"
    )]
    pub github_app_id: String,
    /// For authentication as a GitHub App.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_as_zero"
    )]
    pub github_app_private_key_file: String,
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

fn is_false(b: &bool) -> bool {
    !*b
}

/// Why options are refused or the program fails.
#[derive(Debug, thiserror::Error)]
pub enum CloneRefsError {
    /// The options do not fit together.
    #[error("{0}")]
    Invalid(String),
    /// The records could not be written.
    #[error("write clone records: {path}: {source}")]
    Write {
        /// The log file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The records could not be made JSON.
    #[error("marshal clone records: {0}")]
    Marshal(#[from] serde_json::Error),
    /// Some clone failed, and the options ask for an error then.
    #[error("{0} clone records failed")]
    Failed(usize),
}

impl CloneRefsOptions {
    /// # Errors
    /// The first thing that is missing or contradicts another (POD-033).
    pub fn validate(&self) -> Result<(), CloneRefsError> {
        self.check(&UtilityLog::new("clonerefs", Vec::new()))
    }

    pub(crate) fn check(&self, log: &UtilityLog) -> Result<(), CloneRefsError> {
        let refuse = |why: &str| Err(CloneRefsError::Invalid(why.to_owned()));
        if self.src_root.is_empty() {
            return refuse("no source root specified");
        }
        if self.log.is_empty() {
            return refuse("no log file specified");
        }
        if self.refs.is_empty() {
            return refuse("no refs specified to clone");
        }
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        for (i, refs) in self.refs.iter().enumerate() {
            let path = clone_path(&self.src_root, refs);
            if let Some(at) = seen.insert(path.clone(), i) {
                let other = &self.refs[at];
                let why = format!(
                    "clone ref config {i} (for {}/{}) will be extracted to {path}, which clone ref {at} (for {}/{}) is also using",
                    refs.org, refs.repo, other.org, other.repo
                );
                if refs.org == other.org && refs.repo == other.repo {
                    return Err(CloneRefsError::Invalid(why));
                }
                log.warn(
                    "multiple refs clone to the same location",
                    &[("error", why.into())],
                );
            }
        }
        let (id, key) = (
            !self.github_app_id.is_empty(),
            !self.github_app_private_key_file.is_empty(),
        );
        if id || key {
            if !self.oauth_token_file.is_empty() {
                return refuse("multiple authentication methods specified");
            }
            if self.github_api_endpoints.is_empty() {
                return refuse("no GitHub API endpoints for GitHub App authentication");
            }
        }
        match (id, key) {
            (true, false) => refuse("no GitHub App private key file specified"),
            (false, true) => refuse("no GitHub App ID specified"),
            _ => Ok(()),
        }
    }

    /// From flags, as the program takes them when [`OPTIONS_ENV`] is not set (POD-031).
    pub(crate) fn from_flags(args: &[String]) -> Result<Self, FlagError> {
        let (flags, _) = go_flags::parse(args, |name| match name {
            "fail" => Some(Kind::Bool),
            "src-root" | "log" | "git-user-name" | "git-user-email" | "repo" | "ssh-key"
            | "clone-alias" | "uri-prefix" | "max-workers" | "cookiefile" => Some(Kind::Value),
            _ => None,
        })?;
        let mut options = Self {
            git_user_name: DEFAULT_GIT_USER_NAME.to_owned(),
            git_user_email: DEFAULT_GIT_USER_EMAIL.to_owned(),
            ..Self::default()
        };
        let (mut alias, mut uri) = (String::new(), String::new());
        for (name, value) in flags {
            match name.as_str() {
                "src-root" => options.src_root = value,
                "log" => options.log = value,
                "git-user-name" => options.git_user_name = value,
                "git-user-email" => options.git_user_email = value,
                "repo" => {
                    let refs =
                        parse_refs(&value).map_err(|e| go_flags::invalid("repo", &value, e))?;
                    options.refs.push(refs);
                }
                "ssh-key" => options.key_files.push(value),
                "clone-alias" => alias = value,
                "uri-prefix" => uri = value,
                "max-workers" => {
                    options.max_parallel_workers = value
                        .parse()
                        .map_err(|e| go_flags::invalid("max-workers", &value, e))?;
                }
                "cookiefile" => options.cookie_path = value,
                _ => options.fail = go_flags::parse_bool(&name, &value)?,
            }
        }
        for refs in &mut options.refs {
            refs.path_alias = fill_org_repo(&alias, refs);
            refs.clone_uri = fill_org_repo(&uri, refs);
        }
        Ok(options)
    }

    /// Clones everything and writes the records, failed ones included.
    ///
    /// # Errors
    /// When the records cannot be written, or a clone failed and `fail` is set.
    pub fn run(&self) -> Result<(), CloneRefsError> {
        self.run_logged(&FETCH_RETRIES, &UtilityLog::to_stderr("clonerefs"))
    }

    pub(crate) fn run_logged(
        &self,
        fetch_retries: &[Duration],
        log: &UtilityLog,
    ) -> Result<(), CloneRefsError> {
        let records = self.records(fetch_retries, log);
        let json = go_json::to_string(&records)?;
        fs::write(&self.log, json).map_err(|source| CloneRefsError::Write {
            path: self.log.clone(),
            source,
        })?;
        let failed = records.iter().filter(|r| r.failed).count();
        if self.fail && failed > 0 {
            Err(CloneRefsError::Failed(failed))
        } else {
            Ok(())
        }
    }

    /// The record of setting up the environment, then one per refs, in their order (POD-041).
    fn records(&self, fetch_retries: &[Duration], log: &UtilityLog) -> Vec<CloneRecord> {
        let mut setup = CloneRecord::default();
        let (env, token) = match self.set_up(&mut setup.commands, log) {
            Ok(done) => done,
            Err(why) => {
                log.error(
                    "Failed to set up cloning",
                    &[("error", why.as_str().into())],
                );
                setup.failed = true;
                setup.commands.push(CloneCommand {
                    error: why,
                    command: "set up".to_owned(),
                    ..CloneCommand::default()
                });
                return vec![setup];
            }
        };
        let settings = CloneSettings {
            src_root: &self.src_root,
            user_name: &self.git_user_name,
            user_email: &self.git_user_email,
            cookie_file: &self.cookie_path,
            env: &env,
            credentials: Credentials {
                user: "",
                token: &token,
            },
            fetch_retries,
        };
        let mut records = vec![setup];
        records.extend(self.clone_all(&settings, log));
        records
    }

    /// Keys, hosts, token and cookies. Returns variables for git and the token.
    fn set_up(
        &self,
        done: &mut Vec<CloneCommand>,
        log: &UtilityLog,
    ) -> Result<(Vec<String>, String), String> {
        let mut env = Vec::new();
        if !self.key_files.is_empty() {
            env = ssh::add_keys(&self.key_files, done)?;
        }
        if !self.host_fingerprints.is_empty() {
            env.push(ssh::trust_hosts(&self.host_fingerprints, done)?);
        }
        if !self.github_app_id.is_empty() {
            // Going on without a token would let the job run without its code.
            return Err("authentication as a GitHub App is not built into this clonerefs: use oauth_token_secret, \
                        ssh_key_secrets or Prow's own clonerefs image"
                .to_owned());
        }
        let token = if self.oauth_token_file.is_empty() {
            String::new()
        } else {
            let raw = fs::read_to_string(&self.oauth_token_file).map_err(|e| {
                format!(
                    "read oauth token {}: {}",
                    self.oauth_token_file,
                    go_process::os_error(&e)
                )
            })?;
            raw.trim().to_owned()
        };
        if !self.cookie_path.is_empty() {
            if let Err(e) = fs::metadata(&self.cookie_path) {
                let fields = [
                    ("http-cookiefile", self.cookie_path.as_str().into()),
                    ("error", e.to_string().into()),
                ];
                log.warn("Cannot read http cookiefile", &fields);
            }
            if self.refs.iter().any(|r| !r.skip_submodules) {
                done.push(use_cookies_everywhere(&self.cookie_path)?);
            }
        }
        Ok((env, token))
    }

    fn clone_all(&self, settings: &CloneSettings<'_>, log: &UtilityLog) -> Vec<CloneRecord> {
        let workers = match self.max_parallel_workers {
            0 => self.refs.len(),
            limit => limit.min(self.refs.len()),
        };
        let next = AtomicUsize::new(0);
        let records = Mutex::new(vec![CloneRecord::default(); self.refs.len()]);
        thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    while let Some((i, refs)) = {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        self.refs.get(i).map(|r| (i, r))
                    } {
                        let record = clone::clone_refs(refs, settings, log);
                        records.lock().unwrap_or_else(PoisonError::into_inner)[i] = record;
                    }
                });
            }
        });
        records.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Submodules do not see a clone's own configuration, so with them the cookie file is set for the user (POD-039).
fn use_cookies_everywhere(cookie_path: &str) -> Result<CloneCommand, String> {
    let mut git = Command::new("git");
    git.args(["config", "--global", "http.cookiefile", cookie_path]);
    let (output, result) = go_process::combined_output(&mut git);
    result.map_err(|e| format!("configure global cookiefile {cookie_path}: {e}: {output}"))?;
    let command = format!("git config --global http.cookiefile {cookie_path:?}");
    Ok(CloneCommand {
        command,
        output,
        ..CloneCommand::default()
    })
}

/// Fills `{{.Org}}` and `{{.Repo}}`, the two fields that the templates of `--clone-alias` and `--uri-prefix` know.
fn fill_org_repo(template: &str, refs: &Refs) -> String {
    template
        .replace("{{.Org}}", &refs.org)
        .replace("{{.Repo}}", &refs.repo)
}

/// Reads `org,repo=base[:sha][,pull[:sha[:ref]]]...`.
///
/// # Errors
/// Which part is malformed.
pub fn parse_refs(value: &str) -> Result<Refs, CloneRefsError> {
    let bad =
        |part: &str, why: &str| CloneRefsError::Invalid(format!("refspec {part} invalid: {why}"));
    let (info, all) = value
        .split_once('=')
        .ok_or_else(|| bad(value, "does not contain '='"))?;
    let (org, repo) = info
        .split_once(',')
        .ok_or_else(|| bad(value, "does not contain 'org,repo' as prefix"))?;
    if all.is_empty() {
        return Err(bad(value, "does not contain any refs"));
    }
    let mut parts = all.split(',');
    let base = parts.next().unwrap_or_default();
    let (base_ref, base_sha) = match base.split(':').collect::<Vec<_>>()[..] {
        [r] => (r, ""),
        [r, sha] => (r, sha),
        _ => return Err(bad(base, "malformed base ref")),
    };
    let mut pulls = Vec::new();
    for part in parts {
        let (number, sha, r#ref) = match part.split(':').collect::<Vec<_>>()[..] {
            [n] => (n, "", ""),
            [n, sha] => (n, sha, ""),
            [n, sha, r] => (n, sha, r),
            _ => return Err(bad(part, "malformed pull ref")),
        };
        let number = number.parse().map_err(|_| {
            let why = format!("pull request identifier not a number: strconv.Atoi: parsing {number:?}: invalid syntax");
            bad(part, &why)
        })?;
        pulls.push(Pull {
            number,
            sha: sha.to_owned(),
            r#ref: r#ref.to_owned(),
            ..Pull::default()
        });
    }
    Ok(Refs {
        org: org.to_owned(),
        repo: repo.to_owned(),
        base_ref: base_ref.to_owned(),
        base_sha: base_sha.to_owned(),
        pulls,
        ..Refs::default()
    })
}

#[cfg(test)]
mod tests;
