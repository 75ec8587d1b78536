//! Reporters: what became of a job is told where people look.
//!
//! Here stand the texts of GitHub's statuses and of the results comment, byte for byte as Prow writes them, and the
//! controller that works off the outbox. Here never stand decisions about jobs: what is owed to whom is in the state,
//! and a report changes nothing but its own row.

pub mod comment;
mod controller;
mod github;
mod lane;
mod reporter;
mod settings;

pub use controller::{MAX_TRIES, Outbox};
pub use github::GitHubReporter;
pub use lane::Lane;
pub use reporter::{Owed, Reporter, Told};
pub use trireme_office::{description, status};
