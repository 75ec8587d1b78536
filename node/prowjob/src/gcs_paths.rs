//! Where a run's files lie in storage (part 13 of the checklist). Paths are relative to the bucket, without leading slash.

use crate::decoration::GcsConfiguration;
use crate::job::ProwJobType;
use crate::job_spec::JobSpec;
use crate::refs::Refs;

const PR_LOGS: &str = "pr-logs";
const LOGS: &str = "logs";
const LATEST_BUILD: &str = "latest-build.txt";

/// How org and repo show in a presubmit's path (POD-100).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathStrategy {
    /// Nothing for the default repo, `repo` for others of the default org, `org_repo` elsewhere.
    Legacy,
    /// Nothing for the default repo, `org_repo` elsewhere.
    Single,
    /// Always `org_repo`.
    Explicit,
}

impl PathStrategy {
    /// The strategy of that name.
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "legacy" => Some(Self::Legacy),
            "single" => Some(Self::Single),
            "explicit" => Some(Self::Explicit),
            _ => None,
        }
    }
}

/// Makes the path segment for a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoPath {
    strategy: PathStrategy,
    default_org: String,
    default_repo: String,
}

/// Why a job has no place in storage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Paths differ by type, and this job has none.
    #[error("job {0:?} has no type: it must be presubmit, postsubmit, periodic or batch")]
    NoType(String),
    /// A presubmit without a pull request.
    #[error("presubmit job {0:?} has no pull request in its refs")]
    NoPull(String),
    /// Unknown `path_strategy`.
    #[error("unknown path_strategy {0:?}: it must be legacy, single or explicit")]
    Strategy(String),
}

/// Why a text names no storage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BucketError {
    /// Not of the form `[provider://]bucket[/path]`.
    #[error(
        "path {0:?} has invalid format, expected either <bucket-name>[/<path>] or <storage-provider>://<bucket-name>[/<path>]"
    )]
    Format(String),
}

impl RepoPath {
    /// Segments by this strategy; the defaults do not matter to `Explicit`.
    pub fn new(strategy: PathStrategy, default_org: &str, default_repo: &str) -> Self {
        Self {
            strategy,
            default_org: default_org.to_owned(),
            default_repo: default_repo.to_owned(),
        }
    }

    /// Segments as configured.
    ///
    /// # Errors
    /// When the configured strategy is unknown.
    pub fn configured(config: &GcsConfiguration) -> Result<Self, PathError> {
        let strategy = PathStrategy::from_word(&config.path_strategy)
            .ok_or_else(|| PathError::Strategy(config.path_strategy.clone()))?;
        Ok(Self::new(
            strategy,
            &config.default_org,
            &config.default_repo,
        ))
    }

    /// The segment for a repository; may be empty.
    pub fn segment(&self, org: &str, repo: &str) -> String {
        let default_org = org == self.default_org;
        let default_repo = default_org && repo == self.default_repo;
        match self.strategy {
            PathStrategy::Legacy | PathStrategy::Single if default_repo => String::new(),
            PathStrategy::Legacy if default_org => repo.to_owned(),
            _ => format!("{}_{}", trim_https(org), repo.replace('/', "_")),
        }
    }
}

/// A Gerrit org without its scheme and trailing slashes.
fn trim_https(org: &str) -> &str {
    let org = org.strip_prefix("https://").unwrap_or(org);
    org.strip_prefix("http://")
        .unwrap_or(org)
        .trim_end_matches('/')
}

