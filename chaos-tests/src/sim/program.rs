//! The simulator as a program: one process per seed, as many at once as there are cores.

use std::{
    collections::BTreeMap,
    io::{self, Read as _, Write as _},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc},
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::{Args, Parser, ValueEnum as _};
use tracing_subscriber::fmt::{format::Writer, time::FormatTime};

use super::{Options, Plant, Report, Tail, run};

/// A run that has not ended by itself so long after it was given up is killed.
const GRACE: Duration = Duration::from_secs(20);
/// What a run that hangs exits with.
const HUNG: u8 = 3;

/// Runs clusters in simulated time, with everything that goes wrong decided by a seed. Exits 1 when a promise was broken,
/// and says how to see it again.
#[derive(Debug, Clone, Parser)]
#[command(name = "sim")]
pub struct Arguments {
    /// Runs this many seeds.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Runs this seed alone, in this process.
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Keeps the trace of the one seed.
    #[arg(long, value_name = "FILE", requires = "seed")]
    trace: Option<PathBuf>,
    /// Runs every seed twice and compares the traces.
    #[arg(long, conflicts_with = "seed")]
    twice: bool,
    /// Processes at once; as many as there are cores when absent.
    #[arg(long, value_name = "COUNT")]
    jobs: Option<NonZeroUsize>,
    #[command(flatten)]
    scene: Scene,
    /// Gives up a seed that takes longer, in real time: it has failed, and its trace so far is told.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    patience: u64,
    /// Says what came of the one seed as JSON.
    #[arg(long, requires = "seed")]
    json: bool,
}

/// What is the same for all seeds.
#[derive(Debug, Clone, Args)]
struct Scene {
    /// 3 or 5; every fourth seed has 5 when absent.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=5))]
    nodes: Option<u64>,
    /// How long a cluster is disturbed, in simulated time.
    #[arg(long, default_value_t = 1.0)]
    minutes_of_simulated_time: f64,
    /// Plants a bug, which must be found.
    #[arg(long, value_enum)]
    plant: Option<Plant>,
}

impl Scene {
    fn options(&self, seed: u64) -> anyhow::Result<Options> {
        let seconds = self.minutes_of_simulated_time * 60.0;
        let nodes = self
            .nodes
            .unwrap_or(if seed.is_multiple_of(4) { 5 } else { 3 });
        if nodes == 2 || nodes == 4 {
            bail!("--nodes {nodes}: take 1, 3 or 5");
        }
        Ok(Options {
            seed,
            nodes,
            disturbed: Duration::try_from_secs_f64(seconds)
                .with_context(|| format!("--minutes-of-simulated-time {seconds}"))?,
            trace: None,
            plant: self.plant,
            tail: Tail::default(),
        })
    }

    /// As arguments of a process that runs one seed.
    fn arguments(&self, seed: u64) -> Vec<String> {
        let mut arguments = vec![
            "--seed".to_owned(),
            seed.to_string(),
            "--minutes-of-simulated-time".to_owned(),
            self.minutes_of_simulated_time.to_string(),
        ];
        if let Some(nodes) = self.nodes {
            arguments.extend(["--nodes".to_owned(), nodes.to_string()]);
        }
        if let Some(plant) = self.plant.and_then(|plant| plant.to_possible_value()) {
            arguments.extend(["--plant".to_owned(), plant.get_name().to_owned()]);
        }
        arguments
    }
}

