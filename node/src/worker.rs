//! `agent`: the worker process.

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;
use trireme_jobs::agent::{self, AgentOptions, Utility};

use crate::{
    PREFIX,
    cli::AgentArgs,
    commands::connect_options,
    exit_with_parent, interrupted,
    secrets::{Censor, Secrets},
};

/// The pod utilities are this binary under a hidden verb.
fn utility() -> anyhow::Result<Utility> {
    Ok(Utility {
        program: std::env::current_exe().context("where this program is")?,
        prefix: PREFIX
            .get()
            .into_iter()
            .flatten()
            .cloned()
            .chain(["podutils".into()])
            .collect(),
    })
}

pub(crate) async fn run(args: AgentArgs) -> anyhow::Result<()> {
    if args.exit_with_parent {
        exit_with_parent()?;
    }
    let stop = CancellationToken::new();
    let secrets = Secrets::new(Censor::of_process());
    if let Some(path) = &args.access.token_file {
        // The client reads the file itself, at each call.
        let _read = secrets.text("--token-file", path)?;
    }
    tokio::spawn(secrets.run(stop.clone()));
    let options = AgentOptions {
        nodes: args
            .server
            .split(',')
            .map(|address| address.trim().to_owned())
            .filter(|address| !address.is_empty())
            .collect(),
        name: args.name,
        clusters: args.clusters,
        capacity: args.capacity,
        directory: args.directory,
        utility: utility()?,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        connect: connect_options(&args.access),
    };
    let stopping = stop.clone();
    tokio::spawn(async move {
        if let Err(why) = interrupted().await {
            tracing::error!(%why, "signals cannot be heard");
        }
        stopping.cancel();
    });
    agent::run(options, stop).await?;
    Ok(())
}
