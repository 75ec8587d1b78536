//! Repository names of Gerrit hosts, which carry a scheme: `https://host/path/to/repo`.

/// Whether an org or repository is on Gerrit.
#[must_use]
pub fn is_gerrit_org(name: &str) -> bool {
    name.starts_with("https://") || name.starts_with("http://")
}

/// Without scheme and closing slashes.
#[must_use]
pub fn trim_scheme(name: &str) -> &str {
    let name = name.strip_prefix("https://").unwrap_or(name);
    name.strip_prefix("http://")
        .unwrap_or(name)
        .trim_end_matches('/')
}

/// With a scheme, without closing slashes.
#[must_use]
pub fn normalize_clone_uri(uri: &str) -> String {
    let scheme = if uri.starts_with("http://") {
        "http://"
    } else {
        "https://"
    };
    format!("{scheme}{}", trim_scheme(uri).trim_matches('/'))
}

/// Org and repository of a full name; the org of a Gerrit name is its host with scheme.
#[must_use]
pub fn split_repo(name: &str) -> Option<(String, String)> {
    if !is_gerrit_org(name) {
        let (org, repo) = name.split_once('/')?;
        return Some((org.to_owned(), repo.to_owned()));
    }
    let scheme = if name.starts_with("http://") {
        "http://"
    } else {
        "https://"
    };
    let (host, repo) = trim_scheme(name).split_once('/')?;
    Some((
        normalize_clone_uri(&format!("{scheme}{host}")),
        repo.trim_end_matches('/').to_owned(),
    ))
}

/// The host that serves code: Gerrit's review hosts end their first part in `-review`.
pub(crate) fn code_url(url: &str) -> String {
    match url.split_once('.') {
        Some((first, rest)) if first.ends_with("-review") => {
            format!("{}.{rest}", first.trim_end_matches("-review"))
        }
        _ => url.to_owned(),
    }
}
