//! The `trireme` program.

fn main() -> std::process::ExitCode {
    trireme::main()
}
