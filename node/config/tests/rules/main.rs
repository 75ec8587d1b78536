//! The rules of configuration and of jobs, one by one: small files, and what they mean or why they are refused. The
//! differential tests ask for the same at large; these stand without upstream's answers.

#![allow(clippy::unwrap_used, reason = "test code")]

mod components;
mod decisions;
mod dialect;
mod files;
mod jobs;
mod layers;
mod plugins;
mod shards;
mod stage;
