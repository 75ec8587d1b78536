//! The differential tests: this crate's answers against upstream's own, where those are present beside the project.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "test code")]

mod answers;
mod corpus;
mod crons;
mod decisions;
mod durations;
mod explanations;
mod load;
mod prowjobs;
mod regexes;
mod schemas;
mod sections;
mod synthetic;
mod waived;
mod warnings;
mod yaml;
