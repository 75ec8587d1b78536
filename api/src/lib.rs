//! The doors of every node: webhooks in, gRPC for clients and agents, metrics and health; and the client library.
//!
//! A door validates, proposes and reads. It decides nothing: whoever comes in is checked for shape, size and
//! signature, what he wants becomes a command of the log, and what he asks is answered from the replicated state.
//! Knowledge of Prow's files and of executors is handed in by the node ([`ConfigCheck`], [`RunStore`],
//! [`LeaseRenewals`]).

mod archived;
mod attachments;
pub mod auth;
pub mod blob;
pub mod client;
mod config_health;
pub mod configs;
mod doors;
mod entrance;
mod flow;
pub mod inbox;
mod listen;
mod metrics;
mod neighbours;
mod refusal;
mod run_logs;
mod services;
#[cfg(test)]
mod trio;
mod webhook;

pub use attachments::Attachments;
pub use auth::{AUDIT, Anonymous, AuthConfig, OperatorTokenError};
pub use config_health::{ConfigHealth, ConfigState, Load};
pub use doors::{
    Artifact, Candidate, Checked, ConfigCheck, DebugSource, DoorConfig, DoorError, Doors,
    LeaseRenewals, Retired, RunStore,
};
pub use listen::DoorCertificates;
pub use metrics::Metrics;
pub use run_logs::{BUILD_LOG, LogChunk, RunLogs};
pub use services::config::ConfigDoor;
pub use webhook::{HookSecrets, HookTokens, MAX_WEBHOOK_BYTES};
