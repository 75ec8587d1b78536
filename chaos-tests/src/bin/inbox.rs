//! `inbox`: offers webhooks at a fixed rate and judges what became of each.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use chaos_tests::{
    inbox::{Offer, offer},
    itself,
};
use clap::{Parser, ValueEnum};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Format {
    /// What happens as it happens, then the account.
    #[default]
    Text,
    Json,
}

/// Floods a cluster with webhooks and judges what became of each: taken or refused with 503, and what was taken handled
/// once, in order, whatever the forge does meanwhile.
///
/// With the defaults more is offered than small machines handle at once: the backlog is part of the account. Exits 1 when
/// a promise is broken.
#[derive(Debug, Parser)]
#[command(name = "inbox")]
struct Arguments {
    /// Webhooks a second.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=20_000))]
    rate: u64,
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Pull requests that they are about, in turn: lanes.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pulls: u64,
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=5))]
    nodes: u64,
    /// The forge answers every call with 503 from this second on.
    #[arg(long, value_name = "SECONDS", requires = "away_for")]
    away_after: Option<u64>,
    #[arg(long, value_name = "SECONDS", requires = "away_after")]
    away_for: Option<u64>,
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
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            // Nobody is left to tell when standard error is closed.
            let _told = writeln!(io::stderr(), "inbox: {why:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every promise was kept.
fn measure(arguments: &Arguments) -> anyhow::Result<bool> {
    let temporary = tempfile::tempdir()?;
    let directory = arguments
        .directory
        .clone()
        .unwrap_or_else(|| temporary.path().to_owned());
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("cannot use {}", directory.display()))?;
    let seconds = Duration::from_secs;
    let wanted = Offer {
        rate: arguments.rate,
        lasting: seconds(arguments.seconds),
        pulls: arguments.pulls,
        nodes: arguments.nodes,
        away: arguments
            .away_after
            .zip(arguments.away_for)
            .map(|(after, lasting)| (seconds(after), seconds(lasting))),
    };
    let tell = |line: String| {
        // Progress is for whoever looks.
        let _told = writeln!(io::stderr(), "{line}");
    };
    let runtime = tokio::runtime::Runtime::new()?;
    let account = runtime.block_on(offer(itself::executable()?, &directory, wanted, tell))?;
    let text = match arguments.output {
        Format::Json => serde_json::to_string(&account)?,
        Format::Text => account.to_string(),
    };
    writeln!(io::stdout(), "{text}")?;
    Ok(account.broken.is_empty())
}
