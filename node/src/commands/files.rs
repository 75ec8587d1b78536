//! Prow's files, from the flags that Prow itself has.

use trireme_config::{Diagnostic, FileSet, Layout, files};

use crate::cli::FileArgs;

/// Reads all of them.
///
/// # Errors
/// What is missing or cannot be read.
pub fn read(args: &FileArgs) -> Result<FileSet, Vec<Diagnostic>> {
    files::read(Layout {
        config: args.config_path.display().to_string(),
        jobs: args
            .job_config_path
            .as_ref()
            .map(|path| path.display().to_string()),
        plugins: args
            .plugin_config
            .as_ref()
            .map(|path| path.display().to_string()),
        ..Layout::default()
    })
}
