//! The git commands that bring one repository to its refs, and running them.

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use trireme_prowjob::gcs_paths::join;
use trireme_prowjob::{CloneCommand, CloneRecord, GoDuration, Refs};

use crate::go_process;
use crate::utility_log::UtilityLog;

const GITHUB_HOST: &str = "github.com";

/// Waits between tries of a fetch (POD-038).
pub(crate) const FETCH_RETRIES: [Duration; 9] = [
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(15),
    Duration::from_secs(30),
];

/// Where below `src_root` a repository is cloned to (POD-032).
pub fn clone_path(src_root: &str, refs: &Refs) -> String {
    let default;
    let below = if !refs.path_alias.is_empty() {
        refs.path_alias.as_str()
    } else if !refs.repo_link.is_empty() {
        refs.repo_link.rsplit("://").next().unwrap_or_default()
    } else {
        default = format!("{GITHUB_HOST}/{}/{}", refs.org, refs.repo);
        &default
    };
    join(&[src_root, "src", below])
}

/// The directory a job starts in: the first clone marked `workdir`, else the first one. `None` without refs.
pub fn work_dir(src_root: &str, refs: &[Refs]) -> Option<String> {
    refs.iter()
        .find(|r| r.workdir)
        .or_else(|| refs.first())
        .map(|r| clone_path(src_root, r))
}

/// Who fetches; an empty token means anonymously.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Credentials<'a> {
    pub(crate) user: &'a str,
    pub(crate) token: &'a str,
}

/// What all commands on one repository have in common.
#[derive(Debug)]
pub(crate) struct Clone<'a> {
    pub(crate) dir: String,
    pub(crate) remote: String,
    /// `KEY=value` added to the environment of every command.
    pub(crate) env: &'a [String],
}

/// One step of a clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) dir: String,
    pub(crate) env: Vec<String>,
    pub(crate) program: &'static str,
    pub(crate) args: Vec<String>,
    /// Tried again on failure.
    pub(crate) retried: bool,
}

/// What a clone is told beside its refs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CloneSettings<'a> {
    pub(crate) src_root: &'a str,
    pub(crate) user_name: &'a str,
    pub(crate) user_email: &'a str,
    pub(crate) cookie_file: &'a str,
    pub(crate) env: &'a [String],
    pub(crate) credentials: Credentials<'a>,
    pub(crate) fetch_retries: &'a [Duration],
}

impl<'a> Clone<'a> {
    pub(crate) fn new(
        refs: &Refs,
        src_root: &str,
        env: &'a [String],
        credentials: Credentials<'_>,
    ) -> Self {
        let remote = if !refs.clone_uri.is_empty() {
            refs.clone_uri.clone()
        } else if !refs.repo_link.is_empty() {
            format!("{}.git", refs.repo_link)
        } else {
            format!("https://{GITHUB_HOST}/{}/{}.git", refs.org, refs.repo)
        };
        Self {
            dir: clone_path(src_root, refs),
            remote: with_credentials(remote, credentials),
            env,
        }
    }

    fn git<S: Into<String>>(&self, args: impl IntoIterator<Item = S>) -> Step {
        Step {
            dir: self.dir.clone(),
            env: self.env.to_vec(),
            program: "git",
            args: args.into_iter().map(Into::into).collect(),
            retried: false,
        }
    }

    fn fetch(&self, options: &[&str], rest: &[&str]) -> Step {
        let args = [&["fetch"], options, &[&self.remote], rest].concat();
        Step {
            retried: true,
            ..self.git(args)
        }
    }

    /// From an empty directory to the base commit on its branch (POD-035, POD-036).
    pub(crate) fn base_steps(&self, refs: &Refs, settings: &CloneSettings<'_>) -> Vec<Step> {
        let sparse = !refs.sparse_checkout_files.is_empty();
        let depth = refs.clone_depth.to_string();
        let mut options: Vec<&str> = Vec::new();
        if refs.clone_depth > 0 {
            options.extend(["--depth", &depth]);
        }
        options.extend(blob_filter(refs));

        let mut steps = vec![
            Step {
                dir: "/".to_owned(),
                program: "mkdir",
                ..self.git(["-p", &self.dir])
            },
            self.git(["init"]),
        ];
        if !settings.user_name.is_empty() {
            steps.push(self.git(["config", "user.name", settings.user_name]));
        }
        if !settings.user_email.is_empty() {
            steps.push(self.git(["config", "user.email", settings.user_email]));
        }
        if !settings.cookie_file.is_empty() && refs.skip_submodules {
            steps.push(self.git(["config", "http.cookiefile", settings.cookie_file]));
        }
        if sparse {
            steps.push(self.git(["sparse-checkout", "init"]));
        }
        if !refs.skip_fetch_head && !sparse {
            steps.push(self.fetch(&options, &["--tags", "--prune"]));
        }

        let (wanted, target) = if refs.base_sha.is_empty() {
            (refs.base_ref.as_str(), "FETCH_HEAD")
        } else {
            (refs.base_sha.as_str(), refs.base_sha.as_str())
        };
        if sparse {
            options.push("--no-tags");
        }
        steps.push(self.fetch(&options, &[wanted]));
        if sparse {
            let files = refs.sparse_checkout_files.iter().map(String::as_str);
            steps.push(self.git(["sparse-checkout", "set"].into_iter().chain(files)));
        }
        // A branch that is checked out cannot be moved, so the commit is checked out before the branch is set to it.
        steps.push(self.git(["checkout", target]));
        steps.push(self.git(["branch", "--force", &refs.base_ref, target]));
        steps.push(self.git(["checkout", &refs.base_ref]));
        steps
    }

