//! `compare-etcd`: see `chaos-tests/compare-etcd`, which starts it.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use chaos_tests::{
    compare::{Contestant, Settings, compare, failovers},
    itself,
    load::Operation,
};
use clap::{Parser, ValueEnum};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Format {
    /// A line for each measurement as it is made, then a table.
    #[default]
    Text,
    /// One object at the end.
    Json,
}

/// Compares Trireme with etcd: both with the same number of nodes on the same disk, in turns.
///
/// A put is durable on a majority before it is answered, a read is linearizable. The ceiling is the same Trireme with its
/// log on a file system in memory, where a sync costs nothing. Nothing else should run meanwhile.
#[derive(Debug, Parser)]
#[command(name = "compare-etcd")]
struct Arguments {
    /// How often every measurement is made. 0: only the failovers.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=100))]
    rounds: u32,
    /// How long each takes. Jobs stay: where 30,000 are made a second, 15 s and the warm-up meet the bound of 500,000 jobs in
    /// memory.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// op:clients, comma-separated; op is put, read or mixed.
    #[arg(long, value_delimiter = ',', value_parser = parse_cell,
          default_value = "put:1,put:64,put:256,read:64,mixed:64")]
    cells: Vec<(Operation, u64)>,
    #[arg(long, default_value_t = 512)]
    value_bytes: usize,
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=7))]
    nodes: u64,
    /// How often the leader is killed, in each system; nobody is by default.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1000))]
    kills: u32,
    /// On the disk that is compared. A temporary directory when absent.
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// On a file system in memory, for the ceiling.
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    ceiling_directory: PathBuf,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

fn parse_cell(text: &str) -> Result<(Operation, u64), String> {
    let wrong = || format!("{text:?}: put:64, read:64 or mixed:64 is meant");
    let (operation, clients) = text.split_once(':').ok_or_else(wrong)?;
    let operation = Operation::from_str(operation, false).map_err(|_| wrong())?;
    let clients = clients.parse().map_err(|_| wrong())?;
    if (1..=10_000).contains(&clients) {
        Ok((operation, clients))
    } else {
        Err(format!("{text:?}: from 1 to 10000 clients"))
    }
}

fn main() -> ExitCode {
    if let Some(ended) = itself::as_trireme() {
        return ended;
    }
    let arguments = Arguments::parse();
    // Refused only when somebody installed one before.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let result = tokio::runtime::Runtime::new()
        .context("the runtime does not start")
        .and_then(|runtime| runtime.block_on(Box::pin(run(arguments))));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // Nobody is left to tell when standard error is closed.
            let _told = writeln!(io::stderr(), "compare-etcd: {why:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let temporary = tempfile::Builder::new().prefix("compare-").tempdir()?;
    let directory = match arguments.directory {
        Some(directory) => std::path::absolute(directory)?,
        None => temporary.path().to_owned(),
    };
    let json = arguments.output == Format::Json;
    let tell = |text: &str| {
        if !json {
            // A closed standard output shows when the table is printed.
            let _told = writeln!(io::stdout(), "{text}");
        }
    };
    let settings = Settings {
        executable: itself::executable()?,
        directory: directory.clone(),
        ceiling_directory: arguments.ceiling_directory,
        rounds: arguments.rounds,
        nodes: arguments.nodes,
        cells: arguments.cells,
        value_bytes: arguments.value_bytes,
        warm_up: Duration::from_secs(2),
        measured: Duration::from_secs(arguments.seconds),
    };
    std::fs::create_dir_all(&directory)?;
    let mut report = compare(&settings, tell).await?;
    if arguments.kills > 0 {
        for contestant in [Contestant::Etcd, Contestant::Trireme] {
            let killed = failovers(
                contestant,
                &settings.executable,
                &directory,
                settings.nodes,
                arguments.kills,
                tell,
            );
            report.failovers.push(killed.await?);
        }
    }
    let text = match arguments.output {
        Format::Text => format!("\n{report}"),
        Format::Json => format!("{}\n", serde_json::to_string(&report)?),
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(())
}
