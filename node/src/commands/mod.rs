//! The client's verbs: each asks the cluster and prints the answer.

pub mod checkconfig;
pub mod cluster;
pub mod config;
pub mod debug;
pub mod files;
pub mod get;
pub mod recover;
pub mod runs;
pub mod snapshot;

use std::time::Duration;

use trireme_api::client::Client;

use crate::cli::Target;

async fn connect(target: &Target) -> anyhow::Result<Client> {
    Ok(Client::connect(&target.server).await?)
}

/// How long one of several nodes may take to answer.
const MEMBER_TIMEOUT: Duration = Duration::from_secs(5);

/// Asks one member at its own door; why it gave no answer otherwise.
async fn ask_member<T>(
    address: &str,
    ask: impl AsyncFnOnce(Client) -> Result<T, tonic::Status>,
) -> Result<T, String> {
    if address.is_empty() {
        return Err("the address of its door is not known".to_owned());
    }
    let asking = async {
        let client = Client::connect(address)
            .await
            .map_err(|why| why.to_string())?;
        ask(client)
            .await
            .map_err(|status| status.message().to_owned())
    };
    tokio::time::timeout(MEMBER_TIMEOUT, asking)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {MEMBER_TIMEOUT:?}")))
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// An id for a request of this process, so that a retry is not done twice.
fn request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}
