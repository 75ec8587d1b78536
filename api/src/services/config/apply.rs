//! From a manifest to a version.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use prost::Message as _;
use tonic::{Code, Status, Streaming};
use trireme_proto::{
    api::{
        ApplyConfigHeader, ApplyConfigRequest, ApplyConfigResponse, ConfigManifest, Diagnostic,
        Freshness, ReadOptions, RetiredConfig, apply_config_request::Part,
    },
    state::{
        ConfigFile, ConfigPage, ConfigVersion, Done, PutConfig, PutConfigPage, command::Body,
        outcome,
    },
};
use trireme_raft::View;
use trireme_state::{
    CONFIG_ROLES, FIRST_CONFIG_ROLES, PAGES_LEVEL, ROLES_LEVEL, config_pages,
    ids::config_root,
    is_config_role,
    limits::{
        MAX_CONFIG_BYTES, MAX_CONFIG_FILES, MAX_INLINE_CONFIG_BYTES, MAX_INLINE_CONFIG_FILES,
        MAX_NAME_BYTES,
    },
};

use super::Door;
use crate::{
    Candidate, Checked, Retired,
    auth::Who,
    configs::{MAX_FILE_BYTES, MAX_RETIRED_PERCENT, Stored},
    flow::{MANIFEST_TIME, Patience},
};

/// How often a configuration is checked again because another was committed meanwhile.
const TRIES: usize = 3;
/// Pages on their way to the log at once.
const PAGES_AT_ONCE: usize = 16;
/// Contents of an old version that are put again at once.
const CONTENTS_AT_ONCE: usize = 32;
/// One manifest, encoded.
const MAX_MANIFEST_BYTES: usize = 64 << 20;
/// Contexts, and jobs, that are named.
const NAMED: usize = 20;

pub(super) async fn read_manifest(
    mut parts: Streaming<ApplyConfigRequest>,
) -> Result<(ApplyConfigHeader, Vec<ConfigFile>), Status> {
    let patience = Patience::of(MANIFEST_TIME);
    let first = patience.next(parts.message()).await?;
    let first = first.and_then(|request| request.part);
    let Some(Part::Header(header)) = first else {
        return Err(Status::invalid_argument("the header comes first"));
    };
    let mut files = Vec::new();
    let mut bytes = 0_usize;
    while let Some(request) = patience.next(parts.message()).await? {
        let Some(Part::Manifest(manifest)) = request.part else {
            return Err(Status::invalid_argument(
                "after the header come parts of the manifest",
            ));
        };
        bytes = bytes.saturating_add(manifest.encoded_len());
        check_part(&manifest, files.len(), bytes)?;
        files.extend(manifest.files);
    }
    check_manifest(&files)?;
    Ok((header, files))
}

fn invalid<T>(text: String) -> Result<T, Status> {
    Err(Status::invalid_argument(text))
}

/// Before it is kept: a part after so many files, with which the manifest has so many bytes.
fn check_part(part: &ConfigManifest, before: usize, bytes: usize) -> Result<(), Status> {
    if part.files.is_empty() {
        return invalid("a part of the manifest has no files".to_owned());
    }
    if before.saturating_add(part.files.len()) > MAX_CONFIG_FILES {
        return invalid(format!(
            "a configuration has at most {MAX_CONFIG_FILES} files"
        ));
    }
    if bytes > MAX_MANIFEST_BYTES {
        return invalid(format!(
            "a manifest is at most {MAX_MANIFEST_BYTES} bytes: shorten the paths"
        ));
    }
    part.files.iter().try_for_each(check_file)
}

fn check_file(file: &ConfigFile) -> Result<(), Status> {
    let ConfigFile { role, path, blob } = file;
    if path.len() > MAX_NAME_BYTES {
        let start: String = path.chars().take(NAMED).collect();
        return invalid(format!(
            "{start:?}...: a path of {} bytes; the path of a file is at most {MAX_NAME_BYTES}",
            path.len()
        ));
    }
    if path.is_empty() {
        return invalid("a file without a path".to_owned());
    }
    if !is_config_role(role) {
        let role: String = role.chars().take(NAMED).collect();
        return invalid(format!("{path}: role {role:?} is none of {CONFIG_ROLES:?}"));
    }
    let Some(blob) = blob.as_ref().filter(|blob| blob.sha256.len() == 32) else {
        return invalid(format!("{path}: no sha256 of its content"));
    };
    if blob.size > MAX_FILE_BYTES as u64 {
        return invalid(format!(
            "{path}: {} bytes; a file of a configuration is at most {MAX_FILE_BYTES}",
            blob.size
        ));
    }
    Ok(())
}

