//! The binary as its users meet it: real node and agent processes, asked through their doors, their pages and the
//! command line. One program, because linking it is the slow part.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod checking;
mod cluster;
mod command;
mod configuration;
mod configuration_versions;
mod data_directory;
mod dead_letters;
mod deck;
mod dev;
mod doors;
mod explaining;
mod flood;
mod follow;
mod gone_jobs;
mod operating;
mod prow_jobs;
mod readme;
mod reconciling;
mod replicas;
mod retries;
mod scene;
mod secrets;
mod security;
mod stories;
