//! Reporters: what became of a job is told where people look.
//!
//! Here stand the texts of GitHub's statuses and of the results comment, byte for byte as Prow writes them, and the
//! controller that works off the outbox. Here never stand decisions about jobs: what is owed to whom is in the state,
//! and a report changes nothing but its own row.

pub mod comment;
pub mod description;
pub mod status;
