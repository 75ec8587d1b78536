//! Slack, as far as Prow uses it: messages to channels.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use serde::Deserialize;

use crate::Outside;
use crate::service::{Secret, ServiceError, taken};

/// Slack's own API.
pub const SLACK_API: &str = "https://slack.com/api";
const TIMEOUT: Duration = Duration::from_secs(10);
const BOT_NAME: &str = "prow";
const BOT_ICON: &str = ":prow:";

/// Speaks in one workspace.
#[derive(Clone)]
pub struct Slack {
    outside: Outside,
    api: String,
    token: Secret,
}

#[derive(Deserialize)]
struct Answer {
    ok: bool,
    #[serde(default)]
    error: String,
}

impl Slack {
    /// `api` is the address before the names of methods, [`SLACK_API`] for Slack's own.
    pub fn new(outside: Outside, api: &str, token: Secret) -> Self {
        Self {
            outside,
            api: api.trim_end_matches('/').to_owned(),
            token,
        }
    }

    /// Says `text` in a channel, by name or id. Not idempotent.
    ///
    /// # Errors
    /// [`ServiceError`]
    pub async fn write_message(&self, channel: &str, text: &str) -> Result<(), ServiceError> {
        let form = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("username", BOT_NAME)
            .append_pair("icon_emoji", BOT_ICON)
            .append_pair("token", (self.token)().trim())
            .append_pair("channel", channel)
            .append_pair("text", text)
            .finish();
        let mut headers = HeaderMap::new();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        let address = format!("{}/chat.postMessage", self.api);
        let failed = |why: String| format!("failed to post message to {channel}: {why}");
        let sent = self
            .outside
            .send(Method::POST, &address, headers, Bytes::from(form), TIMEOUT)
            .await?;
        let answer = taken(&format!("failed to post message to {channel}"), sent)?;
        let answer: Answer = serde_json::from_slice(&answer.body).map_err(|error| {
            ServiceError::Refused(failed(format!("API returned invalid JSON: {error}")))
        })?;
        match answer.ok {
            true => Ok(()),
            false => Err(ServiceError::Refused(failed(format!(
                "request failed: {}",
                answer.error
            )))),
        }
    }
}
