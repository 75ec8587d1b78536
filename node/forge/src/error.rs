//! How a call to a forge fails, told apart by what the caller can do about it.

use std::time::Duration;

use jiff::Timestamp;

/// Why a forge did not do what was asked.
///
/// `request` names the call as a person would look for it in the forge's documentation, for example
/// `GET /repos/kubernetes/test-infra/pulls/7`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForgeError {
    /// The object does not exist, or the forge hides it from this identity.
    #[error("{request}: not found{}", tail(.message))]
    NotFound { request: String, message: String },

    /// The credentials were not accepted: a missing, wrong or expired token.
    #[error("{request}: the forge did not accept our credentials{}", tail(.message))]
    Unauthorized { request: String, message: String },

    /// The credentials were accepted, but are not enough for this call.
    #[error("{request}: forbidden{}", tail(.message))]
    Forbidden { request: String, message: String },

    /// The budget is spent. Nothing happened; nothing more should be sent before `until`.
    #[error("{request}: rate limited until {until}{}", if *.secondary { " (secondary limit)" } else { "" })]
    RateLimited {
        request: String,
        until: Timestamp,
        /// How long that was when this was said.
        wait: Duration,
        /// GitHub's abuse limit, as opposed to the hourly budget.
        secondary: bool,
    },

    /// The forge could not be reached or is broken: a refused connection, a timeout, a 5xx.
    #[error("{request}: the forge is unavailable: {reason}{}", if *.maybe_sent { " (the request may have taken effect)" } else { "" })]
    Unavailable {
        request: String,
        reason: String,
        /// True if the request changes something, is not idempotent, and may have been received. Look before sending
        /// it again.
        maybe_sent: bool,
    },

    /// The forge understood and said no, for good: any other 4xx.
    #[error("{request}: refused with status {status}: {message}{}", list(.errors))]
    Refused {
        request: String,
        status: u16,
        /// The forge's own sentence.
        message: String,
        /// The forge's detailed complaints, if it gave any.
        errors: Vec<String>,
    },

    /// Nothing is sent in a dry run, and what the answer would have been cannot be known (GHC-010).
    #[error("{request}: not sent, this is a dry run")]
    DryRun { request: String },

    /// The answer is not what the forge's description promises, or is larger than we are willing to read.
    #[error("{request}: cannot read the answer: {reason}")]
    Decode { request: String, reason: String },
}

/// What a capability's methods return.
pub type Result<T> = std::result::Result<T, ForgeError>;

impl ForgeError {
    /// The call failed for a reason that passes by itself and has nothing to do with what was asked: pause, then try
    /// the same again, without using up tries.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::RateLimited { .. } | Self::Unavailable { .. })
    }

    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// The forge's sentence, if it refused because an issue or pull request cannot be opened or closed any more: its
    /// branch is gone, another one is open for it, it is merged (PLG-LIFECYCLE-003).
    #[must_use]
    pub fn state_cannot_be_changed(&self) -> Option<&str> {
        const WORDS: &str = "state cannot be changed";
        let Self::Refused {
            status: 422,
            message,
            errors,
            ..
        } = self
        else {
            return None;
        };
        let mut sentences = errors.iter().chain([message]);
        sentences
            .find(|sentence| sentence.contains(WORDS))
            .map(String::as_str)
    }

    /// The request may have taken effect although it failed: observe before sending it again.
    #[must_use]
    pub fn maybe_sent(&self) -> bool {
        matches!(
            self,
            Self::Unavailable {
                maybe_sent: true,
                ..
            }
        )
    }

    /// The earliest moment at which trying again makes sense, where the forge named one.
    #[must_use]
    pub fn retry_at(&self) -> Option<Timestamp> {
        match self {
            Self::RateLimited { until, .. } => Some(*until),
            _ => None,
        }
    }

    /// The time from the failure to [`Self::retry_at`].
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { wait, .. } => Some(*wait),
            _ => None,
        }
    }
}

fn tail(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(": {message}")
    }
}

fn list(errors: &[String]) -> String {
    if errors.is_empty() {
        String::new()
    } else {
        format!(" ({})", errors.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PLG-LIFECYCLE-003
    #[test]
    fn a_state_that_cannot_be_changed_is_told_in_the_forges_words() {
        let refused = |status, errors: &[&str]| ForgeError::Refused {
            request: "PATCH /repos/o/r/pulls/1".into(),
            status,
            message: "Validation Failed".into(),
            errors: errors.iter().map(|error| (*error).to_owned()).collect(),
        };
        let sentence = "state cannot be changed. The fix branch has been deleted.";
        assert_eq!(
            refused(422, &["other", sentence]).state_cannot_be_changed(),
            Some(sentence)
        );
        assert_eq!(refused(422, &["other"]).state_cannot_be_changed(), None);
        assert_eq!(refused(405, &[sentence]).state_cannot_be_changed(), None);
    }

    #[test]
    fn an_outage_is_what_passes_by_itself() {
        let request = || "PUT /repos/o/r/pulls/1/merge".to_owned();
        let lost = ForgeError::Unavailable {
            request: request(),
            reason: "timed out after 10s".into(),
            maybe_sent: true,
        };
        assert!(lost.is_outage() && lost.maybe_sent());
        insta::assert_snapshot!(lost, @"PUT /repos/o/r/pulls/1/merge: the forge is unavailable: timed out after 10s (the request may have taken effect)");

        let limited = ForgeError::RateLimited {
            request: request(),
            until: Timestamp::UNIX_EPOCH,
            wait: Duration::from_secs(60),
            secondary: true,
        };
        assert!(limited.is_outage() && !limited.maybe_sent());
        assert_eq!(limited.retry_at(), Some(Timestamp::UNIX_EPOCH));
        assert_eq!(limited.retry_after(), Some(Duration::from_secs(60)));

        let refused = ForgeError::Refused {
            request: request(),
            status: 422,
            message: "Validation Failed".into(),
            errors: vec!["state is missing".into()],
        };
        assert!(!refused.is_outage());
        insta::assert_snapshot!(refused, @"PUT /repos/o/r/pulls/1/merge: refused with status 422: Validation Failed (state is missing)");
    }
}