pub(super) fn check_manifest(files: &[ConfigFile]) -> Result<(), Status> {
    if files.len() > MAX_CONFIG_FILES {
        return invalid(format!(
            "{} files; a configuration has at most {MAX_CONFIG_FILES}",
            files.len()
        ));
    }
    let mut total = 0_u64;
    let mut seen = BTreeSet::new();
    for file in files {
        check_file(file)?;
        // Loaders know a file by its path alone.
        if !seen.insert(&file.path) {
            return invalid(format!(
                "{:?}: every file needs a path of its own",
                file.path
            ));
        }
        total = total.saturating_add(file.blob.as_ref().map_or(0, |blob| blob.size));
    }
    if total > MAX_CONFIG_BYTES {
        return invalid(format!(
            "the files are {total} bytes together; a configuration is at most {MAX_CONFIG_BYTES}"
        ));
    }
    if files.iter().filter(|file| file.role == "main").count() != 1 {
        return invalid("exactly one file must have the role main (config.yaml)".to_owned());
    }
    Ok(())
}

fn answer(checked: Checked) -> ApplyConfigResponse {
    ApplyConfigResponse {
        accepted: checked.accepted,
        presubmits: checked.presubmits,
        postsubmits: checked.postsubmits,
        periodics: checked.periodics,
        diagnostics: checked.diagnostics,
        ..ApplyConfigResponse::default()
    }
}

fn of_version(version: &ConfigVersion) -> ApplyConfigResponse {
    ApplyConfigResponse {
        version: version.number,
        revision: version.revision,
        presubmits: version.presubmits,
        postsubmits: version.postsubmits,
        periodics: version.periodics,
        ..ApplyConfigResponse::default()
    }
}

/// Whether more than the share allowed is taken away.
fn judge(header: &ApplyConfigHeader, retired: &Retired) -> RetiredConfig {
    let max_percent = header.max_retired_percent.unwrap_or(MAX_RETIRED_PERCENT);
    let too_many = |gone: usize, before: usize| {
        gone.saturating_mul(100) > before.saturating_mul(max_percent as usize)
    };
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let first = |names: &[String]| names.iter().take(NAMED).cloned().collect();
    let over = too_many(retired.contexts.len(), retired.contexts_before)
        || too_many(retired.jobs.len(), retired.jobs_before);
    RetiredConfig {
        contexts: count(retired.contexts.len()),
        contexts_before: count(retired.contexts_before),
        jobs: count(retired.jobs.len()),
        jobs_before: count(retired.jobs_before),
        first_contexts: first(&retired.contexts),
        first_jobs: first(&retired.jobs),
        refused: over && !header.retire,
        max_percent,
    }
}

/// Refuses what would retire too much, or nobody knows how much.
fn guarded(header: &ApplyConfigHeader, mut checked: Checked) -> ApplyConfigResponse {
    let retired = checked.retired.take();
    let mut response = answer(checked);
    match retired {
        None => {}
        Some(Ok(gone)) => {
            let judged = judge(header, &gone);
            response.accepted &= !judged.refused;
            response.retired = Some(judged);
        }
        Some(Err(why)) => {
            let what = format!(
                "this node cannot read the version in force, so that what would be retired is not known: {why}"
            );
            let (severity, message) = match header.retire {
                true => ("warning", what),
                false => (
                    "error",
                    format!(
                        "{what}. Nothing was changed: apply it at a node that can read it, or say --yes if whatever goes is \
                         meant to go"
                    ),
                ),
            };
            response.accepted &= header.retire;
            response.diagnostics.push(Diagnostic {
                severity: severity.to_owned(),
                message,
                ..Diagnostic::default()
            });
        }
    }
    response
}

fn place(file: &ConfigFile) -> (&str, &str) {
    (&file.role, &file.path)
}

/// Whether a version has exactly these files, which are sorted.
fn is_same(view: &View, version: &ConfigVersion, files: &[ConfigFile]) -> bool {
    let Some(mut former) = view.config_files(version) else {
        return false;
    };
    former.sort_by(|a, b| place(a).cmp(&place(b)));
    former == files
}

fn missing(view: &View, now_ms: i64, files: &[ConfigFile]) -> Vec<u32> {
    let lacks = |file: &ConfigFile| {
        let blob = file.blob.as_ref();
        !blob.is_some_and(|blob| view.keeps_blob(&blob.sha256, now_ms))
    };
    let mut seen = BTreeSet::new();
    (0..)
        .zip(files)
        .filter(|(_, file)| lacks(file))
        // A content that several files have is put once.
        .filter(|(_, file)| seen.insert(file.blob.as_ref().map(|blob| &blob.sha256)))
        .map(|(at, _)| at)
        .collect()
}

