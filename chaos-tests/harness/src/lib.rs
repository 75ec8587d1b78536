//! Real node and agent processes, started from the path of an executable, on loopback, each with a directory and a
//! log file of its own; and what is done to them: SIGKILL, SIGSTOP, restart from disk, replacement after a lost disk, other
//! clocks and small disks ([`Ground`]), partitions and bad lines ([`Links`]). Around them, where one is wanted, the
//! sandbox forge whose webhooks lead to them.
//!
//! Given only a path, so that the demo of the binary itself uses it without a cycle. What the processes should
//! achieve is judged by those who start them.

mod address;
mod agent;
mod cluster;
mod hub;
mod links;
mod process;
mod settings;
mod stage;

pub use address::Address;
pub use agent::{AgentProcess, AgentSettings};
pub use cluster::{Cluster, ClusterError, Ended, Member, Refused};
pub use hub::{Hub, MAX_NODES};
pub use links::{Links, Party, Tally, Weather};
pub use process::Executable;
pub use settings::{ClusterSettings, GitHub, Ground, SmallDisk};
pub use stage::{ConfigText, Stage, StageError, StageSettings};
