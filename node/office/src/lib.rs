//! What every controller stands on: the [`Office`] it acts in, the [`KeyedQueue`] it works through, and the
//! [`Keeper`] that starts all controllers when this node takes office and ends them when it leaves.
//!
//! A controller is level-triggered: it scans the view when it starts, then follows the watch, and keeps nothing in
//! memory that a new leader could not rebuild. What it decides it records as commands in the name of its office; a
//! command of any other office is rejected by `apply`. No forge is asked here, and nothing is decided about jobs; what
//! several controllers would otherwise each have for themselves stands here: the deltas of the configuration, the rule of
//! trust, the record of a new run, the description of a status.

mod config;
mod deltas;
pub mod description;
mod keeper;
mod office;
mod queue;
mod runs;
pub mod status;
mod trust;

pub use config::{ConfigFeed, RunningConfig};
pub use deltas::{ConfigDelta, ConfigDeltas, ConfigVersions, DeltaError, Pace, VersionError};
pub use keeper::{Controller, ControllerError, Keeper, unfit_alarm};
pub use office::{Office, OfficeError};
pub use queue::{Backoff, KeyedQueue, Share, Work};
pub use runs::{PullRun, RecordError, repo_page, run_record};
pub use trust::{OK_TO_TEST, TrustRule};
