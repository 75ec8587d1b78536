//! The client's verbs: each asks the cluster and prints the answer.

pub mod certs;
pub mod checkconfig;
pub mod cluster;
pub mod config;
pub mod files;
pub mod get;
pub mod runs;
pub mod token;

use trireme_api::client::{Client, ConnectOptions, Token};

use crate::cli::{Access, Target};

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
    ConnectOptions {
        ca: access.ca.clone(),
        token: match &access.token_file {
            Some(path) => Token::File(path.clone()),
            None => given().map_or(Token::None, Token::Text),
        },
    }
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// An id for a request of this process, so that a retry is not done twice.
fn request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}
