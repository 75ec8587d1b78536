//! Chaos scenarios: real node and agent processes and the sandbox forge, disturbed on purpose. Here stand the scenarios
//! ([`scenarios`]), what they are told on ([`scene`]), the record of what happened ([`History`]) and the checkers that
//! judge it ([`checks`]). A [`run`] is told on the same scene: people, clients and followers go on while nemeses
//! ([`nemesis`]) are done to the nodes. Beside them an idle cluster on a busy machine ([`idle`]), a closed loop of clients
//! that measures ([`load`]), a flood of webhooks ([`inbox`]), a comparison with etcd ([`compare`]), and a cluster of a large instance's size ([`growth`]).
//! What is random there is decided by a seed in [`sim`], where nothing is real but the code; in [`sim::outage`] the forge
//! is away for an hour of its time.
//!
//! Processes are started and killed by `trireme-harness`; nothing here reaches into a running node.

// Tests write where they please.
#![cfg_attr(test, allow(clippy::print_stdout))]

mod archive;
pub mod checks;
pub mod compare;
mod dice;
pub mod growth;
mod history;
pub mod idle;
pub mod inbox;
pub mod itself;
pub mod load;
pub mod nemesis;
mod recorder;
pub mod registers;
pub mod run;
pub mod scenarios;
pub mod scene;
mod sender;
pub mod sim;
mod verdict;

pub use history::{DigestAt, History, Last, Merged, Sent, Watched};
pub use recorder::{Known, Recorder};
pub use verdict::{Counts, Verdict};
