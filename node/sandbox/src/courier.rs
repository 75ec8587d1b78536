//! How webhooks travel: over connections of the machine, or as a simulation has it.

use std::fmt;

use bytes::Bytes;
use futures::future::BoxFuture;
use url::Url;

/// What a receiver answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    pub status_code: u16,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unbrought {
    /// Nothing was sent: the hook's next target is tried.
    #[error("no connection: {0}")]
    Refused(String),
    /// It may have been received.
    #[error("broken off: {0}")]
    BrokenOff(String),
}

/// Brings a webhook to a target.
pub trait Courier: fmt::Debug + Send + Sync + 'static {
    /// One POST, with all headers that GitHub sends. Whoever asks gives it up after [`crate::DELIVERY_TIMEOUT`].
    fn post<'a>(
        &'a self,
        target: &'a Url,
        headers: &'a [(String, String)],
        payload: Bytes,
    ) -> BoxFuture<'a, Result<Receipt, Unbrought>>;
}

/// Over HTTP, as anybody does.
#[derive(Debug)]
pub(crate) struct Http(pub(crate) reqwest::Client);

impl Courier for Http {
    fn post<'a>(
        &'a self,
        target: &'a Url,
        headers: &'a [(String, String)],
        payload: Bytes,
    ) -> BoxFuture<'a, Result<Receipt, Unbrought>> {
        Box::pin(async move {
            let mut request = self.0.post(target.clone()).body(payload);
            for (name, value) in headers {
                request = request.header(name, value);
            }
            let failed = |error: reqwest::Error| match error.is_connect() {
                true => Unbrought::Refused(error.to_string()),
                false => Unbrought::BrokenOff(error.to_string()),
            };
            let response = request.send().await.map_err(failed)?;
            let status_code = response.status().as_u16();
            let headers = response.headers().iter();
            let headers = headers.map(|(name, value)| {
                let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
                (name.to_string(), value)
            });
            Ok(Receipt {
                status_code,
                headers: headers.collect(),
                body: response.bytes().await.map_err(failed)?,
            })
        })
    }
}
