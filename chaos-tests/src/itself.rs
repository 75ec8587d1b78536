//! Programs of this crate are the node and the agent too: they start themselves again.

use std::{io, process::ExitCode};

use trireme_harness::Executable;

/// Before the verbs of `trireme`.
const AS_TRIREME: &str = "trireme";

/// Runs `trireme` when this process was started as it; the first thing that a program's `main` does.
#[must_use]
pub fn as_trireme() -> Option<ExitCode> {
    let first = std::env::args_os().nth(1)?;
    (first == AS_TRIREME).then(|| trireme::main_after(&[AS_TRIREME.into()]))
}

/// This program, to be started as `trireme`.
///
/// # Errors
/// When the system does not say where it lies.
pub fn executable() -> io::Result<Executable> {
    Ok(Executable {
        program: std::env::current_exe()?,
        prefix: vec![AS_TRIREME.to_owned()],
        variables: Vec::new(),
    })
}
