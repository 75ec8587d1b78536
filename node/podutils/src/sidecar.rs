//! `sidecar`: waits for the test processes to end and stores what they left: logs, artifacts, the verdict.

use std::fs::{self, File};
use std::io;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use futures::future::OptionFuture;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use trireme_prowjob::go_json::{self, null_as_zero};
use trireme_prowjob::run_files::FINISHED_FILE;
use trireme_prowjob::{Finished, JobSpec};

use crate::blob_upload::{Content, GcsUploadOptions, Targets, UploadError};
use crate::censor::{self, Censored};
use crate::entrypoint::{ABORTED_ERROR_CODE, Interrupts, PREVIOUS_ERROR_CODE};
use crate::marker::Marker;
use crate::utility_log::UtilityLog;
use crate::wrapper::WrapperOptions;
use crate::{go_process, marker, run_metadata};

/// Set by [`crate::local`]: the sidecar then prints [`READY`] once a signal no longer kills it.
pub(crate) const SAY_READY_ENV: &str = "TRIREME_SIDECAR_SAYS_READY";
/// A line of its own.
pub(crate) const READY: &str = "sidecar: signals are heeded";

/// Variable that holds the options as JSON.
pub const OPTIONS_ENV: &str = "SIDECAR_OPTIONS";
const LOG_FILE: &str = "sidecar-logs.json";

/// Options of the program (POD-080).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SidecarOptions {
    /// Where to, and the artifacts.
    #[serde(deserialize_with = "null_as_zero")]
    pub gcs_options: GcsUploadOptions,
    /// Legacy: one entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wrapper_options: Option<WrapperOptions>,
    /// The processes waited for.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_as_zero"
    )]
    pub entries: Vec<WrapperOptions>,
    /// Exit with an error when an entry failed.
    #[serde(skip_serializing_if = "is_false", deserialize_with = "null_as_zero")]
    pub entry_error: bool,
    /// Do nothing on SIGTERM but go on waiting.
    #[serde(skip_serializing_if = "is_false", deserialize_with = "null_as_zero")]
    pub ignore_interrupts: bool,
    /// Read, without effect here.
    #[serde(skip_serializing_if = "is_false", deserialize_with = "null_as_zero")]
    pub write_memory_profile: bool,
    /// Asks for censoring.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub censoring_options: Option<SidecarCensoringOptions>,
    /// Legacy, see `censoring_options`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_directories: Option<Vec<String>>,
    /// Legacy, see `censoring_options`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub censoring_concurrency: Option<i64>,
    /// Legacy, see `censoring_options`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub censoring_buffer_size: Option<i64>,
}

/// What is censored, and where the secrets are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SidecarCensoringOptions {
    /// Every file below them is a secret.
    #[serde(skip_serializing_if = "is_none_or_empty")]
    pub secret_directories: Option<Vec<String>>,
    /// Read, without effect here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub censoring_concurrency: Option<i64>,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub censoring_buffer_size: Option<i64>,
    /// Globs below an item.
    #[serde(skip_serializing_if = "is_none_or_empty")]
    pub include_directories: Option<Vec<String>>,
    /// Globs below an item.
    #[serde(skip_serializing_if = "is_none_or_empty")]
    pub exclude_directories: Option<Vec<String>>,
    /// Secret files whose values are secrets, too.
    #[serde(skip_serializing_if = "is_none_or_empty")]
    pub ini_filenames: Option<Vec<String>>,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum_secret_length: Option<i64>,
}

fn is_false(b: &bool) -> bool {
    !*b
}

fn is_none_or_empty(list: &Option<Vec<String>>) -> bool {
    list.as_ref().is_none_or(Vec::is_empty)
}

/// Why the program could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum SidecarError {
    /// Signals cannot be received.
    #[error("could not listen for signals: {0}")]
    Signals(#[source] io::Error),
    /// Storage failed.
    #[error("failed to upload to GCS: {0}")]
    Upload(#[from] UploadError),
    /// A file could not be made.
    #[error("could not marshal finishing data: {0}")]
    Marshal(#[from] serde_json::Error),
}

type EarlyUpload<'a> = Pin<Box<dyn Future<Output = Result<(), SidecarError>> + 'a>>;

/// How all entries together ended (POD-081).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Verdict {
    passed: bool,
    aborted: bool,
    failures: usize,
}

impl Verdict {
    const INTERRUPTED: Self = Self {
        passed: false,
        aborted: true,
        failures: 0,
    };

    fn of<'a>(markers: impl Iterator<Item = &'a Marker> + Clone) -> Self {
        let failed = |m: &&Marker| !matches!(m, Ok(0) | Ok(PREVIOUS_ERROR_CODE));
        Self {
            passed: markers.clone().all(|m| *m == Ok(0)),
            aborted: markers.clone().any(|m| *m == Ok(ABORTED_ERROR_CODE)),
            failures: markers.filter(failed).count(),
        }
    }

    const fn result(self) -> &'static str {
        match (self.passed, self.aborted) {
            (true, _) => "SUCCESS",
            (false, true) => "ABORTED",
            (false, false) => "FAILURE",
        }
    }
}