/// Directory of one run, without `path_prefix`.
///
/// # Errors
/// When the job lacks what its type needs.
pub fn run_directory(spec: &JobSpec, repo_path: &RepoPath) -> Result<String, PathError> {
    match spec.r#type {
        ProwJobType::Periodic | ProwJobType::Postsubmit => {
            Ok(join(&[LOGS, &spec.job, &spec.build_id]))
        }
        ProwJobType::Presubmit => {
            let (refs, pull) = refs_and_pull(spec)?;
            let segment = repo_path.segment(&refs.org, &refs.repo);
            Ok(join(&[
                PR_LOGS,
                "pull",
                &segment,
                &pull,
                &spec.job,
                &spec.build_id,
            ]))
        }
        ProwJobType::Batch => Ok(join(&[PR_LOGS, "pull", "batch", &spec.job, &spec.build_id])),
        ProwJobType::Unset => Err(PathError::NoType(spec.job.clone())),
    }
}

/// The file that points to a presubmit's run directory; other types have none.
pub fn alias(spec: &JobSpec) -> Option<String> {
    (spec.r#type == ProwJobType::Presubmit).then(|| {
        join(&[
            PR_LOGS,
            "directory",
            &spec.job,
            &format!("{}.txt", spec.build_id),
        ])
    })
}

/// The files that hold the newest build id of the job. Without `repo_path` the one per pull request is left out.
///
/// # Errors
/// When the job lacks what its type needs.
pub fn latest_build(
    spec: &JobSpec,
    repo_path: Option<&RepoPath>,
) -> Result<Vec<String>, PathError> {
    let mut files = vec![join(&[&root(spec)?, LATEST_BUILD])];
    if spec.r#type == ProwJobType::Presubmit
        && let Some(repo_path) = repo_path
    {
        let (refs, pull) = refs_and_pull(spec)?;
        let segment = repo_path.segment(&refs.org, &refs.repo);
        files.push(join(&[
            PR_LOGS,
            "pull",
            &segment,
            &pull,
            &spec.job,
            LATEST_BUILD,
        ]));
    }
    Ok(files)
}

/// The directory in which all runs of a job are listed.
///
/// # Errors
/// When the job has no type.
pub fn root(spec: &JobSpec) -> Result<String, PathError> {
    match spec.r#type {
        ProwJobType::Periodic | ProwJobType::Postsubmit => Ok(join(&[LOGS, &spec.job])),
        ProwJobType::Presubmit | ProwJobType::Batch => Ok(join(&[PR_LOGS, "directory", &spec.job])),
        ProwJobType::Unset => Err(PathError::NoType(spec.job.clone())),
    }
}

fn refs_and_pull(spec: &JobSpec) -> Result<(&Refs, String), PathError> {
    spec.refs
        .as_ref()
        .and_then(|refs| Some((refs, refs.pulls.first()?.number.to_string())))
        .ok_or_else(|| PathError::NoPull(spec.job.clone()))
}

/// A run's places under one storage configuration (POD-101).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobPaths {
    /// The run's directory, with `path_prefix`.
    pub base: String,
    /// The same with the sub directory.
    pub run: String,
    /// For the paths beside it.
    pub repo_path: RepoPath,
}

/// Where this run's files go.
///
/// # Errors
/// When the strategy is unknown or the job lacks what its type needs.
pub fn for_job(
    config: &GcsConfiguration,
    spec: &JobSpec,
    sub_dir: &str,
) -> Result<JobPaths, PathError> {
    let repo_path = RepoPath::configured(config)?;
    let base = join(&[&config.path_prefix, &run_directory(spec, &repo_path)?]);
    let run = join(&[&base, sub_dir]);
    Ok(JobPaths {
        base,
        run,
        repo_path,
    })
}

/// A bucket, maybe with a path inside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoragePath {
    /// `gs`, `s3`, `file`, ...
    pub provider: String,
    /// The part after `://` up to the next slash.
    pub bucket: String,
    /// The rest, with its leading slash; may be empty.
    pub path: String,
}

