//! `initupload`: says that a run has started, and ends it when its code could not be cloned.

use std::fs;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use trireme_prowjob::go_json::{self, null_as_zero};
use trireme_prowjob::run_files::{CLONE_RECORDS_FILE, FINISHED_FILE, STARTED_FILE};
use trireme_prowjob::{CloneRecord, Finished, JobSpec, Started};

use crate::blob_upload::{Content, GcsUploadOptions, Targets, UploadError};
use crate::censor::Censored;
use crate::utility_log::UtilityLog;
use crate::{clone_log, go_process};

/// Variable that holds the options as JSON.
pub const OPTIONS_ENV: &str = "INITUPLOAD_OPTIONS";

/// Options of the program.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct InitUploadOptions {
    /// Where to.
    #[serde(flatten)]
    pub upload: GcsUploadOptions,
    /// The clone records; empty when nothing was cloned.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_as_zero"
    )]
    pub log: String,
}

/// Why the program fails.
#[derive(Debug, thiserror::Error)]
pub enum InitUploadError {
    /// The clone log is not there.
    #[error("could not read clone log: {0}")]
    Read(String),
    /// The clone log holds no clone records.
    #[error("could not unmarshal clone records: {0}")]
    Malformed(#[source] serde_json::Error),
    /// A file could not be made.
    #[error("could not marshal {0}: {1}")]
    Marshal(&'static str, #[source] serde_json::Error),
    /// Storage failed.
    #[error("failed to upload to blob storage: {0}")]
    Upload(#[from] UploadError),
    /// Everything is uploaded, and the run ends here.
    #[error("cloning the appropriate refs failed")]
    CloneFailed,
}

impl InitUploadOptions {
    /// Uploads `started.json` and what became of cloning (POD-050).
    ///
    /// # Errors
    /// When storage fails, and, after uploading, when cloning had failed.
    pub async fn run(&self, spec: &JobSpec) -> Result<(), InitUploadError> {
        self.run_logged(spec, &UtilityLog::to_stderr("initupload"))
            .await
    }

    pub(crate) async fn run_logged(
        &self,
        spec: &JobSpec,
        log: &UtilityLog,
    ) -> Result<(), InitUploadError> {
        let mut targets = Targets::new();
        let records = if self.log.is_empty() {
            Vec::new()
        } else {
            self.clone_files(&mut targets)?
        };
        let started = Started::for_spec(spec, &records, Timestamp::now());
        insert_json(&mut targets, STARTED_FILE, &started)?;
        self.upload
            .run(spec, targets, &Censored::nothing(), log)
            .await?;
        if records.iter().any(|r| r.failed) {
            Err(InitUploadError::CloneFailed)
        } else {
            Ok(())
        }
    }

    fn clone_files(&self, targets: &mut Targets) -> Result<Vec<CloneRecord>, InitUploadError> {
        let raw = fs::read(&self.log).map_err(|e| {
            InitUploadError::Read(format!("open {}: {}", self.log, go_process::os_error(&e)))
        })?;
        let records: Option<Vec<CloneRecord>> =
            serde_json::from_slice(&raw).map_err(InitUploadError::Malformed)?;
        let records = records.unwrap_or_default();
        let text = clone_log::render(&records).into_bytes();
        if records.iter().any(|r| r.failed) {
            targets.insert("build-log.txt".to_owned(), Content::Bytes(text.clone()));
            let finished = Finished {
                timestamp: Some(Timestamp::now().as_second()),
                passed: Some(false),
                result: "FAILURE".to_owned(),
                ..Finished::default()
            };
            insert_json(targets, FINISHED_FILE, &finished)?;
        }
        targets.insert("clone-log.txt".to_owned(), Content::Bytes(text));
        targets.insert(CLONE_RECORDS_FILE.to_owned(), Content::Bytes(raw));
        Ok(records)
    }
}

fn insert_json<T: Serialize>(
    targets: &mut Targets,
    name: &'static str,
    value: &T,
) -> Result<(), InitUploadError> {
    let json = go_json::to_string(value).map_err(|e| InitUploadError::Marshal(name, e))?;
    targets.insert(name.to_owned(), Content::Bytes(json.into_bytes()));
    Ok(())
}

/// The clone log as people read it, from the file that clonerefs wrote; empty when there is none.
pub(crate) fn rendered_clone_log(path: &std::path::Path) -> String {
    let records = fs::read(path)
        .ok()
        .and_then(|raw| serde_json::from_slice::<Vec<CloneRecord>>(&raw).ok());
    clone_log::render(&records.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    async fn run(dir: &Path, records: Option<serde_json::Value>) -> Result<(), InitUploadError> {
        let mut options: InitUploadOptions = serde_json::from_value(
            json!({"bucket": dir.join("b"), "path_strategy": "explicit", "dry_run": false}),
        )
        .unwrap();
        if let Some(records) = records {
            options.log = dir.join("clone.json").display().to_string();
            fs::write(&options.log, records.to_string()).unwrap();
        }
        let spec: JobSpec = serde_json::from_value(json!({
            "type": "presubmit", "job": "j", "buildid": "5",
            "refs": {"org": "o", "repo": "r", "base_ref": "main", "base_sha": "b", "pulls": [{"number": 3, "author": "a", "sha": "s"}]},
        }))
        .unwrap();
        options
            .run_logged(&spec, &UtilityLog::new("test", Vec::new()))
            .await
    }

    /// All files below a directory with their contents, seconds since 1970 made `T`.
    fn files(dir: &Path) -> String {
        let found = crate::blob_upload::files_inside(dir, &UtilityLog::new("test", Vec::new()));
        let line = |path: &std::path::PathBuf| {
            let text = fs::read_to_string(path)
                .unwrap()
                .replace(&dir.display().to_string(), "DIR");
            let name = path.strip_prefix(dir).unwrap().display();
            let now = Timestamp::now().as_second().to_string();
            format!(
                "{name}: {}",
                text.trim_end().replace(&format!(":{},", now), ":T,")
            )
        };
        found.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    #[tokio::test]
    async fn pod_050_052_without_cloning_only_started_json() {
        let dir = tempfile::tempdir().unwrap();
        run(dir.path(), None).await.unwrap();
        insta::assert_snapshot!(files(&dir.path().join("b")), @r#"
        pr-logs/directory/j/5.txt: file://DIR/pr-logs/pull/o_r/3/j/5
        pr-logs/directory/j/latest-build.txt: 5
        pr-logs/pull/o_r/3/j/5/started.json: {"timestamp":T,"pull":"3","repos":{"o/r":"main:b,3:s"},"repo-commit":"s","repo-version":"s"}
        pr-logs/pull/o_r/3/j/latest-build.txt: 5
        "#);
    }

    #[tokio::test]
    async fn pod_050_a_failed_clone_ends_the_run() {
        let dir = tempfile::tempdir().unwrap();
        let records = json!([{"refs": {"org": "", "repo": ""}}, {"refs": {"org": "o", "repo": "r", "base_ref": "main"}, "failed": true}]);
        let error = run(dir.path(), Some(records)).await.unwrap_err();
        insta::assert_snapshot!(error, @"cloning the appropriate refs failed");
        insta::assert_snapshot!(files(&dir.path().join("b/pr-logs/pull/o_r/3/j/5")), @r##"
        build-log.txt: Environment setup
        # Final SHA: 
        # Total runtime: 0s
        # FAILED
        # Cloning o/r at main
        # Final SHA: 
        # Total runtime: 0s
        clone-log.txt: Environment setup
        # Final SHA: 
        # Total runtime: 0s
        # FAILED
        # Cloning o/r at main
        # Final SHA: 
        # Total runtime: 0s
        clone-records.json: [{"refs":{"org":"","repo":""}},{"refs":{"org":"o","repo":"r","base_ref":"main"},"failed":true}]
        finished.json: {"timestamp":T,"passed":false,"result":"FAILURE"}
        started.json: {"timestamp":T,"pull":"3","repos":{"o/r":"main:b,3:s"},"repo-commit":"s","repo-version":"s"}
        "##);
    }

    #[tokio::test]
    async fn pod_053_the_cloned_commit_is_the_runs_commit() {
        let dir = tempfile::tempdir().unwrap();
        let refs = json!({"org": "o", "repo": "r", "base_ref": "main", "base_sha": "b", "pulls": [{"number": 3, "author": "a", "sha": "s"}]});
        run(
            dir.path(),
            Some(json!([{"refs": refs, "final_sha": "merged"}])),
        )
        .await
        .unwrap();
        let started =
            fs::read_to_string(dir.path().join("b/pr-logs/pull/o_r/3/j/5/started.json")).unwrap();
        assert!(
            started.contains(r#""repo-commit":"merged","repo-version":"merged""#),
            "{started}"
        );
    }

    #[tokio::test]
    async fn a_missing_clone_log_is_an_error_and_uploads_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let options = InitUploadOptions {
            log: "/no/such/log".into(),
            ..InitUploadOptions::default()
        };
        let error = options
            .run_logged(&JobSpec::default(), &UtilityLog::new("test", Vec::new()))
            .await
            .unwrap_err();
        insta::assert_snapshot!(error, @"could not read clone log: open /no/such/log: no such file or directory");
        assert!(!dir.path().join("b").exists());
    }
}
