//! The common door of the four programs.

use std::env;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use serde::de::DeserializeOwned;
use trireme_prowjob::JobSpec;
use trireme_prowjob::job_spec::JOB_SPEC_ENV;

use crate::clonerefs::{self, CloneRefsOptions};
use crate::entrypoint::{self, EntrypointOptions};
use crate::go_flags::FlagError;
use crate::initupload::{self, InitUploadOptions};
use crate::sidecar::{self, SidecarOptions};
use crate::utility_log::UtilityLog;

const USAGE: &str = "\
Prow's pod utilities.

Usage: trireme-podutils <clonerefs|initupload|entrypoint|sidecar> [flags]

Options are read as JSON from CLONEREFS_OPTIONS, INITUPLOAD_OPTIONS, ENTRYPOINT_OPTIONS or SIDECAR_OPTIONS; clonerefs
and entrypoint take Prow's flags when that is not set. initupload and sidecar read JOB_SPEC as well. A copy or link
of this program that bears the name of a utility is that utility.
";

/// One of the four programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Utility {
    /// Clones a job's repositories.
    CloneRefs,
    /// Says that a run has started.
    InitUpload,
    /// Wraps the test process.
    Entrypoint,
    /// Stores what the test left.
    Sidecar,
}

impl Utility {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::CloneRefs,
        Self::InitUpload,
        Self::Entrypoint,
        Self::Sidecar,
    ];

    /// Name of the program and of the subcommand.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CloneRefs => "clonerefs",
            Self::InitUpload => "initupload",
            Self::Entrypoint => "entrypoint",
            Self::Sidecar => "sidecar",
        }
    }

    /// Variable that holds its options.
    pub const fn options_env(self) -> &'static str {
        match self {
            Self::CloneRefs => clonerefs::OPTIONS_ENV,
            Self::InitUpload => initupload::OPTIONS_ENV,
            Self::Entrypoint => entrypoint::OPTIONS_ENV,
            Self::Sidecar => sidecar::OPTIONS_ENV,
        }
    }

    /// The utility that a program is, by the path it was called with: a binary that embeds the utilities and is copied
    /// to `/tools/entrypoint` must be `entrypoint` there.
    pub fn by_program_name(arg0: &Path) -> Option<Self> {
        let name = arg0.file_stem()?;
        Self::ALL.into_iter().find(|u| name == u.name())
    }
}

/// Runs a utility. `args` begins with the program's own name, as the operating system gives it, or with any word when
/// this is a subcommand of another program; the utility is named by that word or by the next.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut args = args.into_iter();
    let program = args.next().unwrap_or_default();
    let utility = Utility::by_program_name(Path::new(&program)).or_else(|| {
        let word = args.next()?;
        Utility::ALL.into_iter().find(|u| word == u.name())
    });
    let Some(utility) = utility else {
        eprint!("{USAGE}");
        return ExitCode::from(2);
    };
    let args: Vec<String> = args.map(|a| a.to_string_lossy().into_owned()).collect();
    if args
        .iter()
        .any(|a| matches!(a.as_str(), "-h" | "-help" | "--help"))
    {
        eprint!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let log = UtilityLog::to_stderr(utility.name());
    match run(utility, &args, &log) {
        Ok(code) => exit_code(code),
        Err(why) => {
            log.fatal(&why, &[]);
            ExitCode::FAILURE
        }
    }
}

/// The low byte, which is all that the operating system keeps of a code.
fn exit_code(code: i64) -> ExitCode {
    let [low, ..] = code.to_le_bytes();
    ExitCode::from(low)
}

fn run(utility: Utility, args: &[String], log: &UtilityLog) -> Result<i64, String> {
    let invalid = |why: String| format!("Invalid options: {why}");
    match utility {
        Utility::CloneRefs => {
            let options: CloneRefsOptions = load(utility, || CloneRefsOptions::from_flags(args))?;
            options.check(log).map_err(|e| invalid(e.to_string()))?;
            options
                .run()
                .map_err(|e| format!("Failed to clone refs: {e}"))?;
            log.info("Finished cloning refs", &[]);
            Ok(0)
        }
        Utility::InitUpload => {
            let options: InitUploadOptions = load(utility, || Err(FlagError::EnvironmentOnly))?;
            options.upload.validate().map_err(invalid)?;
            let failed = |e: &dyn ToString| format!("Failed to initialize job: {}", e.to_string());
            let spec =
                job_spec().map_err(|e| failed(&format!("could not resolve job spec: {e}")))?;
            runtime()?
                .block_on(options.run(&spec))
                .map_err(|e| failed(&e))?;
            Ok(0)
        }
        Utility::Entrypoint => {
            let options: EntrypointOptions = load(utility, || EntrypointOptions::from_flags(args))?;
            if options.copy_mode_only {
                options
                    .copy_program()
                    .map_err(|e| format!("Failed running in copy mode: {e}"))?;
                return Ok(0);
            }
            options.validate().map_err(|e| invalid(e.to_owned()))?;
            let runtime = runtime()?;
            let code = runtime.block_on(options.run());
            // A process that left the group may still hold the output open; it must not hold this program.
            runtime.shutdown_background();
            Ok(code)
        }
        Utility::Sidecar => {
            let mut options: SidecarOptions = load(utility, || Err(FlagError::EnvironmentOnly))?;
            options.validate().map_err(invalid)?;
            let outcome = job_spec()
                .map_err(|e| format!("could not resolve job spec: {e}"))
                .and_then(|spec| {
                    runtime()?
                        .block_on(options.run(&spec))
                        .map_err(|e| e.to_string())
                });
            let failures = outcome.unwrap_or_else(|error| {
                log.error("Failed to report job status", &[("error", error.into())]);
                0
            });
            if failures > 0 && options.entry_error {
                return Err(format!("{failures} containers failed"));
            }
            Ok(0)
        }
    }
}

fn load<T: DeserializeOwned>(
    utility: Utility,
    flags: impl FnOnce() -> Result<T, FlagError>,
) -> Result<T, String> {
    let variable = utility.options_env();
    match env::var(variable) {
        Ok(json) => serde_json::from_str(&json).map_err(|e| {
            format!(
                "Could not resolve options: could not load config from JSON var {variable}: {e}"
            )
        }),
        Err(env::VarError::NotPresent) => flags().map_err(|e| {
            format!("Could not resolve options: {e} (they may be given as JSON in {variable})")
        }),
        Err(error) => Err(format!("Could not resolve options: {variable}: {error}")),
    }
}

fn job_spec() -> Result<JobSpec, String> {
    let value = env::var(JOB_SPEC_ENV).ok();
    JobSpec::from_env_value(value.as_deref()).map_err(|e| e.to_string())
}

fn runtime() -> Result<tokio::runtime::Runtime, String> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder
        .enable_all()
        .build()
        .map_err(|e| format!("Could not start: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pod_064_a_copy_is_known_by_its_name() {
        assert_eq!(
            Utility::by_program_name(Path::new("/tools/entrypoint")),
            Some(Utility::Entrypoint)
        );
        assert_eq!(Utility::by_program_name(Path::new("/bin/trireme")), None);
    }

    #[test]
    fn codes_are_cut_to_a_byte() {
        assert_eq!(exit_code(1130), ExitCode::from(106));
        assert_eq!(exit_code(-1), ExitCode::from(255));
    }
}
