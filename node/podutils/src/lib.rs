//! Prow's pod utilities: `clonerefs`, `initupload`, `entrypoint`, `sidecar`, and the decoration that configures them.
//!
//! The four programs read their options from the same variables as Prow's and leave the same files behind, so either
//! side may be exchanged for Prow's. [`main`] is their common door: as a program of its own, by its name (`entrypoint`
//! copied into an image), or as a hidden subcommand of a larger binary. [`local`] runs a whole job with
//! them as plain processes on this host.
//!
//! Never here: the replicated state, the API, Kubernetes. This crate is linked into a small static program that is
//! copied into arbitrary images, so it stays free of all of them.

mod blob_upload;
mod censor;
mod clone;
mod clone_log;
pub mod clonerefs;
mod command_line;
pub mod decorate;
pub mod entrypoint;
mod go_flags;
mod go_process;
pub mod initupload;
pub mod local;
mod marker;
#[cfg(test)]
mod oracle;
pub mod pod;
mod run_metadata;
pub mod sidecar;
mod ssh;
pub mod storage;
mod utility_log;
mod wrapper;

pub use blob_upload::GcsUploadOptions;
pub use command_line::{Utility, main};
pub use wrapper::WrapperOptions;
