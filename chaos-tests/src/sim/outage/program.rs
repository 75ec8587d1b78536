//! The absence as a program.

use std::{
    io::{self, Write as _},
    process::ExitCode,
    thread,
    time::Duration,
};

use clap::{Parser, ValueEnum};
use tempfile::TempDir;
use trireme_forge::git::{MirrorLimits, Mirrors, MirrorsOptions};

use super::{Options, account::real, run};
use crate::sim::{
    Tail,
    program::{end_when_hung, tell_what_nodes_do},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Format {
    #[default]
    Text,
    Json,
}

/// Takes the forge away for an hour of simulated time while webhooks come, and judges what became of each: handled, once,
/// in order, without a try used up; how often the dead forge was asked; how fast the backlog was worked off.
///
/// Three nodes with the real doors, consensus, plugins and GitHub client, over a simulated network and the sandbox's API. The
/// forge loses answers, answers with 503, refuses connections, is silent, and limits with 403 in turn. The leader is killed
/// while the forge is away, and while the backlog is worked off. Exits 1 when a promise is broken; the same seed of the same
/// build runs the same again.
#[derive(Debug, Parser)]
#[command(name = "outage")]
struct Arguments {
    /// Decides everything.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// 1, 3 or 5.
    #[arg(long, default_value_t = 3, value_parser = nodes)]
    nodes: u64,
    /// Webhooks a second that people cause; what plugins write causes more.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1000))]
    rate: u64,
    /// For how long they do.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Pull requests that they are about.
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pulls: u64,
    /// The forge is away from this second on.
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=3600))]
    away_after: u64,
    #[arg(long, value_name = "MINUTES", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=1440))]
    away_minutes: u64,
    /// Keeps a line of everything that happened.
    #[arg(long, value_name = "FILE")]
    trace: Option<std::path::PathBuf>,
    /// Gives up after so long, in real time, and tells the last lines of the trace.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..))]
    patience: u64,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

fn nodes(text: &str) -> Result<u64, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        "5" => Ok(5),
        _ => Err("take 1, 3 or 5".to_owned()),
    }
}

/// Runs what the command line asks for. `prepare` gives the seed the whole process, before anything draws from chance.
#[must_use]
pub fn main(prepare: impl FnOnce(u64)) -> ExitCode {
    let arguments = Arguments::parse();
    match tell(&arguments, prepare) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            // Nobody is left to tell when standard error is closed.
            let _told = writeln!(io::stderr(), "outage: {why:#}");
            ExitCode::from(2)
        }
    }
}

/// Mirrors that are never asked for anything. They look for git, which a simulation cannot.
fn no_mirrors() -> anyhow::Result<(TempDir, Mirrors)> {
    let temporary = tempfile::tempdir()?;
    let options = MirrorsOptions {
        dir: temporary.path().to_owned(),
        remote: "http://github.simulated".parse()?,
        credentials: None,
        limits: MirrorLimits::default(),
    };
    let runtime = tokio::runtime::Runtime::new()?;
    let mirrors = runtime.block_on(Mirrors::open(options))?;
    Ok((temporary, mirrors))
}

/// Whether every promise was kept.
fn tell(arguments: &Arguments, prepare: impl FnOnce(u64)) -> anyhow::Result<bool> {
    let began = real();
    // What draws from chance before the seed decides it does so for its own thread.
    let opened = thread::spawn(no_mirrors).join();
    let (_temporary, mirrors) = opened.map_err(|_| anyhow::anyhow!("there are no mirrors"))??;
    prepare(arguments.seed);
    tell_what_nodes_do();
    let (tail, patience) = (Tail::default(), arguments.patience);
    let options = Options {
        seed: arguments.seed,
        nodes: arguments.nodes,
        rate: arguments.rate,
        lasting: Duration::from_secs(arguments.seconds),
        pulls: arguments.pulls,
        away_after: Duration::from_secs(arguments.away_after),
        away_for: Duration::from_secs(arguments.away_minutes * 60),
        trace: arguments.trace.clone(),
        tail: tail.clone(),
    };
    end_when_hung("outage: it", patience, tail)?;
    let mut account = run(&options, mirrors)?;
    account.real_s = real().saturating_sub(began).as_secs_f64();
    let text = match arguments.output {
        Format::Json => serde_json::to_string(&account)?,
        Format::Text => account.to_string(),
    };
    writeln!(io::stdout(), "{text}")?;
    Ok(account.broken.is_empty())
}