/// Whether a version is in force, and which, is told as of now, not as of what this node has heard.
pub(super) fn newest() -> ReadOptions {
    ReadOptions {
        freshness: Freshness::Linearizable.into(),
        ..ReadOptions::default()
    }
}

impl Door {
    /// Validates files whose contents are all there, and commits them as one version. The first answer names what is
    /// missing, by its place among `files` as they came.
    pub(super) async fn apply_files(
        &self,
        who: &Who,
        header: &ApplyConfigHeader,
        files: Vec<ConfigFile>,
        rollback_of: u64,
    ) -> Result<ApplyConfigResponse, Status> {
        // What is missing is named by the places of `files`, at every try.
        let mut sorted = files.clone();
        sorted.sort_by(|a, b| place(a).cmp(&place(b)));
        let mut tries = 1;
        loop {
            let view = self.0.view(Some(&newest())).await?;
            if let Some(number) = remembered(&view, who, &header.request_id) {
                let made = view.config_version(number).cloned().unwrap_or_default();
                return Ok(ApplyConfigResponse {
                    accepted: true,
                    version: number,
                    ..of_version(&made)
                });
            }
            let missing = missing(&view, self.0.store.now_ms(), &files);
            if !missing.is_empty() {
                return Ok(ApplyConfigResponse {
                    missing,
                    ..ApplyConfigResponse::default()
                });
            }
            let current = view.config().cloned();
            let number = current.as_ref().map_or(0, |version| version.number);
            if header.expected_current != 0 && header.expected_current != number {
                return Err(Status::failed_precondition(format!(
                    "configuration {number} is current, not {}: look at it and apply again",
                    header.expected_current
                )));
            }
            if let Some(current) = current.filter(|current| is_same(&view, current, &sorted)) {
                return Ok(ApplyConfigResponse {
                    accepted: true,
                    unchanged: true,
                    ..of_version(&current)
                });
            }
            let candidate = Candidate {
                files: sorted.clone(),
                view: view.clone(),
            };
            let checked = self.0.check.check(candidate).await;
            let mut response = guarded(header, checked);
            if !response.accepted || header.dry_run {
                return Ok(response);
            }
            let version = ConfigVersion {
                author: who.name().to_owned(),
                message: header.message.clone(),
                source: header.source.clone(),
                rollback_of,
                presubmits: response.presubmits,
                postsubmits: response.postsubmits,
                periodics: response.periodics,
                ..ConfigVersion::default()
            };
            let committed = self
                .commit(who, header, &view, version, sorted.clone(), &mut response)
                .await;
            match committed {
                Ok((revision, done)) => {
                    response.version = done.config_version;
                    response.revision = revision;
                    return Ok(response);
                }
                // Another one was committed, or contents left, since the view was taken.
                Err(status)
                    if matches!(status.code(), Code::FailedPrecondition | Code::NotFound)
                        && header.expected_current == 0
                        && tries < TRIES
                        && self.0.view(None).await?.revision > view.revision =>
                {
                    tries += 1;
                }
                Err(status) => return Err(status),
            }
        }
    }

    /// Puts the pages that the version in force does not have, then the version.
    async fn commit(
        &self,
        who: &Who,
        header: &ApplyConfigHeader,
        view: &View,
        mut version: ConfigVersion,
        files: Vec<ConfigFile>,
        response: &mut ApplyConfigResponse,
    ) -> Result<(u64, Done), Status> {
        let current = view.config();
        check_roles(view.feature_level(), &files)?;
        if view.feature_level() < PAGES_LEVEL {
            // Earlier builds would not see it.
            version.source.clear();
            check_inline(&files)?;
            version.root = config_root(&files).to_vec().into();
            version.files = files;
        } else {
            let kept: BTreeSet<&Bytes> =
                current.iter().flat_map(|version| &version.pages).collect();
            let pages = config_pages(files);
            version.pages = pages.iter().map(|page| page.sha256.clone()).collect();
            let new: Vec<ConfigPage> = pages
                .into_iter()
                .filter(|page| !kept.contains(&page.sha256))
                .collect();
            response.new_pages = u32::try_from(new.len()).unwrap_or(u32::MAX);
            stream::iter(new)
                .map(|page| {
                    let put = PutConfigPage { page: Some(page) };
                    self.0.propose(who, "", Body::PutConfigPage(put))
                })
                .buffer_unordered(PAGES_AT_ONCE)
                .try_for_each(|_| std::future::ready(Ok(())))
                .await?;
        }
        let body = Body::PutConfig(PutConfig {
            config: Some(version),
            // What was retired was judged against this one.
            expected_current: current.map_or(0, |version| version.number),
        });
        let (revision, done) = self.0.propose(who, &header.request_id, body).await?;
        // Without a version in force there is none to compare with when it is applied.
        match (current, done.config_version) {
            (None, made) if made > 1 => Err(Status::aborted(format!(
                "version {made} is in force, but version {} came in between, and what is retired of that was not judged: \
                 compare them with `trireme config diff`; `trireme config rollback {}` puts the other one back",
                made - 1,
                made - 1
            ))),
            _ => Ok((revision, done)),
        }
    }