    /// Merges of the pulls on top, one second after another from `head_timestamp` on, so that the same refs always
    /// give the same commits (POD-037, POD-038).
    pub(crate) fn pull_steps(&self, refs: &Refs, head_timestamp: i64) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut timestamp = head_timestamp;
        for pull in &refs.pulls {
            let default = format!("pull/{}/head", pull.number);
            let wanted = [&pull.r#ref, &pull.sha, &default]
                .into_iter()
                .find(|r| !r.is_empty())
                .unwrap_or(&default);
            let options: Vec<&str> = blob_filter(refs).into_iter().collect();
            steps.push(self.fetch(&options, &[wanted]));

            let commit = if pull.sha.is_empty() {
                "FETCH_HEAD"
            } else {
                &pull.sha
            };
            timestamp += 1;
            let mut merge = self.git(["merge", "--no-ff", commit]);
            merge.env.push(format!("GIT_AUTHOR_DATE={timestamp}"));
            merge.env.push(format!("GIT_COMMITTER_DATE={timestamp}"));
            steps.push(merge);
        }
        if !refs.skip_submodules {
            steps.push(self.git(["submodule", "update", "--init", "--recursive"]));
        }
        steps
    }
}

fn blob_filter(refs: &Refs) -> Option<&'static str> {
    let filter = refs.blobless_fetch == Some(true) || !refs.sparse_checkout_files.is_empty();
    filter.then_some("--filter=blob:none")
}

/// The remote with the token as user (plain token) or as password (with a user). Remotes that are no URL
/// (`git@host:path`) stay as they are.
fn with_credentials(remote: String, credentials: Credentials<'_>) -> String {
    let Credentials { user, token } = credentials;
    if token.is_empty() || !escapes_are_whole(&remote) {
        return remote;
    }
    let (user, password) = if user.is_empty() {
        (token, "x-oauth-basic")
    } else {
        (user, token)
    };
    let user_info = format!("{}:{}@", escape_user_info(user), escape_user_info(password));
    if let Some((scheme, rest)) = remote.split_once("://") {
        let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(authority_end);
        let host = authority.rsplit('@').next().unwrap_or(authority);
        return format!("{scheme}://{user_info}{host}{path}");
    }
    let first_element = remote.split('/').next().unwrap_or_default();
    if first_element.contains(':') {
        return remote;
    }
    // A path is a URL without scheme to Prow. No such remote works with a token, there as here.
    format!("//{user_info}{remote}")
}

/// Whether every `%` is followed by two hex digits; a URL with any other is none.
fn escapes_are_whole(text: &str) -> bool {
    let hex = |b: Option<&u8>| b.is_some_and(u8::is_ascii_hexdigit);
    let bytes = text.as_bytes();
    (0..bytes.len()).all(|i| bytes[i] != b'%' || hex(bytes.get(i + 1)) && hex(bytes.get(i + 2)))
}

fn escape_user_info(text: &str) -> String {
    text.bytes()
        .fold(String::with_capacity(text.len()), |mut out, b| {
            if b.is_ascii_alphanumeric() || b"-_.~$&+,;=".contains(&b) {
                out.push(char::from(b));
            } else {
                out.push_str(&format!("%{b:02X}"));
            }
            out
        })
}

impl Step {
    /// As clone logs show it.
    pub(crate) fn text(&self) -> String {
        format!(
            "PWD={} {} {} {}",
            self.dir,
            self.env.join(" "),
            self.program,
            self.args.join(" ")
        )
    }

    /// Runs once. The parent's environment stays: git finds its configuration and ssh its keys there (POD-041).
    fn run_once(&self) -> (String, Result<(), String>) {
        if !Path::new(&self.dir).is_dir() {
            return (
                String::new(),
                Err(format!("chdir {}: no such file or directory", self.dir)),
            );
        }
        let mut command = Command::new(self.program);
        command.args(&self.args).current_dir(&self.dir);
        command.envs(self.env.iter().filter_map(|pair| pair.split_once('=')));
        go_process::combined_output(&mut command)
    }

