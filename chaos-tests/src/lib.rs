//! Chaos scenarios: real node and agent processes and the sandbox forge, disturbed on purpose. Here stand the scenarios
//! ([`scenarios`]), what they are told on ([`scene`]), the record of what happened ([`History`]) and the checkers that
//! judge it ([`checks`]). Beside them a closed loop of clients that measures ([`load`]), and a comparison with etcd
//! ([`compare`]). What is random there is decided by a seed in [`sim`], where nothing is real but the code.
//!
//! Processes are started and killed by `trireme-harness`; nothing here reaches into a node.

// Tests write where they please.
#![cfg_attr(test, allow(clippy::print_stdout))]

pub mod checks;
pub mod compare;
mod history;
pub mod itself;
pub mod load;
mod recorder;
pub mod scenarios;
pub mod scene;
mod sender;
pub mod sim;
mod verdict;

pub use history::{DigestAt, History, Last, Merged, Sent, Watched};
pub use recorder::{Known, Recorder};
pub use verdict::{Counts, Verdict};