    /// Puts contents that only the archive has.
    pub(super) async fn bring_back(
        &self,
        who: &Who,
        stored: &Stored,
        files: &[ConfigFile],
    ) -> Result<(), Status> {
        let lost = missing(stored.view(), self.0.store.now_ms(), files);
        let host = self.0.store.host();
        stream::iter(lost)
            .map(|at| async move {
                let file = files.get(at as usize);
                let Some(blob) = file.and_then(|file| file.blob.as_ref()) else {
                    return Err(Status::data_loss("a file without a content is recorded"));
                };
                let content = stored.content(blob, host).await?;
                self.0.put_blob(who, content).await
            })
            .buffer_unordered(CONTENTS_AT_ONCE)
            .try_for_each(|_| std::future::ready(Ok(())))
            .await
    }
}

/// The version that an earlier try of the same request made.
fn remembered(view: &View, who: &Who, request_id: &str) -> Option<u64> {
    let known = view.request(who.name(), request_id)?;
    match known.outcome.as_ref()?.result.as_ref()? {
        outcome::Result::Done(done) => Some(done.config_version).filter(|version| *version != 0),
        outcome::Result::Rejected(_) => None,
    }
}

/// Members of a former build would not know what such a file is.
fn check_roles(level: u32, files: &[ConfigFile]) -> Result<(), Status> {
    let unknown = |file: &&ConfigFile| !FIRST_CONFIG_ROLES.contains(&file.role.as_str());
    match files.iter().find(unknown) {
        Some(file) if level < ROLES_LEVEL => Err(Status::failed_precondition(format!(
            "{}: a file that is {} needs feature level {ROLES_LEVEL}, the cluster is at {level}. Raise the level once every \
             member runs a version that knows it, or let supplemental files have a directory of their own and Prow's default \
             suffixes",
            file.path, file.role
        ))),
        _ => Ok(()),
    }
}

