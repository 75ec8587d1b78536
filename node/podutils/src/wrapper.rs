//! What entrypoint and sidecar agree on for each test container.

use serde::{Deserialize, Serialize};
use trireme_prowjob::go_json::null_as_zero;

/// The files that tie one wrapped process to the sidecar.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WrapperOptions {
    /// The process and its arguments.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_as_zero"
    )]
    pub args: Vec<String>,
    /// Name of the container around it.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_as_zero"
    )]
    pub container_name: String,
    /// Gets its output.
    #[serde(deserialize_with = "null_as_zero")]
    pub process_log: String,
    /// Gets its exit code.
    #[serde(deserialize_with = "null_as_zero")]
    pub marker_file: String,
    /// JSON that the process may write, merged into `finished.json`.
    #[serde(deserialize_with = "null_as_zero")]
    pub metadata_file: String,
}

impl WrapperOptions {
    /// # Errors
    /// When log or marker file is not named.
    pub fn validate(&self) -> Result<(), &'static str> {
        if self.process_log.is_empty() {
            return Err("no log file specified with --process-log");
        }
        if self.marker_file.is_empty() {
            return Err("no marker file specified with --marker-file");
        }
        Ok(())
    }
}
