//! Which texts Go's `url.Parse` accepts, and the scheme that it finds.

/// The scheme of a URL in lower case, empty if there is none.
///
/// # Errors
/// Why Go would not parse the text.
pub(crate) fn scheme(text: &str) -> Result<String, String> {
    let refused = |reason: &str| Err(format!("parse {text:?}: {reason}"));
    if text.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return refused("net/url: invalid control character in URL");
    }
    let without_fragment = text.split('#').next().unwrap_or_default();
    let (scheme, rest) = match split_scheme(without_fragment) {
        Ok(parts) => parts,
        Err(reason) => return refused(reason),
    };
    let path_and_host = rest.split('?').next().unwrap_or_default();
    let Some(after) = path_and_host.strip_prefix("//") else {
        if scheme.is_empty() && !path_and_host.starts_with('/') {
            // Otherwise "host:port/path" would read as a scheme.
            let first = path_and_host.split('/').next().unwrap_or_default();
            if first.contains(':') {
                return refused("first path segment in URL cannot contain colon");
            }
        }
        if let Some(bad) = bad_escape(path_and_host) {
            return refused(&format!("invalid URL escape {bad:?}"));
        }
        return Ok(scheme);
    };
    let (authority, path) = after.split_at(after.find('/').unwrap_or(after.len()));
    let host = authority.rsplit('@').next().unwrap_or_default();
    if host.contains(' ') {
        return refused("invalid character \" \" in host name");
    }
    let port = match host.strip_prefix('[') {
        Some(v6) => match v6.split_once(']') {
            Some((_, after)) => after,
            None => return refused("missing ']' in host"),
        },
        None => host.rfind(':').map_or("", |at| &host[at..]),
    };
    if !port.is_empty()
        && !port
            .strip_prefix(':')
            .is_some_and(|p| p.bytes().all(|b| b.is_ascii_digit()))
    {
        return refused(&format!("invalid port {port:?} after host"));
    }
    if let Some(bad) = bad_escape(path).or_else(|| bad_escape(host)) {
        return refused(&format!("invalid URL escape {bad:?}"));
    }
    Ok(scheme)
}

fn split_scheme(text: &str) -> Result<(String, &str), &'static str> {
    for (at, c) in text.char_indices() {
        match c {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if at > 0 => {}
            ':' if at == 0 => return Err("missing protocol scheme"),
            ':' => return Ok((text[..at].to_ascii_lowercase(), &text[at + 1..])),
            _ => break,
        }
    }
    Ok((String::new(), text))
}

fn bad_escape(text: &str) -> Option<&str> {
    text.match_indices('%').find_map(|(at, _)| {
        let escape = text.get(at..).map(|rest| rest.get(..3).unwrap_or(rest))?;
        let valid = escape.len() == 3 && escape.bytes().skip(1).all(|b| b.is_ascii_hexdigit());
        (!valid).then_some(escape)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_accepted_as_go_accepts_them() {
        assert_eq!(scheme("https://host:80/a%20b?c#d").as_deref(), Ok("https"));
        assert_eq!(scheme("github.com/org/repo.git").as_deref(), Ok(""));
        assert_eq!(scheme("").as_deref(), Ok(""));
        assert_eq!(scheme("github.com:org/repo").as_deref(), Ok("github.com"));
        assert!(scheme("1a:b").is_err());
        assert!(scheme("https://a:b/").is_err());
        assert!(scheme("https://a/%zz").is_err());
        assert!(scheme(":a").is_err());
        assert!(scheme("a\nb").is_err());
    }
}
