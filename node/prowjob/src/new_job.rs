//! Making a ProwJob. Name and time are given: two calls with the same input make the same job.

use jiff::Timestamp;

use crate::decoration::DecorationConfig;
use crate::go_time::Time;
use crate::job::{
    API_VERSION, KIND, ObjectMeta, ProwJob, ProwJobSpec, ProwJobState, ProwJobStatus,
};
use crate::labels::{self, Map};
use crate::refs::{Pull, Refs};

/// A run in state `triggered` (EXE-006); see [`ProwJob::requiring_scheduling`].
pub fn new_prow_job(
    mut spec: ProwJobSpec,
    extra_labels: &Map,
    extra_annotations: &Map,
    name: impl Into<String>,
    start_time: Timestamp,
) -> ProwJob {
    let (labels, annotations) = labels::for_spec(&spec, extra_labels, extra_annotations);
    if let Some(slack) = spec.reporter_config.as_mut().and_then(|r| r.slack.as_mut()) {
        slack.settle_report();
    }
    ProwJob {
        kind: KIND.to_owned(),
        api_version: API_VERSION.to_owned(),
        metadata: ObjectMeta {
            name: name.into(),
            labels,
            annotations,
            ..ObjectMeta::default()
        },
        spec,
        status: ProwJobStatus {
            start_time: Some(Time::from(start_time)),
            state: ProwJobState::Triggered,
            ..ProwJobStatus::default()
        },
    }
}

impl ProwJob {
    /// Starts in `scheduling` instead when `required` (the configuration's `scheduler.enabled`).
    #[must_use]
    pub fn requiring_scheduling(mut self, required: bool) -> Self {
        if required {
            self.status.state = ProwJobState::Scheduling;
        }
        self
    }
}

/// A job's own clone settings, which go over those of its refs when set.
#[derive(Debug, Clone, Copy, Default)]
pub struct CloneOverrides<'a> {
    /// Empty = keep.
    pub path_alias: &'a str,
    /// Empty = keep.
    pub clone_uri: &'a str,
    /// False = keep.
    pub skip_submodules: bool,
    /// 0 or less = keep.
    pub clone_depth: i64,
    /// False = keep.
    pub skip_fetch_head: bool,
}

/// The code under test as the job clones it (EXE-008).
pub fn complete_primary_refs(
    mut refs: Refs,
    job: CloneOverrides<'_>,
    decoration: Option<&DecorationConfig>,
) -> Refs {
    if !job.path_alias.is_empty() {
        job.path_alias.clone_into(&mut refs.path_alias);
    }
    if !job.clone_uri.is_empty() {
        job.clone_uri.clone_into(&mut refs.clone_uri);
    }
    refs.skip_submodules |= job.skip_submodules;
    if job.clone_depth > 0 {
        refs.clone_depth = job.clone_depth;
    }
    refs.skip_fetch_head |= job.skip_fetch_head;
    let mut refs = decorate_refs(refs, decoration);
    if let Some(d) = decoration
        && !d.sparse_checkout_files.is_empty()
    {
        refs.sparse_checkout_files
            .clone_from(&d.sparse_checkout_files);
    }
    refs
}

/// What every refs of a decorated job takes from the decoration (EXE-008).
pub fn decorate_refs(mut refs: Refs, decoration: Option<&DecorationConfig>) -> Refs {
    if let Some(d) = decoration {
        refs.blobless_fetch = refs.blobless_fetch.or(d.blobless_fetch);
    }
    refs
}

/// A GitHub pull request as far as refs need it.
#[derive(Debug, Clone, Copy)]
pub struct GitHubPull<'a> {
    /// Owner of the base repository.
    pub org: &'a str,
    /// Name of the base repository.
    pub repo: &'a str,
    /// The base repository's `html_url`.
    pub repo_html_url: &'a str,
    /// Base branch.
    pub base_ref: &'a str,
    /// Number of the pull request.
    pub number: i64,
    /// Login of the author.
    pub author: &'a str,
    /// The author's `html_url`.
    pub author_html_url: &'a str,
    /// Head commit.
    pub head_sha: &'a str,
    /// Source branch.
    pub head_ref: &'a str,
    /// Title.
    pub title: &'a str,
    /// The pull request's `html_url`.
    pub html_url: &'a str,
}

/// Refs of a presubmit for a GitHub pull request on top of `base_sha` (EXE-009).
pub fn github_refs(pull: GitHubPull<'_>, base_sha: &str) -> Refs {
    let GitHubPull {
        repo_html_url,
        number,
        head_sha,
        ..
    } = pull;
    Refs {
        org: pull.org.to_owned(),
        repo: pull.repo.to_owned(),
        repo_link: repo_html_url.to_owned(),
        base_ref: pull.base_ref.to_owned(),
        base_sha: base_sha.to_owned(),
        base_link: format!("{repo_html_url}/commit/{base_sha}"),
        pulls: vec![Pull {
            number,
            author: pull.author.to_owned(),
            sha: head_sha.to_owned(),
            title: pull.title.to_owned(),
            head_ref: pull.head_ref.to_owned(),
            link: pull.html_url.to_owned(),
            commit_link: format!("{repo_html_url}/pull/{number}/commits/{head_sha}"),
            author_link: pull.author_html_url.to_owned(),
            ..Pull::default()
        }],
        ..Refs::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exe_006_same_input_same_job() {
        let make = || {
            new_prow_job(
                ProwJobSpec::default(),
                &Map::new(),
                &Map::new(),
                "n",
                Timestamp::UNIX_EPOCH,
            )
        };
        assert_eq!(make(), make());
        assert_eq!(
            make().requiring_scheduling(true).status.state,
            ProwJobState::Scheduling
        );
        assert_eq!(
            make().requiring_scheduling(false).status.state,
            ProwJobState::Triggered
        );
    }

    #[test]
    fn exe_008_job_settings_go_over_refs_and_decoration_fills_gaps() {
        let decoration = DecorationConfig {
            blobless_fetch: Some(true),
            sparse_checkout_files: vec!["Makefile".into()],
            ..DecorationConfig::default()
        };
        let job = CloneOverrides {
            path_alias: "k8s.io/x",
            clone_depth: 3,
            ..CloneOverrides::default()
        };
        let refs = Refs {
            clone_uri: "u".into(),
            blobless_fetch: Some(false),
            ..Refs::default()
        };
        let done = complete_primary_refs(refs, job, Some(&decoration));
        insta::assert_snapshot!(serde_json::to_string(&done).unwrap(), @r#"{"org":"","repo":"","path_alias":"k8s.io/x","clone_uri":"u","clone_depth":3,"blobless_fetch":false,"sparse_checkout_files":["Makefile"]}"#);
        assert_eq!(
            decorate_refs(Refs::default(), Some(&decoration)).blobless_fetch,
            Some(true)
        );
    }
}
