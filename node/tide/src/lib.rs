//! Tide: what is ready is tested against the newest base, alone or in batches, and merged.
//!
//! Here stands the deciding (pure functions over the mirror of pull requests and our own jobs) and the controller that
//! carries it out: jobs by command, merges by intent, the `tide` status on every open pull request. Here never stand
//! the running of jobs, nor who may approve: Tide reads labels, reviews, contexts and results, and does not make them.
//!
//! A pool is looked at when something about it changes and once per sync period; each look takes at most one action.
//! Everything but the searches' findings is in the state, so that a new holder of the office carries on where the
//! former one stopped: it first settles the merges that were under way, by what the forge shows.

pub mod blockers;
mod config;
mod controller;
pub mod decide;
mod description;
pub mod explain;
mod facts;
mod hold;
mod merge;
pub mod merging;
mod mirror;
mod own;
pub mod policy;
pub mod pool;
pub mod pull;
mod query;
mod resume;
mod retired;
mod session;
mod statuses;
mod sweep;
mod sync;
mod together;
mod trigger;

pub use controller::{Tide, Timing};
