//! Behaviour of the replicated state, told as stories. Every entry that a test applies goes through [`replica`], which
//! checks what must hold always.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod agents_and_leases;
mod archive;
mod audits;
mod concurrency;
mod config_and_blobs;
mod config_pages;
mod deliveries_and_plans;
mod job_creation;
mod job_history;
mod job_lifecycle;
mod merge_intents;
mod office;
mod properties;
mod pull_requests;
mod quotas;
mod replica;
mod reports;
mod requests;
mod small_records;
mod snapshots;
mod tokens;
