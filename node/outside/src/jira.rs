//! Jira, as far as Prow uses it: which projects and issues there are, and the pages that issues link to.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::service::{Secret, ServiceError, taken};
use crate::{Outside, OutsideAnswer};

const TIMEOUT: Duration = Duration::from_secs(10);

/// How Jira is to know us.
#[derive(Clone)]
pub enum JiraAuth {
    Anonymous,
    Basic { username: String, password: Secret },
    Bearer(Secret),
}

/// One Jira server.
#[derive(Clone)]
pub struct Jira {
    outside: Outside,
    url: String,
    auth: JiraAuth,
}

/// A page that an issue links to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct RemoteLink {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    pub object: LinkedPage,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
pub struct LinkedPage {
    #[serde(default)]
    pub url: String,
    #[serde(default)]
    pub title: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icon: Option<LinkIcon>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
pub struct LinkIcon {
    #[serde(default, rename = "url16x16")]
    pub url: String,
    #[serde(default)]
    pub title: String,
}

#[derive(Deserialize)]
struct Project {
    key: String,
}

impl Jira {
    /// `url` is the server's address, with or without a slash at its end.
    pub fn new(outside: Outside, url: &str, auth: JiraAuth) -> Self {
        Self {
            outside,
            url: url.trim_end_matches('/').to_owned(),
            auth,
        }
    }

    /// The server's address, without a slash at its end.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Keys of all projects that we see.
    ///
    /// # Errors
    /// [`ServiceError`]
    pub async fn project_keys(&self) -> Result<Vec<String>, ServiceError> {
        let projects: Vec<Project> = self.read("rest/api/2/project").await?;
        Ok(projects.into_iter().map(|project| project.key).collect())
    }

    /// Whether there is an issue of that key.
    ///
    /// # Errors
    /// [`ServiceError`]
    pub async fn has_issue(&self, key: &str) -> Result<bool, ServiceError> {
        let path = issue(key, "?fields=key");
        match self.call(Method::GET, &path, Bytes::new()).await {
            Ok(_) => Ok(true),
            Err(ServiceError::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// # Errors
    /// [`ServiceError`]
    pub async fn remote_links(&self, key: &str) -> Result<Vec<RemoteLink>, ServiceError> {
        self.read(&issue(key, "/remotelink")).await
    }

    /// Makes the link, or changes the one of its id.
    ///
    /// # Errors
    /// [`ServiceError`]
    pub async fn put_remote_link(&self, key: &str, link: &RemoteLink) -> Result<(), ServiceError> {
        let (method, path) = match link.id {
            None => (Method::POST, issue(key, "/remotelink")),
            Some(id) => (Method::PUT, issue(key, &format!("/remotelink/{id}"))),
        };
        let body = serde_json::to_vec(link)
            .map_err(|error| ServiceError::Refused(format!("{path}: {error}")))?;
        self.call(method, &path, body.into()).await?;
        Ok(())
    }

    async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T, ServiceError> {
        let answer = self.call(Method::GET, path, Bytes::new()).await?;
        serde_json::from_slice(&answer.body).map_err(|error| {
            ServiceError::Refused(format!("{}/{path}: cannot be read: {error}", self.url))
        })
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<OutsideAnswer, ServiceError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        if !body.is_empty() {
            let json = HeaderValue::from_static("application/json");
            headers.insert(header::CONTENT_TYPE, json);
        }
        if let Some(shown) = self.auth.header() {
            let mut value = HeaderValue::try_from(shown).map_err(|_| {
                ServiceError::Refused(format!("{}: the credentials are no header", self.url))
            })?;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        let address = format!("{}/{path}", self.url);
        let what = format!("{method} {address}");
        let answer = self.outside.send(method, &address, headers, body, TIMEOUT);
        taken(&what, answer.await?)
    }
}

impl JiraAuth {
    fn header(&self) -> Option<String> {
        match self {
            Self::Anonymous => None,
            Self::Basic { username, password } => {
                let both = format!("{username}:{}", password().trim());
                Some(format!("Basic {}", STANDARD.encode(both)))
            }
            Self::Bearer(token) => Some(format!("Bearer {}", token().trim())),
        }
    }
}

/// Keys are letters, a dash and digits; whatever else came here is made harmless.
fn issue(key: &str, rest: &str) -> String {
    let key: String = url::form_urlencoded::byte_serialize(key.as_bytes()).collect();
    format!("rest/api/2/issue/{key}{rest}")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn credentials_are_shown_as_jira_reads_them() {
        let secret = |text: &'static str| -> Secret { Arc::new(move || text.to_owned()) };
        assert_eq!(JiraAuth::Anonymous.header(), None);
        let bearer = JiraAuth::Bearer(secret("t\n"));
        assert_eq!(bearer.header().unwrap(), "Bearer t");
        let basic = JiraAuth::Basic {
            username: "bot".into(),
            password: secret("pw"),
        };
        assert_eq!(basic.header().unwrap(), "Basic Ym90OnB3");
    }

    #[test]
    fn links_are_written_as_jira_reads_them() {
        let link = RemoteLink {
            id: None,
            object: LinkedPage {
                url: "u".into(),
                title: "t".into(),
                icon: Some(LinkIcon {
                    url: "i".into(),
                    title: "GitHub".into(),
                }),
            },
        };
        assert_eq!(
            serde_json::to_string(&link).unwrap(),
            r#"{"object":{"url":"u","title":"t","icon":{"url16x16":"i","title":"GitHub"}}}"#
        );
    }
}
