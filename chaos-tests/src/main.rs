//! `chaos`: tells scenarios, disturbs runs, and says what came of them. It is the node and the agent too: it starts itself again.

use std::{
    io::{self, Write as _},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use chaos_tests::{
    Verdict,
    idle::idle,
    itself,
    nemesis::{Machine, Nemesis},
    run,
    scenarios::{Options, Scenario},
    scene::Teller,
};
use clap::{Parser, ValueEnum};
use trireme_harness::{Executable, Hub};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Format {
    /// What happens as it happens, then each verdict.
    #[default]
    Text,
    /// One object per scenario.
    Json,
}

/// Where the nodes listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Network {
    /// Namespaces where the machine allows them, else loopback.
    #[default]
    Auto,
    /// A network namespace for each node.
    Namespaces,
    Loopback,
}

/// Kills and disturbs real processes and checks that nothing is lost or doubled.
///
/// Three ways: a scenario (--scenario), which tells one story; a run (--minutes), in which nemeses come one after the
/// other while clients and people go on; idle nodes on a busy machine (--idle-minutes). Exits 1 when something failed or
/// was violated, 2 on wrong usage, 3 when nothing failed but something was skipped: what was not done did not pass.
#[derive(Debug, Parser)]
#[command(name = "chaos")]
#[command(group = clap::ArgGroup::new("what").required(true).args(["scenario", "minutes", "idle_minutes", "list"]))]
struct Arguments {
    /// A scenario's name, or all.
    #[arg(long, value_name = "NAME")]
    scenario: Vec<String>,
    /// Names the scenarios and the nemeses.
    #[arg(long)]
    list: bool,
    /// How long nemeses come in a run.
    #[arg(long, value_name = "M", value_parser = minutes)]
    minutes: Option<Duration>,
    /// Comma-separated names, or all.
    #[arg(long, value_name = "NAMES", default_value = "all")]
    nemesis: String,
    /// How many nodes a run has.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(2..=7))]
    nodes: u64,
    /// Gives the same choices again. Chosen, and printed, when absent.
    #[arg(long)]
    seed: Option<u64>,
    #[arg(long, value_enum, default_value_t)]
    network: Network,
    /// Set by this program for itself when it stands in namespaces of its own.
    #[arg(long, hide = true)]
    in_namespaces: bool,
    /// How long three idle nodes are looked at beside four busy processes; nobody may be elected.
    #[arg(long, value_name = "M", value_parser = minutes)]
    idle_minutes: Option<Duration>,
    /// An older trireme, for rolling-upgrade; chaos-tests/upgrade builds one and runs it.
    #[arg(long, value_name = "PATH")]
    former: Option<PathBuf>,
    /// How often a leader is killed where that can be repeated.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Where it runs; the history of a run and what failed is kept there. A temporary directory when absent.
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Keeps what passed too: a scenario's history, a run's data.
    #[arg(long)]
    keep: bool,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Up to a day; halves are allowed.
fn minutes(text: &str) -> Result<Duration, String> {
    let minutes: f64 = text.parse().map_err(|why| format!("{why}"))?;
    if minutes > 0.0 && minutes <= 24.0 * 60.0 {
        Ok(Duration::from_secs_f64(minutes * 60.0))
    } else {
        Err("more than 0, at most 1440".to_owned())
    }
}

/// Puts this process into namespaces of its own, or says why not. Does not return when it succeeds.
fn into_namespaces() -> String {
    let program = match Hub::is_allowed().and_then(|()| std::env::current_exe()) {
        Ok(program) => program,
        Err(why) => return why.to_string(),
    };
    let why = Hub::command(&program)
        .args(std::env::args_os().skip(1))
        .arg("--in-namespaces")
        .exec();
    why.to_string()
}

/// What came of making namespaces for the nodes.
fn hub(arguments: &Arguments) -> anyhow::Result<Result<Hub, String>> {
    let hub = match arguments.network {
        _ if arguments.in_namespaces => Hub::make().map_err(|why| why.to_string()),
        Network::Loopback => Err("as asked for".to_owned()),
        Network::Auto | Network::Namespaces => Err(into_namespaces()),
    };
    match hub {
        Err(why) if arguments.network == Network::Namespaces => {
            anyhow::bail!("--network namespaces: {why}")
        }
        hub => Ok(hub),
    }
}

fn main() -> ExitCode {
    if let Some(ended) = itself::as_trireme() {
        return ended;
    }
    let arguments = Arguments::parse();
    let hub = if arguments.minutes.is_some() {
        // Before any thread: this process may become another.
        hub(&arguments)
    } else {
        Ok(Err("nothing to be parted".to_owned()))
    };
    // Refused only when somebody installed one before.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime does not start")
        .and_then(|runtime| runtime.block_on(Box::pin(start(arguments, hub?))));
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

fn list() -> io::Result<()> {
    for scenario in Scenario::ALL {
        print(&format!("{:<40} {}\n", scenario.name(), scenario.about()))?;
    }
    print("\nnemeses of a run:\n")?;
    for nemesis in Nemesis::ALL {
        print(&format!("{:<40} {}\n", nemesis.name(), nemesis.about()))?;
    }
    Ok(())
}

/// Says what happens as it happens, with the time.
fn teller(format: Format) -> Teller {
    let started = std::time::Instant::now();
    Box::new(move |text: &str| {
        if format == Format::Text {
            let seconds = started.elapsed().as_secs_f64();
            // A closed standard output shows when the verdict is printed.
            let _told = print(&format!("{seconds:7.1}  {text}\n"));
        }
    })
}

async fn disturb(
    arguments: &Arguments,
    duration: Duration,
    hub: Result<Hub, String>,
) -> anyhow::Result<ExitCode> {
    let nemeses = Nemesis::parse(&arguments.nemesis)?;
    let directory = match &arguments.directory {
        Some(directory) => std::path::absolute(directory)?,
        None => tempfile::Builder::new().prefix("chaos-").tempdir()?.keep(),
    };
    std::fs::create_dir_all(&directory)?;
    let settings = run::Settings {
        executable: itself::executable()?,
        machine: Machine::look(hub, &directory),
        nodes: arguments.nodes,
        duration,
        seed: arguments.seed.unwrap_or_else(rand::random),
        nemeses,
        keep: arguments.keep,
        directory,
    };
    let tell = teller(arguments.output);
    tell(&format!("seed {}", settings.seed));
    let report = Box::pin(run::run(&settings, tell)).await;
    let report = report.with_context(|| settings.directory.display().to_string())?;
    print(&match arguments.output {
        Format::Text => report.to_string(),
        Format::Json => format!("{}\n", serde_json::to_string(&report)?),
    })?;
    Ok(match report.word() {
        "passed" => ExitCode::SUCCESS,
        "INCOMPLETE" => ExitCode::from(3),
        _ => ExitCode::FAILURE,
    })
}

async fn stay_idle(arguments: &Arguments, duration: Duration) -> anyhow::Result<ExitCode> {
    let temporary = tempfile::Builder::new().prefix("chaos-").tempdir()?;
    let directory = match &arguments.directory {
        Some(directory) => std::path::absolute(directory)?,
        None => temporary.path().to_owned(),
    };
    let tell = teller(arguments.output);
    let idle = Box::pin(idle(
        itself::executable()?,
        &directory,
        arguments.nodes,
        duration,
        tell,
    ))
    .await?;
    print(&match arguments.output {
        Format::Text => idle.to_string(),
        Format::Json => format!("{}\n", serde_json::to_string(&idle)?),
    })?;
    Ok(if idle.passed() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn start(arguments: Arguments, hub: Result<Hub, String>) -> anyhow::Result<ExitCode> {
    if arguments.list {
        list()?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(duration) = arguments.minutes {
        return disturb(&arguments, duration, hub).await;
    }
    if let Some(duration) = arguments.idle_minutes {
        return stay_idle(&arguments, duration).await;
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
    let former = arguments.former.as_ref().map(std::path::absolute);
    let options = Options {
        rounds: arguments.rounds,
        keep: arguments.keep,
        former: former.transpose()?.map(Executable::new),
    };
    let (mut failed, mut skipped) = (0, 0);
    for scenario in scenarios {
        if !scenario.is_possible(&options) {
            skipped += 1;
            writeln!(
                io::stderr(),
                "chaos: {} is skipped: it needs an older build, --former PATH",
                scenario.name()
            )?;
            continue;
        }
        if arguments.output == Format::Text {
            print(&format!("{}: {}\n", scenario.name(), scenario.about()))?;
        }
        let place = directory.join(scenario.name());
        let verdict: Verdict = scenario
            .run(
                executable.clone(),
                &place,
                &options,
                teller(arguments.output),
            )
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
    Ok(match (failed, skipped) {
        (0, 0) => ExitCode::SUCCESS,
        (0, _) => ExitCode::from(3),
        _ => ExitCode::FAILURE,
    })
}
