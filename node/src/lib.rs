//! One binary: `serve` runs a node, `agent` a worker, `demo` and `dev` a whole world on this machine; the other verbs
//! are an operator's. Here the parts are put together; what they do stands in their own crates.

// Tests write where they please.
#![cfg_attr(test, allow(clippy::print_stdout))]

pub mod cli;
mod clusters;
pub mod commands;
pub mod configuration;
mod debug_source;
pub mod demo;
pub mod exit;
mod follow;
mod forge_cache;
mod go_flags;
pub mod output;
pub mod plugin_help;
pub mod plugin_settings;
mod recent_log;
pub mod run_store;
mod secrets;
pub mod serve;
pub mod settings;
mod worker;

use std::{ffi::OsString, io::IsTerminal as _, path::Path, process::ExitCode, sync::OnceLock};

use clap::{CommandFactory as _, Parser as _};
use tracing_subscriber::{EnvFilter, fmt, prelude::*};

use cli::{Cli, Command};
use recent_log::RecentLog;
use secrets::{Censor, Censored};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What comes before the verbs when this program starts itself again.
static PREFIX: OnceLock<Vec<OsString>> = OnceLock::new();

/// Runs the program with the arguments of this process.
#[must_use]
pub fn main() -> ExitCode {
    run_program(std::env::args_os().collect())
}

/// For programs that re-execute themselves as this one: `prefix` stands between their own name and the verb.
#[must_use]
pub fn main_after(prefix: &[OsString]) -> ExitCode {
    // Set once, by the one main of a process.
    let _set = PREFIX.set(prefix.to_vec());
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    arguments.drain(1..arguments.len().min(1 + prefix.len()));
    run_program(arguments)
}

fn run_program(arguments: Vec<OsString>) -> ExitCode {
    // The pod utilities come before everything else: they are started for every job and want none of the rest.
    let copied = arguments
        .first()
        .and_then(|name| trireme_podutils::Utility::by_program_name(Path::new(name)));
    if copied.is_some() {
        return trireme_podutils::main(arguments);
    }
    if arguments.get(1).is_some_and(|verb| verb == "podutils") {
        return trireme_podutils::main(arguments.into_iter().skip(1));
    }
    let cli = Cli::parse_from(go_flags::doubled(&Cli::command(), arguments));
    // Refused only when somebody installed one before.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    start_log(&cli.command);
    log_panics();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(why) => return fail(&why.into()),
    };
    let result = runtime.block_on(Box::pin(run(cli.command)));
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => fail(&why),
    }
}

async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve(args) => serve::run(args).await,
        Command::Agent(args) => worker::run(args).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Dev(args) => demo::dev(args).await,
        Command::Get(command) => commands::get::run(command).await,
        Command::Logs(args) => commands::runs::logs(args).await,
        Command::Abort(args) => commands::runs::abort(args).await,
        Command::Rerun(args) => commands::runs::rerun(args).await,
        Command::Deliveries(command) => commands::deliveries::run(command).await,
        Command::Config(command) => commands::config::run(command).await,
        Command::Cluster(command) => commands::cluster::run(command).await,
        Command::Token(command) => commands::token::run(command).await,
        Command::Certs(command) => commands::certs::run(&command),
        Command::Snapshot(command) => commands::snapshot::run(command).await,
        Command::Recover(args) => commands::recover::run(args).await,
        Command::Debug(command) => commands::debug::run(command).await,
        Command::Checkconfig(args) => commands::checkconfig::run(*args).await,
        Command::Schema(args) => commands::schema::run(&args),
        Command::Hooks(args) => commands::hooks::run(*args).await,
        Command::Mkpj(args) => commands::mkpj::run(*args).await,
        Command::Mkpod(args) => commands::mkpod::run(&args),
        Command::Podutils { .. } => anyhow::bail!("handled before"),
    }
}

fn fail(why: &anyhow::Error) -> ExitCode {
    #[expect(
        clippy::print_stderr,
        reason = "this is where a program says why it failed"
    )]
    {
        eprintln!("trireme: {}", Censor::of_process().clean_text(&words(why)));
    }
    exit::code(why)
}

/// What a node answered stands for itself; everything else is told with its causes.
fn words(why: &anyhow::Error) -> String {
    let answered = why
        .chain()
        .find_map(|cause| cause.downcast_ref::<tonic::Status>());
    answered.map_or_else(|| format!("{why:#}"), |status| status.message().to_owned())
}

/// Servers log; verbs only when asked to, on standard error.
fn start_log(command: &Command) {
    let default = match command {
        // openraft tells every step of every election at info.
        Command::Serve(_) | Command::Agent(_) => "info,openraft=warn",
        _ => "off",
    };
    let filter = EnvFilter::try_from_env("TRIREME_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let layer = fmt::layer()
        .with_writer(Censored::new(Censor::of_process(), std::io::stderr))
        .with_ansi(std::io::stderr().is_terminal());
    // What a debug bundle shows is the same, whatever the terminal shows; without the line that each change leaves, or a
    // busy node would soon keep nothing else.
    let recent = matches!(command, Command::Serve(_)).then(|| {
        fmt::layer()
            .with_writer(Censored::new(Censor::of_process(), RecentLog::of_process()))
            .with_ansi(false)
            .with_filter(EnvFilter::new(format!(
                "{default},{}=off",
                trireme_api::AUDIT
            )))
    });
    tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .with(recent)
        .init();
}

/// Panics are told as everything else is: through the censor, and to debug bundles.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("no message");
        let place = panic.location().map(ToString::to_string);
        let place = place.as_deref().unwrap_or("an unknown place");
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("without a name");
        // As RUST_BACKTRACE has it.
        let backtrace = std::backtrace::Backtrace::capture();
        if tracing::enabled!(tracing::Level::ERROR) {
            tracing::error!(thread, place, %backtrace, "panicked: {message}");
            return;
        }
        let told = format!("thread {thread} panicked at {place}: {message}\n{backtrace}");
        #[expect(
            clippy::print_stderr,
            reason = "verbs have no log unless they are asked to"
        )]
        {
            eprintln!("trireme: {}", Censor::of_process().clean_text(&told));
        }
    }));
}

/// Asks the kernel to end this process with the one that started it.
fn exit_with_parent() -> anyhow::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    Ok(())
}

/// Resolves on SIGTERM or SIGINT.
async fn interrupted() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CFG-097: a panic's message goes through the censor to the log that debug bundles show.
    #[test]
    fn cfg_097_panics_are_censored_and_kept() {
        let (censor, log) = (Censor::default(), RecentLog::default());
        censor.hide("test", vec![b"secret-of-a-panic".to_vec()]);
        let subscriber = tracing_subscriber::registry().with(
            fmt::layer()
                .with_writer(Censored::new(censor, log.clone()))
                .with_ansi(false),
        );
        let before = std::panic::take_hook();
        log_panics();
        let told = tracing::subscriber::with_default(subscriber, || {
            std::panic::catch_unwind(|| panic!("it holds secret-of-a-panic"))
        });
        std::panic::set_hook(before);
        assert!(told.is_err());
        let text = log.text();
        assert!(
            text.contains("panicked: it holds XXXXXXXXXXXXXXXXX"),
            "{text}"
        );
        assert!(text.contains("node/src/lib.rs:"), "{text}");
    }
}