    fn run(&self, retries: &[Duration], log: &UtilityLog) -> (String, Result<(), String>) {
        let mut outcome = self.run_once();
        for wait in retries.iter().filter(|_| self.retried) {
            let Err(error) = &outcome.1 else { break };
            let sleep = GoDuration::from(*wait).to_string();
            log.info(
                "Retrying after sleep",
                &[("error", error.as_str().into()), ("sleep", sleep.into())],
            );
            thread::sleep(*wait);
            outcome = self.run_once();
        }
        outcome
    }
}

/// Clones one repository and says what was done. Never fails: a failure is in the record.
pub(crate) fn clone_refs(
    refs: &Refs,
    settings: &CloneSettings<'_>,
    log: &UtilityLog,
) -> CloneRecord {
    let start = Instant::now();
    let mut record = CloneRecord {
        refs: refs.clone(),
        ..CloneRecord::default()
    };
    let clone = Clone::new(refs, settings.src_root, settings.env, settings.credentials);
    log.info(
        "Cloning refs",
        &[("refs", format!("{}={refs}", refs.org_repo()).into())],
    );

    if !run_steps(
        &clone.base_steps(refs, settings),
        settings,
        &mut record,
        log,
    ) {
        return record;
    }
    let head_timestamp =
        head_timestamp(&clone).unwrap_or_else(|| jiff::Timestamp::now().as_second());
    if !run_steps(
        &clone.pull_steps(refs, head_timestamp),
        settings,
        &mut record,
        log,
    ) {
        return record;
    }
    match clone.git(["rev-parse", "HEAD"]).run_once() {
        (sha, Ok(())) => sha.trim().clone_into(&mut record.final_sha),
        (output, Err(error)) => {
            log.warn(
                "Cannot resolve finalSHA",
                &[("error", error.into()), ("output", output.into())],
            );
        }
    }
    record.duration = nanos(start);
    record
}

/// Runs until one fails; true when none did.
fn run_steps(
    steps: &[Step],
    settings: &CloneSettings<'_>,
    record: &mut CloneRecord,
    log: &UtilityLog,
) -> bool {
    for step in steps {
        let start = Instant::now();
        let (output, result) = step.run(settings.fetch_retries, log);
        let error = result.err().unwrap_or_default();
        let censor = |text: &str| censor_token(text, settings.credentials.token);
        let done = CloneCommand {
            command: censor(&step.text()),
            output: censor(&output),
            error: censor(&error),
            duration: nanos(start),
        };
        let mut fields: Vec<(&str, Value)> = vec![
            ("command", done.command.as_str().into()),
            ("output", done.output.as_str().into()),
        ];
        if !error.is_empty() {
            fields.push(("error", done.error.as_str().into()));
        }
        log.info("Ran command", &fields);
        record.commands.push(done);
        if !error.is_empty() {
            record.failed = true;
            return false;
        }
    }
    true
}

fn head_timestamp(clone: &Clone<'_>) -> Option<i64> {
    let (output, result) = clone
        .git(["show", "-s", "--format=format:%ct", "HEAD"])
        .run_once();
    result.ok()?;
    output.trim().parse().ok()
}

fn nanos(start: Instant) -> i64 {
    GoDuration::from(start.elapsed()).as_nanos()
}

/// The text without the token, plain and as it stands in a URL.
pub(crate) fn censor_token(text: &str, token: &str) -> String {
    if token.is_empty() {
        return text.to_owned();
    }
    text.replace(token, "CENSORED")
        .replace(&escape_user_info(token), "CENSORED")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pod_032_work_dir() {
        let a = Refs {
            org: "o".into(),
            repo: "a".into(),
            ..Refs::default()
        };
        let b = Refs {
            repo: "b".into(),
            workdir: true,
            ..a.clone()
        };
        assert_eq!(
            work_dir("/go", &[a.clone(), b]).as_deref(),
            Some("/go/src/github.com/o/b")
        );
        assert_eq!(
            work_dir("/go", &[a]).as_deref(),
            Some("/go/src/github.com/o/a")
        );
        assert_eq!(work_dir("/go", &[]), None);
    }

    #[test]
    fn pod_034_credentials() {
        let token = Credentials {
            user: "",
            token: "t/k",
        };
        let app = Credentials {
            user: "x-access-token",
            token: "t",
        };
        let with = |remote: &str, c| with_credentials(remote.to_owned(), c);
        assert_eq!(
            with("https://old@h:8/o/r.git", token),
            "https://t%2Fk:x-oauth-basic@h:8/o/r.git"
        );
        assert_eq!(
            with("https://h/o/r.git", app),
            "https://x-access-token:t@h/o/r.git"
        );
        assert_eq!(with("git@h:o/r", app), "git@h:o/r");
        assert_eq!(
            censor_token("a t/k b t%2Fk", "t/k"),
            "a CENSORED b CENSORED"
        );
    }
}
