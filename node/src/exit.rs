//! Exit codes, and how an error finds its own.

use std::process::ExitCode;

/// The command line is wrong; clap uses it too.
pub const USAGE: u8 = 2;
/// The cluster could not be reached.
pub const UNREACHABLE: u8 = 3;
/// There is no such object.
pub const NOT_FOUND: u8 = 4;
/// The configuration has errors.
pub const CONFIG: u8 = 5;
/// There is no token, or its role is not enough.
pub const DENIED: u8 = 6;
/// The configuration has warnings, and they were to be taken as errors.
pub const WARNINGS: u8 = 7;
/// The log holds commands that this build does not know.
pub const TOO_OLD: u8 = 70;
/// The data directory cannot be trusted.
pub const CORRUPT: u8 = 74;
/// The node's state differed from the majority's: started again, it fetches another.
pub const DIVERGED: u8 = 75;

/// The node was removed from its cluster: starting it again is of no use.
pub const REMOVED: u8 = 77;

/// An error with an exit code of its own.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Coded {
    pub code: u8,
    pub message: String,
}

/// Fails with a code.
#[must_use]
pub fn coded(code: u8, message: impl Into<String>) -> anyhow::Error {
    Coded {
        code,
        message: message.into(),
    }
    .into()
}

/// The code for an error, by its innermost known cause.
#[must_use]
pub fn code(why: &anyhow::Error) -> ExitCode {
    for cause in why.chain() {
        if let Some(coded) = cause.downcast_ref::<Coded>() {
            return coded.code.into();
        }
        if cause
            .downcast_ref::<trireme_api::client::ConnectError>()
            .is_some()
        {
            return UNREACHABLE.into();
        }
        if let Some(status) = cause.downcast_ref::<tonic::Status>() {
            return match status.code() {
                tonic::Code::NotFound => NOT_FOUND,
                tonic::Code::Unauthenticated | tonic::Code::PermissionDenied => DENIED,
                tonic::Code::Unavailable | tonic::Code::DeadlineExceeded => UNREACHABLE,
                _ => 1,
            }
            .into();
        }
    }
    ExitCode::FAILURE
}
