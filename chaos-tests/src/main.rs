//! `chaos`: runs scenarios and says what came of them. It is the node and the agent too: it starts itself again.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;
use chaos_tests::{
    Verdict, itself,
    scenarios::{Options, Scenario},
};
use clap::{Parser, ValueEnum};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Format {
    /// What happens as it happens, then each verdict.
    #[default]
    Text,
    /// One object per scenario.
    Json,
}

/// Kills real processes and checks that nothing is lost or doubled. Exits 1 when a scenario failed, 2 on wrong usage.
#[derive(Debug, Parser)]
#[command(name = "chaos")]
struct Arguments {
    /// A scenario's name, or all.
    #[arg(long, value_name = "NAME", required_unless_present = "list")]
    scenario: Vec<String>,
    /// Names the scenarios.
    #[arg(long)]
    list: bool,
    /// How often a leader is killed where that can be repeated.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Where scenarios run; what failed is kept there. A temporary directory when absent.
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Keeps the history of what passed too.
    #[arg(long)]
    keep: bool,
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
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime does not start")
        .and_then(|runtime| runtime.block_on(Box::pin(run(arguments))));
    result.unwrap_or_else(|why| {
        // Nobody is left to tell when standard error is closed.
        let _told = writeln!(io::stderr(), "chaos: {why:#}");
        ExitCode::from(2)
    })
}

fn print(text: &str) -> io::Result<()> {
    io::stdout().write_all(text.as_bytes())
}

fn chosen(names: &[String]) -> anyhow::Result<Vec<Scenario>> {
    let mut chosen = Vec::new();
    for name in names {
        if name == "all" {
            chosen.extend(Scenario::ALL);
            continue;
        }
        let found = Scenario::ALL.into_iter().find(|one| one.name() == name);
        chosen.push(found.with_context(|| {
            format!("--scenario {name}: there is no such scenario; --list names them")
        })?);
    }
    Ok(chosen)
}

async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    if arguments.list {
        for scenario in Scenario::ALL {
            print(&format!("{:<40} {}\n", scenario.name(), scenario.about()))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let scenarios = chosen(&arguments.scenario)?;
    let executable = itself::executable()?;
    let (directory, temporary) = match arguments.directory {
        Some(directory) => (std::path::absolute(directory)?, None),
        None => {
            let temporary = tempfile::Builder::new().prefix("chaos-").tempdir()?;
            (temporary.path().to_owned(), Some(temporary))
        }
    };
    let options = Options {
        rounds: arguments.rounds,
        keep: arguments.keep,
    };
    let mut failed = 0;
    for scenario in scenarios {
        let started = std::time::Instant::now();
        let json = arguments.output == Format::Json;
        let tell = move |text: &str| {
            if !json {
                let seconds = started.elapsed().as_secs_f64();
                // A closed standard output shows when the verdict is printed.
                let _told = print(&format!("{seconds:7.1}  {text}\n"));
            }
        };
        if !json {
            print(&format!("{}: {}\n", scenario.name(), scenario.about()))?;
        }
        let place = directory.join(scenario.name());
        let verdict: Verdict = scenario
            .run(executable.clone(), &place, options, Box::new(tell))
            .await
            .with_context(|| place.display().to_string())?;
        print(&match arguments.output {
            Format::Text => format!("{verdict}\n"),
            Format::Json => format!("{}\n", serde_json::to_string(&verdict)?),
        })?;
        failed += usize::from(!verdict.passed);
    }
    if let Some(temporary) = temporary
        && (failed > 0 || options.keep)
    {
        // It stays for whoever looks into it.
        let _kept = temporary.keep();
    }
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