fn check_inline(files: &[ConfigFile]) -> Result<(), Status> {
    let bytes = files
        .iter()
        .filter_map(|file| file.blob.as_ref())
        .fold(0_u64, |sum, blob| sum.saturating_add(blob.size));
    if files.len() > MAX_INLINE_CONFIG_FILES || bytes > MAX_INLINE_CONFIG_BYTES {
        return Err(Status::failed_precondition(format!(
            "{} files of {bytes} bytes: before feature level {PAGES_LEVEL} a configuration has at most \
             {MAX_INLINE_CONFIG_FILES} files of {MAX_INLINE_CONFIG_BYTES} bytes. Raise the level once every member runs a \
             version that knows it",
            files.len()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(gone: usize, before: usize, max: Option<u32>, retire: bool) -> bool {
        let header = ApplyConfigHeader {
            retire,
            max_retired_percent: max,
            ..ApplyConfigHeader::default()
        };
        let retired = Retired {
            contexts: vec![String::new(); gone],
            contexts_before: before,
            ..Retired::default()
        };
        judge(&header, &retired).refused
    }

    #[test]
    fn what_is_retired_unknown_is_refused_unless_that_is_said() {
        let apply = |retire| {
            let header = ApplyConfigHeader {
                retire,
                ..ApplyConfigHeader::default()
            };
            let checked = Checked {
                accepted: true,
                retired: Some(Err("it misses a page".to_owned())),
                ..Checked::default()
            };
            let answer = guarded(&header, checked);
            let found = &answer.diagnostics[0];
            let (severity, message) = (found.severity.clone(), found.message.clone());
            (answer.accepted, severity, message)
        };
        let (accepted, severity, message) = apply(false);
        assert_eq!((accepted, severity.as_str()), (false, "error"));
        assert_eq!(
            message,
            "this node cannot read the version in force, so that what would be retired is not known: it misses a page. Nothing \
             was changed: apply it at a node that can read it, or say --yes if whatever goes is meant to go"
        );
        let (accepted, severity, _) = apply(true);
        assert_eq!((accepted, severity.as_str()), (true, "warning"));
        let none = Checked {
            accepted: true,
            ..Checked::default()
        };
        assert!(guarded(&ApplyConfigHeader::default(), none).accepted);
    }

    #[test]
    fn a_manifest_is_bounded_part_by_part() {
        let file = |role: &str, path: &str| ConfigFile {
            role: role.to_owned(),
            path: path.to_owned(),
            blob: Some(crate::blob::name(b"{}")),
        };
        let part = |files: Vec<ConfigFile>| check_part(&ConfigManifest { files }, 0, 0);
        let told = |answer: Result<(), Status>| answer.unwrap_err().message().to_owned();
        assert!(part(vec![file("main", &"x".repeat(MAX_NAME_BYTES))]).is_ok());
        let long = part(vec![file("main", &"x".repeat(MAX_NAME_BYTES + 1))]);
        assert_eq!(
            told(long),
            r#""xxxxxxxxxxxxxxxxxxxx"...: a path of 1025 bytes; the path of a file is at most 1024"#
        );
        assert_eq!(
            told(part(Vec::new())),
            "a part of the manifest has no files"
        );
        let role = part(vec![file(&"r".repeat(1000), "a")]);
        assert!(told(role).len() < 200);
        let unnamed = ConfigFile {
            blob: None,
            ..file("job", "a")
        };
        assert_eq!(told(part(vec![unnamed])), "a: no sha256 of its content");
        let one = ConfigManifest {
            files: vec![file("job", "a")],
        };
        assert!(check_part(&one, MAX_CONFIG_FILES - 1, MAX_MANIFEST_BYTES).is_ok());
        assert!(check_part(&one, MAX_CONFIG_FILES, 0).is_err());
        assert_eq!(
            told(check_part(&one, 0, MAX_MANIFEST_BYTES + 1)),
            "a manifest is at most 67108864 bytes: shorten the paths"
        );
        let twice = [
            file("main", "a"),
            file("job", "b"),
            file("supplemental", "b"),
        ];
        assert!(check_manifest(&twice[..2]).is_ok());
        assert_eq!(
            told(check_manifest(&twice)),
            r#""b": every file needs a path of its own"#
        );
    }

    #[test]
    fn what_does_not_fit_before_pages_is_refused_in_words() {
        let many = |count| vec![ConfigFile::default(); count];
        assert!(check_inline(&many(MAX_INLINE_CONFIG_FILES)).is_ok());
        let refused = check_inline(&many(MAX_INLINE_CONFIG_FILES + 1)).unwrap_err();
        assert_eq!(
            refused.message(),
            "10001 files of 0 bytes: before feature level 4 a configuration has at most 10000 files of 67108864 bytes. Raise the \
             level once every member runs a version that knows it"
        );
    }

    #[test]
    fn roles_that_a_member_may_not_know_are_refused_in_words() {
        let shard = ConfigFile {
            role: "prow_supplemental".to_owned(),
            path: "shards/acme.prow.yaml".to_owned(),
            blob: None,
        };
        assert!(check_roles(ROLES_LEVEL, std::slice::from_ref(&shard)).is_ok());
        let refused = check_roles(ROLES_LEVEL - 1, &[shard]).unwrap_err();
        assert_eq!(
            refused.message(),
            "shards/acme.prow.yaml: a file that is prow_supplemental needs feature level 5, the cluster is at 4. Raise the level \
             once every member runs a version that knows it, or let supplemental files have a directory of their own and Prow's \
             default suffixes"
        );
    }

    #[test]
    fn more_than_a_fifth_is_retired_only_when_that_is_said() {
        assert!(!judged(0, 0, None, false));
        assert!(!judged(2, 10, None, false));
        assert!(judged(3, 10, None, false));
        assert!(!judged(3, 10, None, true));
        assert!(!judged(3, 10, Some(30), false));
        assert!(judged(1, 10, Some(0), false));
        let retired = Retired {
            jobs: (0..30).map(|at| at.to_string()).collect(),
            jobs_before: 40,
            ..Retired::default()
        };
        let judged = judge(&ApplyConfigHeader::default(), &retired);
        assert!(judged.refused);
        assert_eq!((judged.jobs, judged.first_jobs.len()), (30, NAMED));
    }
}
