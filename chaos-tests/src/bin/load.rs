//! `load`: measures a running Trireme or etcd with a closed loop of clients.

use std::{
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use chaos_tests::load::{Operation, Plan, System, Target, run};
use clap::{Parser, ValueEnum};
use serde_json::json;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Format {
    #[default]
    Text,
    Json,
}

/// Measures a running store with clients that each ask again as soon as they have their answer.
///
/// Both systems are asked at the node that leads. `chaos-tests/compare-etcd` starts both and compares them.
/// Exits 1 when the store cannot be measured, 2 on wrong usage.
#[derive(Debug, Parser)]
#[command(name = "load")]
struct Arguments {
    /// What runs there.
    #[arg(long, value_enum)]
    target: System,
    /// Its nodes.
    #[arg(
        long,
        value_name = "HOST:PORT,...",
        value_delimiter = ',',
        required = true
    )]
    endpoints: Vec<String>,
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    clients: u64,
    /// Bytes of one value; in Trireme of one ProwJob.
    #[arg(long, default_value_t = 512)]
    value_bytes: usize,
    /// How long is measured. In Trireme jobs stay: above 30,000 puts a second, 15 s and the warm-up meet the bound of
    /// 500,000 jobs in memory.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// How long the clients run before anything is counted.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(0..=600))]
    warm_up_seconds: u64,
    /// put: durable writes; read: linearizable reads; mixed: in turn.
    #[arg(long, value_enum, default_value_t = Operation::Put)]
    op: Operation,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Refused only when somebody installed one before.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    match measure(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // Nobody is left to tell when standard error is closed.
            let _told = writeln!(io::stderr(), "load: {why:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> anyhow::Result<()> {
    let target = Target {
        system: arguments.target,
        endpoints: arguments.endpoints.clone(),
    };
    let plan = Plan {
        clients: arguments.clients,
        value_bytes: arguments.value_bytes,
        warm_up: Duration::from_secs(arguments.warm_up_seconds),
        measured: Duration::from_secs(arguments.seconds),
        operation: arguments.op,
    };
    let runtime = tokio::runtime::Runtime::new()?;
    let figures = runtime.block_on(run(&target, &plan))?;
    let latency = figures.latency();
    let text = match arguments.output {
        Format::Json => json!({
            "target": arguments.target.name(), "op": arguments.op.name(), "clients": arguments.clients,
            "value_bytes": arguments.value_bytes, "seconds": arguments.seconds,
            "operations": figures.operations, "per_second": figures.per_second(),
            "latency_us": latency, "errors": figures.errors, "first_error": figures.first_error,
        })
        .to_string(),
        Format::Text => format!(
            "{} {}, {} clients: {:.0} operations/s, p50 {:.2} ms, p99 {:.2} ms, longest {:.2} ms, {} errors{}",
            arguments.target.name(),
            arguments.op.name(),
            arguments.clients,
            figures.per_second(),
            millis(latency.p50),
            millis(latency.p99),
            millis(latency.max),
            figures.errors,
            figures
                .first_error
                .map(|why| format!(" (first: {why})"))
                .unwrap_or_default(),
        ),
    };
    writeln!(io::stdout(), "{text}")?;
    Ok(())
}

fn millis(micros: u64) -> f64 {
    micros as f64 / 1000.0
}
