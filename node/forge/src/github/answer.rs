//! Reading GitHub's answers: JSON, links to further pages, redirects, and what it says when it refuses.

use http::{HeaderMap, Method, StatusCode, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::call::{Call, Effect};
use super::dry_run;
use super::transport::Answer;
use crate::error::{ForgeError, Result};

pub(super) fn decode<T: DeserializeOwned>(call: &Call<'_>, answer: &Answer) -> Result<T> {
    serde_json::from_slice(&answer.body).map_err(|error| {
        let request = call.name();
        if dry_run::is_invented(answer) {
            return ForgeError::DryRun { request };
        }
        unreadable(call, error.to_string())
    })
}

/// What was sent has taken effect, though its answer cannot be read.
pub(super) fn unreadable(call: &Call<'_>, reason: String) -> ForgeError {
    let request = call.name();
    match call.effect {
        Effect::Once => ForgeError::Unavailable {
            request,
            reason: format!("its answer cannot be read: {reason}"),
            maybe_sent: true,
        },
        Effect::Read | Effect::ReadNew | Effect::Idempotent => {
            ForgeError::Decode { request, reason }
        }
    }
}

/// Whoever is no member of an organisation is sent on to the list of its public members when asking about another
/// (GHC-023). That is another question: the error that it is instead.
pub(super) fn hidden_members(call: &Call<'_>, status: StatusCode) -> Option<ForgeError> {
    let parts: Vec<&str> = call.path.trim_start_matches('/').split('/').collect();
    let ["orgs", org, "members", _] = parts[..] else {
        return None;
    };
    (status == StatusCode::FOUND).then(|| ForgeError::Forbidden {
        request: call.name(),
        message: format!("we are no member of {org}, which hides its members from us"),
    })
}

/// Where a redirect leads that we follow: any for reads, those that keep the method for the rest.
pub(super) fn redirect(call: &Call<'_>, answer: &Answer) -> Option<String> {
    let follow = match answer.status {
        status if hidden_members(call, status).is_some() => false,
        StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => call.method == Method::GET,
        StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => true,
        _ => false,
    };
    let location = answer.headers.get(header::LOCATION)?.to_str().ok()?;
    follow.then(|| location.to_owned())
}

/// `rel="next"` of a `Link` header.
pub(super) fn next_page(headers: &HeaderMap) -> Option<String> {
    let links = headers.get(header::LINK)?.to_str().ok()?;
    links.split(',').find_map(|link| {
        let (target, parameters) = link.split_once(';')?;
        let next = parameters
            .split(';')
            .any(|parameter| matches!(parameter.trim(), "rel=\"next\"" | "rel=next"));
        let target = target.trim().strip_prefix('<')?.strip_suffix('>')?;
        next.then(|| target.to_owned())
    })
}

/// GitHub's sentence and its details, whichever of its two shapes they come in; the text itself if it is no JSON.
pub(super) fn complaint(body: &[u8]) -> (String, Vec<String>) {
    /// Of a text that is no JSON, this much is passed on.
    const EXCERPT: usize = 300;
    #[derive(Deserialize)]
    struct Complaint {
        #[serde(default)]
        message: String,
        #[serde(default)]
        errors: serde_json::Value,
    }
    match serde_json::from_slice::<Complaint>(body) {
        Ok(complaint) => {
            let errors = match complaint.errors {
                serde_json::Value::Array(errors) => errors.iter().map(detail).collect(),
                serde_json::Value::Null => Vec::new(),
                other => vec![detail(&other)],
            };
            (complaint.message, errors)
        }
        Err(_) => {
            let text = String::from_utf8_lossy(body);
            (text.trim().chars().take(EXCERPT).collect(), Vec::new())
        }
    }
}

fn detail(error: &serde_json::Value) -> String {
    let word = |key: &str| error.get(key).and_then(serde_json::Value::as_str);
    if let Some(text) = error.as_str().or_else(|| word("message")) {
        return text.to_owned();
    }
    match (word("resource"), word("field"), word("code")) {
        (Some(resource), Some(field), Some(code)) => format!("{resource}.{field}: {code}"),
        (_, _, Some(code)) => code.to_owned(),
        _ => error.to_string(),
    }
}

/// If the token lacks every scope that would do, say so instead of GitHub's bare "not found"-like sentence.
pub(super) fn scopes(headers: &HeaderMap) -> Option<String> {
    let list = |name: &str| {
        let text = headers.get(name)?.to_str().ok()?;
        let scopes = text.split(',').map(|scope| scope.trim().to_owned());
        Some(scopes.filter(|scope| !scope.is_empty()).collect::<Vec<_>>())
    };
    let accepted = list("x-accepted-oauth-scopes").filter(|accepted| !accepted.is_empty())?;
    let ours = list("x-oauth-scopes")?;
    if accepted.iter().any(|scope| ours.contains(scope)) {
        return None;
    }
    let have = if ours.is_empty() {
        "no".to_owned()
    } else {
        ours.join(", ")
    };
    Some(format!(
        "the token has {have} scopes, but one of these is needed: {}",
        accepted.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_next_page_is_the_link_that_says_so() {
        let headers = |link: &str| {
            HeaderMap::from_iter([(header::LINK, HeaderValue::from_str(link).unwrap())])
        };
        let link = r#"<https://api.github.com/x?page=1>; rel="prev", <https://api.github.com/x?page=3>; rel="next""#;
        assert_eq!(
            next_page(&headers(link)).as_deref(),
            Some("https://api.github.com/x?page=3")
        );
        assert_eq!(next_page(&headers(r#"<https://x/>; rel="last""#)), None);
        assert_eq!(next_page(&HeaderMap::new()), None);
    }

    /// GHC-008
    #[test]
    fn complaints_are_read_in_all_their_shapes() {
        let read = |body: &str| complaint(body.as_bytes());
        assert_eq!(
            read(
                r#"{"message":"Validation Failed","errors":[{"resource":"Label","field":"name","code":"invalid"},{"message":"m"},"s"]}"#
            ),
            (
                "Validation Failed".into(),
                vec!["Label.name: invalid".into(), "m".into(), "s".into()]
            )
        );
        assert_eq!(
            read(r#"{"message":"x","errors":"one"}"#),
            ("x".into(), vec!["one".into()])
        );
        assert_eq!(read(" <html>oops "), ("<html>oops".into(), vec![]));
    }

    /// GHC-007
    #[test]
    fn a_token_without_the_right_scope_is_told_so() {
        let headers = |accepted: &'static str, ours: &'static str| {
            HeaderMap::from_iter([
                (
                    http::HeaderName::from_static("x-accepted-oauth-scopes"),
                    HeaderValue::from_static(accepted),
                ),
                (
                    http::HeaderName::from_static("x-oauth-scopes"),
                    HeaderValue::from_static(ours),
                ),
            ])
        };
        assert_eq!(scopes(&headers("repo", "repo, admin:org")), None);
        assert_eq!(scopes(&headers("", "gist")), None);
        insta::assert_snapshot!(
            scopes(&headers("repo, admin:repo_hook", "gist")).unwrap(),
            @"the token has gist scopes, but one of these is needed: repo, admin:repo_hook"
        );
    }
}
