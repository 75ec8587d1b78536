//! `grow`: fills a cluster to the size of a large instance and measures what that costs.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;
use chaos_tests::{
    growth::{Size, grow},
    itself,
};
use clap::{Parser, ValueEnum};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Format {
    /// What happens as it happens, then the figures.
    #[default]
    Text,
    Json,
}

/// Fills a cluster and measures memory, restart, snapshots, joining, watches, and whether writes cost more than before,
/// also while snapshots are saved from outside and while nodes compact their logs.
///
/// Needs some 5 GiB of disk and of memory with the defaults, and a machine that does nothing else.
#[derive(Debug, Parser)]
#[command(name = "grow")]
struct Arguments {
    /// Jobs that wait.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=400_000))]
    live: u64,
    /// Finished runs.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(0..=100_000_000))]
    summaries: u64,
    /// Followers of the change feed.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=3000))]
    watchers: u64,
    /// Of each closed loop of writes. Their jobs stay: more than 500,000 are refused.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Where it runs; a temporary directory when absent.
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

fn main() -> ExitCode {
    if let Some(ended) = itself::as_trireme() {
        return ended;
    }
    let arguments = Arguments::parse();
    // Refused only when somebody installed one before.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    match measure(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // Nobody is left to tell when standard error is closed.
            let _told = writeln!(io::stderr(), "grow: {why:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> anyhow::Result<()> {
    let temporary = tempfile::Builder::new().prefix("grow-").tempdir()?;
    let directory = match &arguments.directory {
        Some(directory) => std::path::absolute(directory)?,
        None => temporary.path().to_owned(),
    };
    let size = Size {
        live: arguments.live,
        summaries: arguments.summaries,
        watchers: arguments.watchers,
        seconds: arguments.seconds,
    };
    let started = std::time::Instant::now();
    let tell = |text: &str| {
        if arguments.output == Format::Text {
            let seconds = started.elapsed().as_secs_f64();
            // A closed standard output shows when the figures are printed.
            let _told = writeln!(io::stdout(), "{seconds:7.1}  {text}");
        }
    };
    let runtime = tokio::runtime::Runtime::new().context("the runtime does not start")?;
    let growth = runtime.block_on(Box::pin(grow(
        itself::executable()?,
        &directory,
        size,
        tell,
    )))?;
    match arguments.output {
        Format::Text => write!(io::stdout(), "{growth}")?,
        Format::Json => writeln!(io::stdout(), "{}", serde_json::to_string(&growth)?)?,
    }
    Ok(())
}
