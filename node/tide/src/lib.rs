//! Tide: what is ready is tested against the newest base, alone or in batches, and merged.
//!
//! Here stands the deciding (pure functions over the mirror of pull requests and our own jobs) and the controller that
//! carries it out: jobs by command, merges by intent, the `tide` status on every open pull request. Here never stand
//! the running of jobs, nor who may approve: Tide reads labels, reviews, contexts and results, and does not make them.

pub mod blockers;
pub mod decide;
mod description;
pub mod explain;
pub mod merging;
pub mod policy;
pub mod pool;
pub mod pull;
pub mod query;
