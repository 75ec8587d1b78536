//! Reading what people write: Go's regular expressions for the commands that are fixed in code, and the removal of
//! code blocks.

use std::sync::LazyLock;

use regex::Regex;

/// Compiles a fixed pattern as Go's RE2 reads it (HOOK-024): `\s`, `\S`, `\w`, `\W`, `\d` and `\b` know only ASCII, and
/// `\s` has no vertical tab.
///
/// # Panics
/// On a pattern that does not compile: patterns are literals in this crate, each used by a test.
pub(crate) fn go_regex(pattern: &str) -> Regex {
    let translated = pattern
        .replace(r"\s", "[\\t\\n\\x0C\\r ]")
        .replace(r"\S", "[^\\t\\n\\x0C\\r ]")
        .replace(r"\W", "(?-i:[^0-9A-Za-z_])")
        .replace(r"\w", "[0-9A-Za-z_]")
        .replace(r"\d", "[0-9]")
        .replace(r"\b", r"(?-u:\b)");
    Regex::new(&translated).expect("a literal pattern of this crate compiles")
}

/// Several lazily compiled commands.
macro_rules! commands {
    ($($(#[$doc:meta])* $name:ident = $pattern:expr;)*) => {
        $(
            $(#[$doc])*
            pub(crate) static $name: std::sync::LazyLock<regex::Regex> =
                std::sync::LazyLock::new(|| $crate::text::go_regex($pattern));
        )*
    };
}
pub(crate) use commands;

static CODE_BLOCK: LazyLock<Regex> =
    LazyLock::new(|| go_regex("(?msU)^```.*(\n```\n|\n```$)|(?msU)^~~~.*(\n~~~\n|\n~~~$)"));

/// The text without its fenced code blocks (PLG-TRIGGER-003). A block whose closing fence does not stand alone on its
/// line stays.
pub(crate) fn drop_code_blocks(text: &str) -> String {
    CODE_BLOCK.replace_all(text, "").into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hook_024_space_is_ascii_without_vertical_tab() {
        let retest = go_regex(r"(?m)^/retest\s*$");
        assert!(retest.is_match("/retest \t\x0c\r\n"));
        assert!(!retest.is_match("/retest\u{a0}"));
        assert!(!retest.is_match("/retest\x0b"));
        assert!(go_regex(r"^/([^\s]+)$").is_match("/x\u{a0}y"));
    }

    #[test]
    fn plg_trigger_003_code_blocks_are_dropped() {
        for (text, expected) in [
            ("```\n/test all\n```", ""),
            ("```go\n/test all\n```\n/lgtm", "/lgtm"),
            ("a\n~~~\n/test all\n~~~\nb", "a\nb"),
            // The shortest match closes the block.
            ("```\na\n```\n/test all\n```\nb\n```", "/test all\n"),
            // Not closed, or not alone on its line.
            ("```\n/test all", "```\n/test all"),
            ("```\n/test all\n```x", "```\n/test all\n```x"),
            ("x ```\n/test all\n```", "x ```\n/test all\n```"),
            // A closing fence before a carriage return is not alone.
            ("```\r\n/test all\r\n```\r\n", "```\r\n/test all\r\n```\r\n"),
        ] {
            assert_eq!(drop_code_blocks(text), expected, "{text:?}");
        }
    }
}