/// Runs what the command line asks for. `prepare` gives the seed the whole process, before anything draws from chance; it
/// is called for a single seed alone.
#[must_use]
pub fn main(prepare: impl FnOnce(u64)) -> ExitCode {
    let arguments = Arguments::parse();
    let told = match arguments.seed {
        Some(seed) => {
            prepare(seed);
            one(&arguments, seed)
        }
        None => many(&arguments),
    };
    told.unwrap_or_else(|why| {
        // Nobody is left to tell when standard error is closed.
        let _told = writeln!(io::stderr(), "sim: {why:#}");
        ExitCode::from(2)
    })
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn print(text: &str) -> io::Result<()> {
    io::stdout().write_all(text.as_bytes())
}

fn one(arguments: &Arguments, seed: u64) -> anyhow::Result<ExitCode> {
    tell_what_nodes_do();
    let mut options = arguments.scene.options(seed)?;
    options.trace.clone_from(&arguments.trace);
    let (tail, patience) = (options.tail.clone(), arguments.patience);
    end_when_hung(&format!("sim: seed {seed}"), patience, tail)?;
    let report = run(&options)?;
    if arguments.json {
        print(&format!("{}\n", serde_json::to_string(&report)?))?;
    } else {
        print(&format!("{}\n", told(&report)))?;
    }
    Ok(match report.broken.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Ends the process `patience` seconds from now, with the last lines of the trace on standard error. `what` hangs then.
pub(crate) fn end_when_hung(what: &str, patience: u64, tail: Tail) -> io::Result<()> {
    let what = what.to_owned();
    let ending = move || {
        thread::sleep(Duration::from_secs(patience));
        let _told = writeln!(
            io::stderr(),
            "{what} has not ended after {patience} s; its last lines:\n{tail}"
        );
        std::process::exit(HUNG.into());
    };
    let thread = thread::Builder::new().name("patience".to_owned());
    thread.spawn(ending).map(drop)
}

/// RUST_LOG=trireme_raft=debug shows it, on standard error.
pub(crate) fn tell_what_nodes_do() {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::builder()
                .with_default_directive(tracing_subscriber::filter::LevelFilter::OFF.into())
                .from_env_lossy(),
        )
        .with_writer(io::stderr)
        .with_timer(SimulatedTime::default())
        .init();
}

/// Time since the simulation began, as in traces.
#[derive(Debug, Default)]
struct SimulatedTime(OnceLock<tokio::time::Instant>);

impl FormatTime for SimulatedTime {
    fn format_time(&self, w: &mut Writer<'_>) -> std::fmt::Result {
        let began = self.0.get_or_init(tokio::time::Instant::now);
        let passed = began.elapsed();
        write!(w, "{}.{:06}", passed.as_secs(), passed.subsec_micros())
    }
}

fn told(report: &Report) -> String {
    let Report {
        seed,
        nodes,
        lines,
        trace,
        simulated_ms,
        revision,
        counts,
        ..
    } = report;
    let verdict = match report.broken.len() {
        0 => "every promise was kept".to_owned(),
        count => format!("{count} BROKEN"),
    };
    let mut text = format!(
        "seed {seed}: {verdict}; {nodes} nodes, {}.{:03} s, {revision} entries, {}; trace of {lines} lines {}",
        simulated_ms / 1000,
        simulated_ms % 1000,
        listed(counts),
        &trace[..16.min(trace.len())]
    );
    for broken in &report.broken {
        text.push_str(&format!("\n  {broken}"));
    }
    text
}

fn listed(counts: &BTreeMap<String, u64>) -> String {
    let each: Vec<String> = counts
        .iter()
        .map(|(name, count)| format!("{count} {name}"))
        .collect();
    each.join(", ")
}

/// A process that runs one seed.
fn start(program: &Path, scene: &Scene, patience: u64, seed: u64) -> io::Result<Child> {
    Command::new(program)
        .args(scene.arguments(seed))
        .args(["--patience", &patience.to_string()])
        .arg("--json")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
}

/// A process that cannot even give up by itself is killed.
fn finish(mut child: Child, patience: u64, seed: u64) -> anyhow::Result<Report> {
    let mut said = String::new();
    let stdout = child.stdout.take();
    let child = Arc::new(Mutex::new(child));
    let (running, at_last) = (
        Arc::downgrade(&child),
        Duration::from_secs(patience) + GRACE,
    );
    thread::spawn(move || {
        // Clocks do not move in this program, see mad-turmoil; sleeping takes its time.
        thread::sleep(at_last);
        if let Some(child) = running.upgrade()
            && let Err(why) = held(&child).kill()
        {
            let _told = writeln!(io::stderr(), "sim: seed {seed} cannot be killed: {why}");
        }
    });
    if let Some(mut stdout) = stdout {
        stdout.read_to_string(&mut said)?;
    }
    let status = held(&child).wait()?;
    let report = serde_json::from_str(&said);
    report.with_context(|| format!("seed {seed} ended without a report ({status})"))
}

/// Runs one seed in a process of its own.
fn in_process(program: &Path, arguments: &Arguments, seed: u64) -> anyhow::Result<Report> {
    let run = || {
        let child = start(program, &arguments.scene, arguments.patience, seed)?;
        finish(child, arguments.patience, seed)
    };
    let mut report = run()?;
    if arguments.twice {
        let again = run()?;
        if (again.lines, &again.trace) != (report.lines, &report.trace) {
            report.broken.push(format!(
                "two runs differ: {} lines {} and {} lines {}",
                report.lines, report.trace, again.lines, again.trace
            ));
        }
    }
    Ok(report)
}

fn many(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    arguments.scene.options(arguments.from)?;
    let program = std::env::current_exe()?;
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let jobs = arguments.jobs.map_or(cores, NonZeroUsize::get);
    let end = arguments.from.saturating_add(arguments.seeds);
    let (asked, asking) = mpsc::sync_channel(jobs);
    let (answered, answers) = mpsc::sync_channel(jobs);
    let asking = Arc::new(Mutex::new(asking));
    for _ in 0..jobs {
        let (asking, answered) = (Arc::clone(&asking), answered.clone());
        let (program, arguments) = (program.clone(), arguments.clone());
        thread::spawn(move || {
            loop {
                let next = held(&asking).recv();
                let Ok(seed) = next else {
                    return;
                };
                let told = in_process(&program, &arguments, seed);
                if answered.send((seed, told)).is_err() {
                    return;
                }
            }
        });
    }
    drop(answered);
    let seeds = arguments.from..end;
    thread::spawn(move || {
        for seed in seeds {
            if asked.send(seed).is_err() {
                return;
            }
        }
    });
    let mut failed = Vec::new();
    let mut together: BTreeMap<String, u64> = BTreeMap::new();
    for (seed, told_of) in answers {
        let text = match &told_of {
            Ok(report) => told(report),
            Err(why) => format!("seed {seed}: {why:#}"),
        };
        print(&format!("{text}\n"))?;
        for (name, count) in told_of.iter().flat_map(|report| &report.counts) {
            *together.entry(name.clone()).or_default() += count;
        }
        if told_of.is_err() || told_of.is_ok_and(|report| !report.broken.is_empty()) {
            failed.push(seed);
            print(&format!(
                "  see it again with: {} {} --trace trace-{seed}.txt\n",
                program.display(),
                arguments.scene.arguments(seed).join(" ")
            ))?;
        }
    }
    print(&format!("together {}\n", listed(&together)))?;
    if failed.is_empty() {
        print(&format!(
            "{} seeds: every promise was kept\n",
            arguments.seeds
        ))?;
        return Ok(ExitCode::SUCCESS);
    }
    print(&format!(
        "{} of {} seeds failed: {failed:?}\n",
        failed.len(),
        arguments.seeds
    ))?;
    Ok(ExitCode::FAILURE)
}