impl SidecarOptions {
    /// Brings legacy options to their present form and checks.
    ///
    /// # Errors
    /// The first thing that is missing or contradicts another (POD-079, POD-080).
    pub fn validate(&mut self) -> Result<(), String> {
        let legacy = SidecarCensoringOptions {
            secret_directories: self.secret_directories.take(),
            censoring_concurrency: self.censoring_concurrency.take(),
            censoring_buffer_size: self.censoring_buffer_size.take(),
            ..SidecarCensoringOptions::default()
        };
        if legacy != SidecarCensoringOptions::default() {
            if self.censoring_options.is_some() {
                return Err("cannot use deprecated options (secret_directories, censoring_{concurrency,buffer_size}) \
                            and new options (censoring_options) at the same time"
                    .to_owned());
            }
            self.censoring_options = Some(legacy);
        }
        if let Some(entry) = self.wrapper_options.take() {
            self.entries.insert(0, entry);
        }
        if self.entries.is_empty() {
            return Err("no wrapper.Option entries".to_owned());
        }
        for (i, entry) in self.entries.iter().enumerate() {
            entry.validate().map_err(|e| format!("entry {i}: {e}"))?;
        }
        self.gcs_options.validate()
    }

    /// Waits and uploads. Returns how many entries failed.
    ///
    /// # Errors
    /// When the final upload failed.
    pub async fn run(&self, spec: &JobSpec) -> Result<usize, SidecarError> {
        let own_log = OwnLog::new();
        let log = own_log.log.clone();
        let mut interrupts = Interrupts::install().map_err(SidecarError::Signals)?;
        if std::env::var_os(SAY_READY_ENV).is_some() {
            // Whoever waits for it sees the end of the output as well.
            let _told = writeln!(std::io::stdout(), "{READY}");
        }
        let marker_files: Vec<String> =
            self.entries.iter().map(|e| e.marker_file.clone()).collect();
        let censoring = Arc::new(Mutex::new(()));
        let mut markers = Box::pin(marker::wait_for(&marker_files));
        // The upload after an interrupt goes on beside the waiting, and is given up when the real end is known.
        let mut early: OptionFuture<EarlyUpload<'_>> = None.into();
        let (mut interrupted, mut uploaded_early) = (false, false);
        log.info(
            "Waiting for the test processes to end",
            &[("entries", self.entries.len().into())],
        );
        let found = loop {
            tokio::select! {
                found = &mut markers => break found,
                stop = interrupts.next(), if !interrupted => {
                    interrupted = true;
                    if self.ignore_interrupts {
                        log.warn(&format!("Received an interrupt: {}, ignoring...", stop.name()), &[]);
                    } else {
                        log.error(&format!("Received an interrupt: {}, cancelling...", stop.name()), &[]);
                        let upload: EarlyUpload<'_> = Box::pin(self.upload(spec, Verdict::INTERRUPTED, &censoring, &own_log));
                        early = Some(upload).into();
                    }
                }
                Some(outcome) = &mut early, if interrupted && !uploaded_early => {
                    uploaded_early = true;
                    match outcome {
                        Ok(()) => log.error("Best-effort upload was successful", &[]),
                        Err(error) => {
                            log.error("Failed to perform best-effort upload", &[("error", error.to_string().into())]);
                        }
                    }
                }
            }
        };
        drop(early);
        // From here on signals are received and not looked at: the upload always completes.
        let verdict = Verdict::of(found.values());
        self.upload(spec, verdict, &censoring, &own_log).await?;
        Ok(verdict.failures)
    }

    async fn upload(
        &self,
        spec: &JobSpec,
        verdict: Verdict,
        censoring: &Arc<Mutex<()>>,
        own_log: &OwnLog,
    ) -> Result<(), SidecarError> {
        let log = &own_log.log;
        let censored = self.censor(censoring, log).await;
        let metadata = run_metadata::combine(&self.entries, log);
        log.info("Starting to upload", &[]);

        let mut targets = Targets::new();
        for entry in &self.entries {
            let name = match self.entries.len() {
                1 => "build-log.txt".to_owned(),
                _ => format!("{}-build-log.txt", entry.container_name),
            };
            targets.insert(name, build_log(&entry.process_log, &censored));
        }
        if let Ok(own) = censored.bytes(own_log.content()) {
            targets.insert(LOG_FILE.to_owned(), Content::Bytes(own));
        }
        let finished = Finished {
            timestamp: Some(Timestamp::now().as_second()),
            passed: Some(verdict.passed),
            result: verdict.result().to_owned(),
            metadata,
            revision: spec.revision().to_owned(),
            ..Finished::default()
        };
        let json = go_json::to_string(&finished)?.into_bytes();
        targets.insert(
            FINISHED_FILE.to_owned(),
            Content::Bytes(without_secrets(json, &finished, &censored)?),
        );
        Ok(self.gcs_options.run(spec, targets, &censored, log).await?)
    }

