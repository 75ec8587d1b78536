//! One question for everybody while a GitHub is away, and what is told of that.

use std::sync::{Arc, Weak};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, header};
use tokio::time::{Instant, sleep};

use super::call::{Api, JSON};
use super::client::{Client, Shared};
use super::credentials::Behalf;
use super::limits::Budget;
use super::metrics::Asker;
use super::priority::Priority;
use super::server::Server;

/// Free, and answered to anybody.
const PROBE: &str = "/rate_limit";
/// How long one probe may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why nothing is to be asked at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// Nobody answers. [`super::GitHub::returns`] tells when somebody does.
    Away,
    /// A limit was hit, which is over after so long.
    Limited(Duration),
}

impl Client {
    /// Takes note of whether a server answered a call; `by_last`: at the last of its addresses that were tried.
    pub(super) fn saw(&self, server: &Server, answered: bool, by_last: bool) {
        if answered {
            server.presence.answered();
        } else if by_last && server.presence.failed() {
            let host = server.host.as_str();
            tracing::warn!(
                host,
                "GitHub does not answer: it is probed until it does, and asked nothing else"
            );
            self.metrics().away(host, true);
            tokio::spawn(probe(Arc::downgrade(&self.shared), server.index));
        }
    }

    pub(super) fn pause(&self, org: &str) -> Option<Pause> {
        let behalf = Behalf::Org(org);
        let server = self.server_of(org);
        if server.presence.is_away() {
            return Some(Pause::Away);
        }
        let budget = Budget {
            server: server.index,
            identity: server.identity(behalf),
            api: Api::Rest,
        };
        let now = self.now();
        let gate = &self.shared.gate;
        let limited = gate.would_be_closed(&budget, Priority::Prompt, now)?;
        let wait = Duration::try_from(limited.until.duration_since(now));
        Some(Pause::Limited(wait.unwrap_or_default()))
    }
}

/// Ends when the server answers, or nobody is left who would ask it.
async fn probe(shared: Weak<Shared>, index: usize) {
    let began = Instant::now();
    let mut address = 0;
    loop {
        let server = |shared: &Shared| shared.servers[index].presence.next_probe();
        let Some(wait) = shared.upgrade().map(|shared| server(&shared)) else {
            return;
        };
        sleep(wait).await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let server = &shared.servers[index];
        if answers(&shared, server, address).await {
            let away = began.elapsed();
            tracing::info!(host = server.host, ?away, "GitHub answers again");
            shared.metrics.away(&server.host, false);
            server.presence.returned();
            shared.returns.send_modify(|count| *count += 1);
            return;
        }
        address = (address + 1) % server.addresses(false).max(1);
    }
}

async fn answers(shared: &Shared, server: &Server, address: usize) -> bool {
    let Ok(url) = server.url(address, PROBE) else {
        return false;
    };
    let headers: HeaderMap = [(header::ACCEPT, HeaderValue::from_static(JSON))]
        .into_iter()
        .collect();
    let began = Instant::now();
    let agent = super::client::agent(&shared.component, "");
    let sent = shared
        .transport
        .send(&Method::GET, &url, &headers, &agent, None, PROBE_TIMEOUT);
    let outcome = sent.await;
    let status = outcome.as_ref().map_or(0, |answer| answer.status.as_u16());
    let asker = Asker {
        host: &server.host,
        plugin: "",
        agent: &agent,
        budget: &server.budget_name(Behalf::Ourselves, PROBE),
    };
    let (version, took) = (Api::Rest.version(), began.elapsed());
    shared
        .metrics
        .sent(asker, version, &Method::GET, PROBE, status, took);
    outcome.is_ok_and(|answer| !answer.status.is_server_error())
}
