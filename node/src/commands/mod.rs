//! The client's verbs: each asks the cluster and prints the answer.

pub mod checkconfig;
pub mod cluster;
pub mod config;
pub mod files;
pub mod get;
pub mod runs;

use trireme_api::client::Client;

use crate::cli::Target;

async fn connect(target: &Target) -> anyhow::Result<Client> {
    Ok(Client::connect(&target.server).await?)
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// An id for a request of this process, so that a retry is not done twice.
fn request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}
