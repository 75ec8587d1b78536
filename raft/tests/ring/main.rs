//! Behaviour of a cluster of stores, told as stories: nodes in this process, over real sockets and files.

#![allow(
    clippy::unwrap_used,
    reason = "a test that does not get what it needs has failed"
)]

mod audits;
mod clocks;
mod failover;
mod fixtures;
mod levels;
mod linearizable_reads;
mod membership;
mod offline;
mod peer_tls;
mod quotas;
mod restarting;
mod rotting;
mod snapshots;
mod space;
mod stopping;
mod support;
mod under_load;
mod watching;
mod writing_and_reading;
