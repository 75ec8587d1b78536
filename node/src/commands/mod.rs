//! The client's verbs: each asks the cluster and prints the answer.

pub mod ask;
pub mod certs;
pub mod checkconfig;
pub mod cluster;
pub mod config;
pub mod configured;
pub mod debug;
pub mod deliveries;
pub mod expand;
pub mod files;
pub mod get;
pub mod github;
mod history;
pub mod hooks;
pub mod mkpj;
pub mod mkpod;
mod own_files;
pub mod recover;
pub mod runs;
pub mod schema;
pub mod snapshot;
pub mod token;
pub mod why;

use std::time::Duration;

use trireme_api::client::{Client, ConnectOptions, Token};

use crate::{
    cli::{Access, Target},
    secrets::Censor,
};

async fn connect(target: &Target) -> anyhow::Result<Client> {
    Ok(Client::connect_with(&target.server, &connect_options(&target.access)).await?)
}

/// The file wins over TRIREME_TOKEN: it was named on purpose.
pub(crate) fn connect_options(access: &Access) -> ConnectOptions {
    let given = || {
        std::env::var("TRIREME_TOKEN")
            .ok()
            .filter(|token| !token.trim().is_empty())
    };
    let given = given();
    if let Some(token) = &given {
        Censor::of_process().hide("TRIREME_TOKEN", vec![token.clone().into_bytes()]);
    }
    ConnectOptions {
        ca: access.ca.clone(),
        token: match &access.token_file {
            Some(path) => Token::File(path.clone()),
            None => given.map_or(Token::None, Token::Text),
        },
    }
}

/// How long one of several nodes may take to answer.
const MEMBER_TIMEOUT: Duration = Duration::from_secs(5);

/// Asks one member at its own door, in the way in which `asked` was reached; why it gave no answer otherwise.
async fn ask_member<T>(
    access: &Access,
    asked: &str,
    address: &str,
    ask: impl AsyncFnOnce(Client) -> Result<T, tonic::Status>,
) -> Result<T, String> {
    let asking = async {
        let client = connect_member(access, asked, address).await?;
        ask(client)
            .await
            .map_err(|status| status.message().to_owned())
    };
    in_time(asking).await
}

/// For what takes longer than [`ask_member`] waits: connected to one member, in the same way.
async fn member(access: &Access, asked: &str, address: &str) -> Result<Client, String> {
    in_time(connect_member(access, asked, address)).await
}

async fn connect_member(access: &Access, asked: &str, address: &str) -> Result<Client, String> {
    if address.is_empty() {
        return Err("the address of its door is not known".to_owned());
    }
    let url = match (address.contains("://"), asked.split_once("://")) {
        (false, Some((scheme, _))) => format!("{scheme}://{address}"),
        _ => address.to_owned(),
    };
    Client::connect_with(&url, &connect_options(access))
        .await
        .map_err(|why| why.to_string())
}

async fn in_time<T>(asking: impl Future<Output = Result<T, String>>) -> Result<T, String> {
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
