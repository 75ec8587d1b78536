//! What the plugins for fun have in common: services elsewhere are asked for a picture or a joke (PLG-FUN-006). Where
//! nobody may be asked, such a command concerns nobody.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde::de::DeserializeOwned;
use trireme_forge::webhook::{Event, GenericAction, GenericComment};
use trireme_outside::OutsideError;

use crate::options::FunOptions;
use crate::plugin::{Configured, PlanError, Planning};

/// A service may take so long to answer.
const WITHIN: Duration = Duration::from_secs(10);
/// Larger pictures GitHub does not show.
const MAX_PICTURE: u64 = 5 << 20;
/// Bytes of a key for a service.
const MAX_KEY: u64 = 4096;

/// The new text of an event that a plugin for fun may react to.
pub(crate) fn heard(cx: &Configured<'_>, event: &Event) -> Option<GenericComment> {
    cx.options.fun.as_ref()?;
    said(event)
}

/// The new text of an event.
pub(crate) fn said(event: &Event) -> Option<GenericComment> {
    let comment = event.generic_comment()?;
    (comment.action == GenericAction::Created).then_some(comment)
}

/// Services that may be asked, while one event is planned for.
pub(crate) struct Asking<'a> {
    cx: &'a Planning<'a>,
    pub(crate) services: &'a FunOptions,
}

impl<'a> Asking<'a> {
    /// `None` where nobody may be asked.
    pub(crate) fn allowed(cx: &'a Planning<'a>) -> Option<Self> {
        let services = cx.options.fun.as_ref()?;
        Some(Self { cx, services })
    }

    /// What a service says; the inner error is a refusal by its status.
    ///
    /// # Errors
    /// Without an answer in time that can be read.
    pub(crate) async fn json<T: DeserializeOwned>(
        &self,
        address: &str,
        key: Option<(HeaderName, HeaderValue)>,
    ) -> Result<Result<T, StatusCode>, PlanError> {
        let mut headers = HeaderMap::new();
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::ACCEPT, json);
        headers.insert(header::USER_AGENT, HeaderValue::from_static("trireme"));
        headers.extend(key.map(|(name, value)| (Some(name), value)));
        let sent = self.send(Method::GET, address, headers).await?;
        if !sent.status.is_success() {
            return Ok(Err(sent.status));
        }
        let read = serde_json::from_slice(&sent.body);
        read.map(Ok)
            .map_err(|error| PlanError::Failed(format!("{address}: {error}")))
    }

    /// Whether GitHub would show the picture.
    ///
    /// # Errors
    /// If it is not there, or cannot be asked for.
    pub(crate) async fn is_shown(&self, picture: &str) -> Result<bool, PlanError> {
        let sent = self.send(Method::HEAD, picture, HeaderMap::new()).await?;
        if !sent.status.is_success() {
            let status = sent.status;
            return Err(PlanError::Failed(format!("{picture}: {status}")));
        }
        let length = sent.headers.get(header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        Ok(length.is_none_or(|length| length <= MAX_PICTURE))
    }

    async fn send(
        &self,
        method: Method,
        address: &str,
        headers: HeaderMap,
    ) -> Result<trireme_outside::OutsideAnswer, PlanError> {
        let outside = self.cx.outside;
        let sent = outside.send(method, address, headers, bytes::Bytes::new(), WITHIN);
        sent.await
            .map_err(|error: OutsideError| PlanError::Failed(error.to_string()))
    }
}

/// The key in a file of this node, for a header; without a path, or if it cannot be read, services are asked without one.
pub(crate) async fn key(path: &str) -> Option<String> {
    use tokio::io::AsyncReadExt as _;

    if path.is_empty() {
        return None;
    }
    let read = async {
        let file = tokio::fs::File::open(path).await?;
        let mut text = String::new();
        file.take(MAX_KEY).read_to_string(&mut text).await?;
        std::io::Result::Ok(text.trim().to_owned())
    };
    match read.await {
        Ok(key) => Some(key).filter(|key| !key.is_empty()),
        Err(error) => {
            tracing::warn!(path, %error, "key_path cannot be read: the service is asked without a key");
            None
        }
    }
}

/// An address with these parameters.
pub(crate) fn with_query(address: &str, parameters: &[(&str, &str)]) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(parameters);
    let joint = if address.contains('?') { '&' } else { '?' };
    format!("{address}{joint}{}", query.finish())
}

/// An address that Markdown shows as it is.
pub(crate) fn is_plain(address: &str) -> bool {
    let is_web = url::Url::parse(address).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '(' | ')' | '<' | '>');
    is_web && !address.contains(odd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_become_pictures() {
        for (address, expected) in [
            ("https://random.dog/a.jpg", true),
            ("http://x/a?b=c&d", true),
            ("https://x/a.jpg) [click](https://evil", false),
            ("javascript:alert(1)", false),
            ("a.jpg", false),
            ("https://x/a\nb", false),
        ] {
            assert_eq!(is_plain(address), expected, "{address}");
        }
    }

    #[test]
    fn parameters_are_escaped() {
        assert_eq!(
            with_query("https://x", &[("q", "a b&c")]),
            "https://x?q=a+b%26c"
        );
        assert_eq!(
            with_query("https://x?y=1", &[("q", "z")]),
            "https://x?y=1&q=z"
        );
    }

    #[tokio::test]
    async fn a_key_is_read_from_its_file_and_may_be_absent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, " secret\n").unwrap();
        assert_eq!(key(path.to_str().unwrap()).await.as_deref(), Some("secret"));
        assert_eq!(key("").await, None);
        assert_eq!(key("/nowhere/at/all").await, None);
    }
}
