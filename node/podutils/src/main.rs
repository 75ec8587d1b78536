//! The pod utilities as a small program of their own.

use std::process::ExitCode;

fn main() -> ExitCode {
    trireme_podutils::main(std::env::args_os())
}
