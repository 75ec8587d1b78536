//! `logs`, `abort`, `rerun`.

use std::io::{self, Write as _};

use serde_json::json;
use trireme_proto::api::{AbortJobRequest, ReadLogRequest, RerunJobRequest};

use super::{connect, request_id};
use crate::{
    cli::{JobArgs, LogsArgs},
    output::{Format, print, print_json},
};

/// A log is printed as it is, whatever `-o` says.
///
/// # Errors
/// When the cluster does not answer or there is no such run.
pub async fn logs(args: LogsArgs) -> anyhow::Result<()> {
    let client = connect(&args.target).await?;
    let mut stream = client
        .jobs()
        .read_log(ReadLogRequest {
            id: args.id,
            offset: 0,
            follow: args.follow,
        })
        .await?
        .into_inner();
    let mut out = io::stdout().lock();
    while let Some(message) = stream.message().await? {
        match out.write_all(&message.data).and_then(|()| out.flush()) {
            Err(why) if why.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            result => result?,
        }
    }
    Ok(())
}

/// # Errors
/// See [`logs`].
pub async fn abort(args: JobArgs) -> anyhow::Result<()> {
    let client = connect(&args.target).await?;
    let answer = client
        .jobs()
        .abort_job(AbortJobRequest {
            id: args.id.clone(),
            request_id: request_id(),
        })
        .await?
        .into_inner();
    match args.target.output {
        Format::Json => print_json(&json!({
            "id": args.id, "was_complete": answer.was_complete, "revision": answer.revision,
        })),
        Format::Text if answer.was_complete => {
            Ok(print(&format!("{} was complete already\n", args.id))?)
        }
        Format::Text => Ok(print(&format!("{} is being aborted\n", args.id))?),
    }
}

/// # Errors
/// See [`logs`].
pub async fn rerun(args: JobArgs) -> anyhow::Result<()> {
    let client = connect(&args.target).await?;
    let answer = client
        .jobs()
        .rerun_job(RerunJobRequest {
            id: args.id.clone(),
            request_id: request_id(),
        })
        .await?
        .into_inner();
    match args.target.output {
        Format::Json => print_json(&json!({
            "id": answer.id, "rerun_of": args.id, "revision": answer.revision,
        })),
        Format::Text => Ok(print(&format!(
            "{}\nfollow it with: trireme logs -f {}\n",
            answer.id, answer.id
        ))?),
    }
}
