//! Kubernetes' rules for the names of labels and annotations, and for selectors on them.

/// What a label value must look like, in Kubernetes' words.
pub(crate) const LABEL_VALUE_RULE: &str = "a valid label must be an empty string or consist of alphanumeric \
     characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or \
     'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

const MAX_NAME: usize = 63;
const MAX_PREFIX: usize = 253;

/// Why a text is no qualified name (`[dns/]name`); none if it is one.
pub(crate) fn qualified_name_problem(text: &str) -> Option<String> {
    let name = match text.split_once('/') {
        None => text,
        Some((_, name)) if name.contains('/') => {
            return Some("a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start \
                         and end with an alphanumeric character with an optional DNS subdomain prefix and '/' (e.g. \
                         'example.com/MyName')"
                .to_owned());
        }
        Some((prefix, name)) => {
            if prefix.is_empty() {
                return Some("prefix part must be non-empty".to_owned());
            }
            if prefix.len() > MAX_PREFIX || !prefix.split('.').all(is_dns_part) {
                return Some("prefix part a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
                             characters, '-' or '.', and must start and end with an alphanumeric character"
                    .to_owned());
            }
            name
        }
    };
    if name.is_empty() {
        return Some("name part must be non-empty".to_owned());
    }
    if name.len() > MAX_NAME {
        return Some(format!(
            "name part must be no more than {MAX_NAME} characters"
        ));
    }
    let bytes = name.as_bytes();
    let ends = bytes.first().zip(bytes.last());
    let valid = ends
        .is_some_and(|(first, last)| first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric())
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    (!valid).then(|| {
        "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
         alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
         '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
            .to_owned()
    })
}

fn is_dns_part(part: &str) -> bool {
    let bytes = part.as_bytes();
    let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    bytes.first().is_some_and(inner)
        && bytes.last().is_some_and(inner)
        && bytes.iter().all(|b| inner(b) || *b == b'-')
}

/// Why a text is no label selector (`a=b,c!=d,e in (f,g),!h`); none if it is one. An empty one selects everything.
pub(crate) fn selector_problem(text: &str) -> Option<String> {
    let tokens = selector_tokens(text);
    let mut rest = tokens.as_slice();
    while !rest.is_empty() {
        rest = match requirement(rest) {
            Ok(rest) => rest,
            Err(problem) => return Some(format!("unable to parse requirement: {problem}")),
        };
        match rest {
            [] => {}
            [comma, after @ ..] if *comma == "," && !after.is_empty() => rest = after,
            [other, ..] => {
                return Some(format!("found '{other}', expected: ',' or 'end of string'"));
            }
        }
    }
    None
}

fn selector_tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(c) = rest.chars().next() {
        let special = |c: char| matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<');
        let length = match c {
            '=' if rest.starts_with("==") => 2,
            '!' if rest.starts_with("!=") => 2,
            c if special(c) => 1,
            _ => rest
                .find(|c: char| special(c) || c.is_whitespace())
                .unwrap_or(rest.len()),
        };
        tokens.push(&rest[..length]);
        rest = rest[length..].trim_start();
    }
    tokens
}

fn is_word(token: &str) -> bool {
    !token.starts_with(['=', '!', '(', ')', ',', '>', '<'])
}

/// Reads one requirement; returns what follows it.
fn requirement<'a, 't>(tokens: &'a [&'t str]) -> Result<&'a [&'t str], String> {
    let (negated, tokens) = match tokens {
        ["!", rest @ ..] => (true, rest),
        tokens => (false, tokens),
    };
    let [key, rest @ ..] = tokens else {
        return Err("found '', expected: identifier".to_owned());
    };
    if !is_word(key) {
        return Err(format!("found '{key}', expected: identifier"));
    }
    if let Some(problem) = qualified_name_problem(key) {
        return Err(problem);
    }
    match rest {
        [] | [",", ..] => Ok(rest),
        [operator, ..] if negated => Err(format!(
            "found '{operator}', expected: ',' or 'end of string'"
        )),
        ["=" | "==" | "!=" | ">" | "<", value, rest @ ..] if is_word(value) => Ok(rest),
        // Nothing after the operator is an empty value.
        ["=" | "==" | "!=", rest @ ..] if matches!(rest, [] | [",", ..]) => Ok(rest),
        ["in" | "notin", "(", rest @ ..] => {
            let end = rest
                .iter()
                .position(|token| *token == ")")
                .ok_or("found '', expected: ',' or ')'")?;
            match rest[..end]
                .iter()
                .find(|token| !is_word(token) && **token != ",")
            {
                Some(token) => Err(format!("found '{token}', expected: ',', or identifier")),
                None => Ok(&rest[end + 1..]),
            }
        }
        ["in" | "notin", token, ..] => Err(format!("found '{token}' expected: '('")),
        ["=" | "==" | "!=" | ">" | "<", token, ..] => {
            Err(format!("found '{token}', expected: identifier"))
        }
        [token, ..] => Err(format!(
            "found '{token}', expected: in, notin, =, ==, !=, gt, lt"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_039_qualified_names() {
        for valid in [
            "a",
            "testgrid-tab-name",
            "prow.k8s.io/x",
            "karpenter.sh/do-not-disrupt",
            "A.b_c",
        ] {
            assert_eq!(qualified_name_problem(valid), None, "{valid}");
        }
        for invalid in ["", "-a", "a/b/c", "/a", "a/", "Ex.com/a", "a b"] {
            assert!(qualified_name_problem(invalid).is_some(), "{invalid}");
        }
    }

    #[test]
    fn cfg_048_selectors() {
        for valid in [
            "",
            "a",
            "!a",
            "a=b",
            "a==b,c!=d",
            "e in (f, g),h notin (i)",
            "a=",
            "x>1",
        ] {
            assert_eq!(selector_problem(valid), None, "{valid}");
        }
        for invalid in ["a==b==c", "!!", "a in b", "=b", "a,", "a b"] {
            assert!(selector_problem(invalid).is_some(), "{invalid}");
        }
    }
}
