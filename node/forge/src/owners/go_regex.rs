//! The patterns of OWNERS filters and denied directories are Go's (HOOK-024). They are rewritten for the `regex` crate,
//! which is of the same family; it differs in a few spellings.

use regex::{Regex, RegexBuilder};

/// Compiled programs beyond this are refused; no pattern that people write comes near.
const SIZE_LIMIT: usize = 4 << 20;

/// A pattern as Go means it, for searching anywhere in a text.
///
/// # Errors
/// Go would not take it either, or it is enormous.
pub(super) fn compile(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(&translate(pattern)?)
        .size_limit(SIZE_LIMIT)
        .build()
        .map_err(|error| match error {
            regex::Error::Syntax(text) => text.lines().last().unwrap_or_default().to_owned(),
            other => other.to_string(),
        })
}

fn translate(pattern: &str) -> Result<String, String> {
    let mut out = String::with_capacity(pattern.len());
    let mut rest = pattern;
    let mut repeated = false;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        let was_repeated = std::mem::take(&mut repeated);
        rest = match c {
            '\\' => escape(after, &mut out, false),
            '[' => class(after, &mut out),
            '{' if !is_repetition(after) => {
                // In Go a brace that starts no repetition is itself.
                out.push_str("\\{");
                after
            }
            '*' | '+' | '?' | '{' => {
                if was_repeated {
                    return Err("a repetition of a repetition".to_owned());
                }
                repeated = true;
                let end = if c == '{' {
                    rest.find('}').unwrap_or(0) + 1
                } else {
                    1
                };
                // A question mark after it makes it lazy.
                let end = if rest[end..].starts_with('?') {
                    end + 1
                } else {
                    end
                };
                out.push_str(&rest[..end]);
                &rest[end..]
            }
            c => {
                out.push(c);
                after
            }
        };
    }
    Ok(out)
}

/// What follows a backslash. Returns what is left.
fn escape<'a>(rest: &'a str, out: &mut String, in_class: bool) -> &'a str {
    let Some(c) = rest.chars().next() else {
        // A backslash at the end: an error in both languages.
        out.push('\\');
        return rest;
    };
    let after = &rest[c.len_utf8()..];
    // In Go these are ASCII.
    let ascii = match c {
        'd' | 'D' => "0-9",
        's' | 'S' => "\\t\\n\\f\\r ",
        'w' | 'W' => "0-9A-Za-z_",
        'b' if !in_class => {
            out.push_str("(?-u:\\b)");
            return after;
        }
        'Q' if !in_class => {
            let (quoted, left) = after.split_once("\\E").unwrap_or((after, ""));
            out.push_str(&regex::escape(quoted));
            return left;
        }
        // Go takes them as themselves, the crate as ends of words.
        '<' | '>' => {
            out.push(c);
            return after;
        }
        _ => {
            out.push('\\');
            out.push(c);
            return after;
        }
    };
    if c.is_ascii_uppercase() {
        out.push_str(&format!("[^{ascii}]"));
    } else if in_class {
        out.push_str(ascii);
    } else {
        out.push_str(&format!("[{ascii}]"));
    }
    after
}

/// What follows an opening bracket, up to its closing one. Returns what is left.
fn class<'a>(rest: &'a str, out: &mut String) -> &'a str {
    out.push('[');
    let mut rest = rest;
    if let Some(after) = rest.strip_prefix('^') {
        out.push('^');
        rest = after;
    }
    // A closing bracket in the first place is itself.
    if let Some(after) = rest.strip_prefix(']') {
        out.push_str("\\]");
        rest = after;
    }
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        rest = match c {
            ']' => {
                out.push(']');
                return after;
            }
            '\\' => escape(after, out, true),
            '[' if after.starts_with(':') => match after.split_once(":]") {
                Some((name, left)) => {
                    out.push_str(&format!("[{name}:]"));
                    left
                }
                None => {
                    out.push_str("\\[");
                    after
                }
            },
            // Set operations and nested classes are the crate's own.
            '[' | '&' | '~' => {
                out.push('\\');
                out.push(c);
                after
            }
            '-' if after.starts_with('-') => {
                out.push_str("\\-");
                after
            }
            c => {
                out.push(c);
                after
            }
        };
    }
    rest
}

/// `3}`, `3,}`, `3,5}`.
fn is_repetition(after_brace: &str) -> bool {
    let Some((inside, _)) = after_brace.split_once('}') else {
        return false;
    };
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match inside.split_once(',') {
        None => number(inside),
        Some((from, to)) => number(from) && (to.is_empty() || number(to)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// HOOK-024
    #[test]
    fn patterns_mean_what_they_mean_in_go() {
        let matches = |pattern: &str, text: &str| compile(pattern).unwrap().is_match(text);
        assert!(matches(r"\.go$", "a/b.go") && !matches(r"\.go$", "b.gox"));
        assert!(matches(r"^\d+$", "12") && !matches(r"^\d+$", "١٢"));
        assert!(matches(r"^\W$", "é") && matches(r"^[\W]$", "é"));
        assert!(matches(r"\Qa.b\E$", "xa.b") && !matches(r"\Qa.b\E$", "xaxb"));
        assert!(matches("a{b}", "a{b}") && matches("^a{2}$", "aa"));
        assert!(matches("[[a]", "[") && matches("[]a]", "]") && matches("[a&&b]", "&"));
        assert!(matches("^[[:digit:]x]+$", "1x"));
        assert!(matches(r"\bfoo\b", "a foo b"));
        for bad in ["[", "(", "a**", "(?=x)", r"\"] {
            assert!(compile(bad).is_err(), "{bad}");
        }
        insta::assert_snapshot!(compile("[").unwrap_err(), @"error: unclosed character class");
    }
}