impl StoragePath {
    /// Reads `[provider://]bucket[/path]`; without provider it is `gs`.
    ///
    /// # Errors
    /// When provider or bucket hold characters that a URL does not allow there.
    pub fn parse(text: &str) -> Result<Self, BucketError> {
        let bad = || BucketError::Format(text.to_owned());
        let (provider, rest) = text.split_once("://").unwrap_or(("gs", text));
        let mut chars = provider.chars();
        let provider_ok = chars.next().is_some_and(|c| c.is_ascii_alphabetic())
            && chars.all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (bucket, path) = rest.split_at(end);
        let path = path.split(['?', '#']).next().unwrap_or_default();
        // A port must be a number: `a:b` is no host.
        let port_ok = bucket
            .rsplit_once(':')
            .is_none_or(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
        let bucket_ok = bucket
            .chars()
            .all(|c| !c.is_control() && !" \"<>\\^`{}|%".contains(c));
        if !provider_ok || !port_ok || !bucket_ok || text.chars().any(|c| c.is_ascii_control()) {
            return Err(bad());
        }
        Ok(Self {
            provider: provider.to_ascii_lowercase(),
            bucket: bucket.to_owned(),
            path: percent_decode(path).ok_or_else(bad)?,
        })
    }

    /// `bucket/path`.
    pub fn full_path(&self) -> String {
        format!("{}{}", self.bucket, self.path)
    }

    /// `provider://bucket`.
    pub fn bucket_with_provider(&self) -> String {
        format!("{}://{}", self.provider, self.bucket)
    }
}

/// `None` when a `%` is not followed by two hex digits or the outcome is no text.
pub(crate) fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        if b != b'%' {
            out.push(b);
            continue;
        }
        let mut hex = || char::from(bytes.next()?).to_digit(16);
        let (high, low) = (hex()?, hex()?);
        out.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(out).ok()
}

/// Go's `path.Join`: empty elements are skipped, the rest is joined and cleaned of `.`, `..` and double slashes.
pub fn join(elements: &[&str]) -> String {
    let joined = elements
        .iter()
        .filter(|e| !e.is_empty())
        .copied()
        .collect::<Vec<_>>()
        .join("/");
    if joined.is_empty() {
        return joined;
    }
    let rooted = joined.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in joined.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|p| *p != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            other => parts.push(other),
        }
    }
    let path = parts.join("/");
    match (rooted, path.is_empty()) {
        (true, _) => format!("/{path}"),
        (false, true) => ".".to_owned(),
        (false, false) => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_as_go() {
        for (elements, want) in [
            (&["a", "", "b"][..], "a/b"),
            (&[], ""),
            (&["", ""], ""),
            (&["a/", "../b//c", "./d"], "b/c/d"),
            (&["/a", "..", ".."], "/"),
            (&["a", ".."], "."),
            (&["..", "a"], "../a"),
        ] {
            assert_eq!(join(elements), want, "{elements:?}");
        }
    }

    #[test]
    fn pod_100_gerrit_repositories() {
        let explicit = RepoPath::new(PathStrategy::Explicit, "", "");
        assert_eq!(
            explicit.segment("https://host.example.com/", "a/b"),
            "host.example.com_a_b"
        );
    }

    #[test]
    fn pod_102_buckets() {
        let full = |t: &str| {
            let p = StoragePath::parse(t).unwrap();
            format!("{} {}", p.bucket_with_provider(), p.full_path())
        };
        assert_eq!(full("b"), "gs://b b");
        assert_eq!(full("s3://b/sub/dir"), "s3://b b/sub/dir");
        assert_eq!(full("/local/dir"), "gs:// /local/dir");
        assert_eq!(full("file:///local/dir"), "file:// /local/dir");
        assert!(StoragePath::parse("a b").is_err());
        assert!(StoragePath::parse("1x://b").is_err());
    }

    #[test]
    fn a_job_without_type_has_no_place() {
        let error = root(&JobSpec {
            job: "j".into(),
            ..JobSpec::default()
        })
        .unwrap_err();
        insta::assert_snapshot!(error, @r#"job "j" has no type: it must be presubmit, postsubmit, periodic or batch"#);
    }
}
