//! A GitHub-compatible forge in a box: for tests, `trireme dev`, `trireme demo` and chaos.
//!
//! Here stands a pure core ([`forge`]: what GitHub remembers and its rules) under a skin of REST, GraphQL, webhooks and
//! smart-HTTP git over real repositories, with [`faults`] on demand and a [`world`] to tell stories in. It answers what
//! the product asks, as GitHub would, and no more. Nothing on a production path uses it; it trusts whoever reaches it.

mod actor;
mod admin;
mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
mod courier;
mod deliver;
mod engine;
mod exchange;
pub mod faults;
pub mod forge;
mod git;
mod graphql;
mod log;
mod pages;
mod render;
mod rest;
mod sandbox;
mod server;
mod smart_http;
pub mod world;

pub use actor::{Actor, FileChange, MergeSpec, NewCommit, PullRequestSpec};
pub use clock::Clock;
pub use courier::{Courier, Receipt, Unbrought};
pub use deliver::DELIVERY_TIMEOUT;
pub use exchange::{Exchange, MAX_EXCHANGES};
pub use git::GitError;
pub use log::{Entry, Logged, MAX_ENTRIES};
pub use sandbox::{DEFAULT_RATE_LIMIT, Sandbox, SandboxConfig, StartError, Unmet};
pub use server::Cut;
