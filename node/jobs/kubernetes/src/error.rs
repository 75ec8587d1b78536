//! What a cluster answered instead of doing it.

use kube::Error;

/// Why nothing was done, or not known to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KubernetesError {
    #[error(
        "no k8s client is found for build cluster: '{cluster}'; the kubeconfig files have the contexts {known}: add the cluster \
         to one of them and restart the node, or correct the name"
    )]
    UnknownCluster { cluster: String, known: String },
    /// Nothing usable came back, or that the server cannot do it now. Passes by itself.
    #[error("{what}: {reason}")]
    Unavailable { what: String, reason: String },
    /// Others changed the object each time that we had read it. Passes by itself.
    #[error("{what}: others changed it {attempts} times in a row while it was being written")]
    Contended { what: String, attempts: u32 },
    /// For good, until somebody changes something: no right, no namespace, not valid.
    #[error("{what}: {code}: {message}")]
    Refused {
        what: String,
        code: u16,
        message: String,
    },
}

impl KubernetesError {
    /// Passes by itself: pause, then try the same again.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Contended { .. })
    }

    pub(crate) fn of(what: &str, error: Error) -> Self {
        let what = what.to_owned();
        match error {
            Error::Api(status) if !is_outage(status.code) => Self::Refused {
                what,
                code: status.code,
                message: status.message,
            },
            Error::Api(status) => Self::Unavailable {
                what,
                reason: format!("{}: {}", status.code, status.message),
            },
            error => Self::Unavailable {
                what,
                reason: chain(&error),
            },
        }
    }
}

/// Wrong credentials are for somebody to put right.
fn is_outage(code: u16) -> bool {
    matches!(code, 401 | 408 | 429 | 500..)
}

/// An error and its causes: the outermost of kube's says nothing of why.
fn chain(error: &dyn std::error::Error) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !told.contains(&text) {
            told = format!("{told}: {text}");
        }
        cause = error.source();
    }
    told
}
