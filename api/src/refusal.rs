//! How a door says no.

use tonic::{Code, Status, metadata::MetadataValue};
use trireme_proto::state::{Done, Outcome, Rejection, outcome};
use trireme_raft::ProposeError;

/// Seconds after which a refusal for want of room is worth another try.
const RETRY_AFTER: &str = "1";
/// The same in milliseconds, for gRPC's own retries.
const PUSHBACK: &str = "1000";

/// RESOURCE_EXHAUSTED, with a hint when to try again.
pub(crate) fn exhausted(message: impl Into<String>) -> Status {
    let mut status = Status::resource_exhausted(message);
    let hints = status.metadata_mut();
    hints.insert("retry-after", MetadataValue::from_static(RETRY_AFTER));
    hints.insert(
        "grpc-retry-pushback-ms",
        MetadataValue::from_static(PUSHBACK),
    );
    status
}

/// A rejected outcome as a gRPC status; a done one as it is.
pub(crate) fn done(outcome: Outcome) -> Result<Done, Status> {
    match outcome.result {
        Some(outcome::Result::Done(done)) => Ok(done),
        Some(outcome::Result::Rejected(rejected))
            if rejected.code() == Rejection::ResourceExhausted =>
        {
            Err(exhausted(rejected.message))
        }
        Some(outcome::Result::Rejected(rejected)) => {
            Err(Status::new(code(rejected.code()), rejected.message))
        }
        None => Err(Status::internal("the outcome is empty")),
    }
}

fn code(rejection: Rejection) -> Code {
    match rejection {
        Rejection::Invalid | Rejection::Unspecified => Code::InvalidArgument,
        Rejection::NotFound => Code::NotFound,
        Rejection::AlreadyExists => Code::AlreadyExists,
        Rejection::Conflict => Code::FailedPrecondition,
        Rejection::NotInOffice | Rejection::Fenced => Code::Aborted,
        Rejection::ResourceExhausted => Code::ResourceExhausted,
    }
}

/// No quorum, overload and the like: worth a retry, with the same request id where there is one.
pub(crate) fn unavailable(why: &ProposeError) -> Status {
    let message = why.to_string();
    match why {
        ProposeError::Overloaded | ProposeError::NoSpace(_) => exhausted(message),
        ProposeError::Rejected(_) => Status::failed_precondition(message),
        ProposeError::TooLarge { .. } => Status::invalid_argument(message),
        _ => Status::unavailable(message),
    }
}
