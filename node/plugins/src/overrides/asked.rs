//! What a text asks for: which contexts to force, and which overrides to take back (PLG-OVERRIDE-001).

use std::collections::BTreeSet;

use regex::Regex;

use crate::text::commands;

commands! {
    STICKY = r"(?mi)^/override-sticky( ([^\r\n]+))?[\r\n]?$";
    CANCEL = r"(?mi)^/override-cancel( ([^\r\n]+))?[\r\n]?$";
    PLAIN = r"(?mi)^/override( ([^\r\n]+))?[\r\n]?$";
}

/// One of the three commands, its lines taken together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ask {
    /// `None` for all.
    Cancel(Option<BTreeSet<String>>),
    /// `None` where a line names none: then nothing is done.
    Force {
        sticky: bool,
        names: Option<BTreeSet<String>>,
    },
}

impl Ask {
    pub(super) const fn command(&self) -> &'static str {
        match self {
            Self::Cancel(_) => "/override-cancel",
            Self::Force { sticky: true, .. } => "/override-sticky",
            Self::Force { sticky: false, .. } => "/override",
        }
    }

    /// Whether the text alone decides what is answered.
    pub(super) const fn is_bare(&self) -> bool {
        matches!(self, Self::Force { names: None, .. })
    }
}

/// In the order in which they are done.
pub(super) fn asked(body: &str) -> Vec<Ask> {
    let cancel = names(&CANCEL, body).map(Ask::Cancel);
    let force = |command, sticky| names(command, body).map(|names| Ask::Force { sticky, names });
    let all = [cancel, force(&STICKY, true), force(&PLAIN, false)];
    all.into_iter().flatten().collect()
}

/// The names on all lines of a command; `Some(None)` if one of them has none.
#[expect(
    clippy::option_option,
    reason = "no command, one without names, one with"
)]
fn names(command: &Regex, body: &str) -> Option<Option<BTreeSet<String>>> {
    let mut lines = command.captures_iter(body).peekable();
    lines.peek()?;
    let mut all = BTreeSet::new();
    for line in lines {
        match line.get(2) {
            None => return Some(None),
            Some(arguments) => all.extend(split(arguments.as_str())),
        }
    }
    Some(Some(all))
}

/// Words between spaces; double quotes keep several together.
fn split(arguments: &str) -> Vec<String> {
    let mut quoted = false;
    let words = arguments.split(|letter| {
        quoted ^= letter == '"';
        !quoted && letter == ' '
    });
    words
        .filter(|word| !word.is_empty())
        .map(|word| word.trim().trim_matches('"').to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(body: &str) -> String {
        let asked = asked(body);
        let told = asked.iter().map(|ask| match ask {
            Ask::Cancel(names) => format!("cancel {names:?}"),
            Ask::Force { sticky, names } => {
                format!("{} {names:?}", if *sticky { "sticky" } else { "plain" })
            }
        });
        told.collect::<Vec<_>>().join("; ").replace("Some", "")
    }

    #[test]
    fn plg_override_001_lines_add_up_and_quotes_group() {
        for (body, expected) in [
            ("/override unit", r#"plain ({"unit"})"#),
            ("/OVERRIDE a b\r\nthanks", r#"plain ({"a", "b"})"#),
            ("/override a\n/override b  c", r#"plain ({"a", "b", "c"})"#),
            (
                r#"/override "test / Unit Tests" lint"#,
                r#"plain ({"lint", "test / Unit Tests"})"#,
            ),
            (r#"/override "a b"#, r#"plain ({"a b"})"#),
            ("/override", "plain None"),
            ("/override a\n/override", "plain None"),
            ("/override-sticky a", r#"sticky ({"a"})"#),
            ("/override-cancel", "cancel None"),
            ("/override-cancel a", r#"cancel ({"a"})"#),
            (
                "/override c\n/override-sticky b\n/override-cancel a",
                r#"cancel ({"a"}); sticky ({"b"}); plain ({"c"})"#,
            ),
            ("/override  ", "plain ({})"),
            ("/override ", ""),
            (" /override a", ""),
            ("/overrides a", ""),
        ] {
            assert_eq!(told(body), expected, "{body:?}");
        }
    }
}
