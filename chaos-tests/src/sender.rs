//! Webhooks of our own: signed pings, to find out when a door takes writes again.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use tokio::time::{sleep, timeout};
use trireme_sandbox::world::WEBHOOK_SECRET;

use crate::Sent;

const BODY: &str = "{\"zen\":\"Speak like a human.\"}";
/// The longest that a cluster may take no writes.
const BOUND: Duration = Duration::from_secs(30);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(10);
/// A door that answers later than this counts as silent.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Sender {
    client: reqwest::Client,
    signature: String,
}

impl Sender {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let mac = Hmac::<sha2::Sha256>::new_from_slice(WEBHOOK_SECRET.as_bytes())?;
        let mac = mac.chain_update(BODY).finalize().into_bytes();
        Ok(Self {
            client: reqwest::Client::builder()
                .no_proxy()
                .timeout(PATIENCE)
                .build()?,
            signature: format!("sha256={}", hex::encode(mac)),
        })
    }

    async fn ping(&self, door: &str) -> Sent {
        let guid = uuid::Uuid::new_v4().to_string();
        let answer = self
            .client
            .post(door)
            .header("X-GitHub-Event", "ping")
            .header("X-GitHub-Delivery", &guid)
            .header("X-Hub-Signature-256", &self.signature)
            .header("content-type", "application/json")
            .body(BODY)
            .send()
            .await;
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Sent {
            guid,
            event: "ping".to_owned(),
            status: answer.map_or(0, |answer| answer.status().as_u16()),
            redelivery: false,
            at_ms: since.map_or(0, |since| {
                i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
            }),
        }
    }

    /// Knocks at the doors in turn until one acknowledges; gives all that was sent.
    ///
    /// # Errors
    /// When none does within 30 s.
    pub(crate) async fn knock(&self, doors: &[String]) -> anyhow::Result<Vec<Sent>> {
        let mut sent = Vec::new();
        let knocking = async {
            for door in doors.iter().cycle() {
                let one = self.ping(door).await;
                let taken = one.status == 200;
                sent.push(one);
                if taken {
                    return;
                }
                sleep(PAUSE).await;
            }
        };
        timeout(BOUND, knocking)
            .await
            .context("no write is acknowledged any more")?;
        Ok(sent)
    }
}
