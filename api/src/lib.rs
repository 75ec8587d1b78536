//! The doors of every node: webhooks in, gRPC for clients and agents, metrics and health; and the client library.
//!
//! A door validates, proposes and reads. It decides nothing: whoever comes in is checked for shape, size and
//! signature, what he wants becomes a command of the log, and what he asks is answered from the replicated state.
//! Knowledge of Prow's files and of executors is handed in by the node ([`ConfigCheck`], [`RunStore`],
//! [`LeaseRenewals`]).

mod attachments;
pub mod blob;
pub mod client;
mod doors;
mod metrics;
mod refusal;
mod run_logs;
mod services;
mod webhook;

pub use attachments::Attachments;
pub use doors::{
    Artifact, Checked, ConfigCheck, DebugSource, DoorConfig, Doors, LeaseRenewals, RunStore,
};
pub use metrics::Metrics;
pub use run_logs::{BUILD_LOG, LogChunk, RunLogs};
pub use webhook::{HookSecrets, MAX_WEBHOOK_BYTES};
