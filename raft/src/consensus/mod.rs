//! The only module that names openraft's types: its API moves between pre-releases.

mod log_storage;
mod state_machine;
#[cfg(test)]
mod suite;
mod types;