    /// Not on this thread, and one at a time even if the upload that asked for it is given up.
    async fn censor(&self, censoring: &Arc<Mutex<()>>, log: &UtilityLog) -> Censored {
        let Some(options) = self.censoring_options.clone() else {
            return Censored::nothing();
        };
        let turn = Arc::clone(censoring).lock_owned().await;
        let logs: Vec<PathBuf> = self
            .entries
            .iter()
            .map(|e| PathBuf::from(&e.process_log))
            .collect();
        let items: Vec<PathBuf> = self.gcs_options.items.iter().map(PathBuf::from).collect();
        let task_log = log.clone();
        let task = tokio::task::spawn_blocking(move || {
            let done = censor::censor(&options, &logs, &items, &task_log);
            drop(turn);
            done
        });
        task.await
            .unwrap_or_else(|error| Censored::refused(format!("censoring broke off: {error}")))
    }
}

fn build_log(process_log: &str, censored: &Censored) -> Content {
    let unreadable =
        |why: &str| Content::Bytes(format!("Failed to open {process_log}: {why}\n").into_bytes());
    match censored.source(Path::new(process_log)) {
        Err(why) => Content::Bytes(
            format!("Not uploaded because secrets in it could not be censored: {why}\n")
                .into_bytes(),
        ),
        Ok(file) => match File::open(&file) {
            Ok(_) => Content::File(file),
            Err(error) => unreadable(&format!(
                "open {process_log}: {}",
                go_process::os_error(&error)
            )),
        },
    }
}

/// Metadata may hold secrets like any artifact; when they cannot be found it is left out, the verdict never is.
fn without_secrets(
    json: Vec<u8>,
    finished: &Finished,
    censored: &Censored,
) -> Result<Vec<u8>, serde_json::Error> {
    match censored.bytes(json) {
        Ok(json) => Ok(json),
        Err(_) => {
            let bare = Finished {
                metadata: Default::default(),
                ..finished.clone()
            };
            go_json::to_string(&bare).map(String::into_bytes)
        }
    }
}

/// The program's own log lines, to standard error and into a file that is uploaded at the end.
struct OwnLog {
    log: UtilityLog,
    file: Option<PathBuf>,
}

impl OwnLog {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("sidecar-logs-{}.txt", std::process::id()));
        match File::create(&path) {
            Ok(file) => {
                let log = UtilityLog::new("sidecar", vec![Box::new(io::stderr()), Box::new(file)])
                    .with_debug();
                Self {
                    log,
                    file: Some(path),
                }
            }
            Err(error) => {
                let log = UtilityLog::to_stderr("sidecar").with_debug();
                log.error(
                    "Unable to set up log file",
                    &[("error", error.to_string().into())],
                );
                Self { log, file: None }
            }
        }
    }

    fn content(&self) -> Vec<u8> {
        self.file
            .as_ref()
            .and_then(|path| fs::read(path).ok())
            .unwrap_or_default()
    }
}

impl Drop for OwnLog {
    fn drop(&mut self) {
        if let Some(path) = &self.file {
            // A leftover log in the temporary directory does no harm.
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pod_081_verdicts() {
        let of = |markers: &[Marker]| {
            let v = Verdict::of(markers.iter());
            (v.result(), v.failures)
        };
        assert_eq!(of(&[Ok(0), Ok(0)]), ("SUCCESS", 0));
        assert_eq!(of(&[Ok(0), Ok(1)]), ("FAILURE", 1));
        assert_eq!(of(&[Ok(130), Ok(2)]), ("ABORTED", 2));
        assert_eq!(of(&[Ok(1), Ok(1130)]), ("FAILURE", 1));
        assert_eq!(of(&[Ok(1130)]), ("FAILURE", 0));
        assert_eq!(of(&[Err("gone".into())]), ("FAILURE", 1));
    }

    #[test]
    fn pod_079_legacy_options() {
        let mut options: SidecarOptions = serde_json::from_str(
            r#"{"gcs_options":{"dry_run":true,"path_strategy":"explicit"},"wrapper_options":{"process_log":"p","marker_file":"m"},"secret_directories":["/s"]}"#,
        )
        .unwrap();
        options.validate().unwrap();
        assert_eq!(options.entries.len(), 1);
        insta::assert_snapshot!(go_json::to_string(&options).unwrap(), @r#"{"gcs_options":{"path_strategy":"explicit","dry_run":true},"entries":[{"process_log":"p","marker_file":"m","metadata_file":""}],"censoring_options":{"secret_directories":["/s"]}}"#);
        options.censoring_buffer_size = Some(2);
        insta::assert_snapshot!(options.validate().unwrap_err(), @"cannot use deprecated options (secret_directories, censoring_{concurrency,buffer_size}) and new options (censoring_options) at the same time");
        insta::assert_snapshot!(SidecarOptions::default().validate().unwrap_err(), @"no wrapper.Option entries");
    }
}
