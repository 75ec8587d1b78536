//! Keys of Jira issues in texts. Pure.

use std::borrow::Cow;

use crate::text::commands;

commands! {
    KEY = r"\b([a-zA-Z]+-[0-9]+)(\s|:|$|]|\))";
}

/// What could be keys, in order.
pub(super) fn keys(text: &str) -> impl Iterator<Item = String> {
    KEY.captures_iter(text).map(|found| found[1].to_owned())
}

/// The text with links for these keys (PLG-JIRA-003). `url` has no slash at its end.
pub(super) fn insert(text: &str, keys: &[String], url: &str) -> String {
    let mut fences = 0;
    let lines = text.split('\n').map(|line| {
        fences += usize::from(line.starts_with("```"));
        if fences % 2 == 1 || line.starts_with("    ") {
            return Cow::Borrowed(line);
        }
        keys.iter().fold(Cow::Borrowed(line), |line, key| {
            Cow::Owned(link(&line, key, &format!("[{key}]({url}/browse/{key})")))
        })
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// A key within a link, within code or within a longer word stays.
fn link(line: &str, key: &str, link: &str) -> String {
    let mut linked = String::with_capacity(line.len());
    let mut from = 0;
    for (at, _) in line.match_indices(key) {
        let end = at + key.len();
        let before = line[..at].bytes().next_back();
        let after = line[end..].bytes().next();
        let starts =
            before.is_none_or(|byte| !b"[/`-".contains(&byte) && !byte.is_ascii_alphanumeric());
        let ends = after.is_none_or(|byte| !byte.is_ascii_alphanumeric());
        linked.push_str(&line[from..at]);
        linked.push_str(if starts && ends { link } else { key });
        from = end;
    }
    linked.push_str(&line[from..]);
    linked
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PLG-JIRA-001
    #[test]
    fn plg_jira_001_what_could_be_a_key() {
        for (text, expected) in [
            ("ABC-123", "ABC-123"),
            ("ABC-1: x abc-2 D-3) E-4] F-5,", "ABC-1 abc-2 D-3 E-4"),
            ("x\nABC-1\n", "ABC-1"),
            ("ABC-1.2 A1-2 -3", ""),
        ] {
            assert_eq!(
                keys(text).collect::<Vec<_>>().join(" "),
                expected,
                "{text:?}"
            );
        }
    }

    /// PLG-JIRA-003
    #[test]
    fn plg_jira_003_bare_keys_alone_become_links() {
        let keys = ["ABC-1".to_owned(), "XYZ-2".to_owned()];
        let linked = |text| insert(text, &keys, "https://j");
        let link = "[ABC-1](https://j/browse/ABC-1)";
        assert_eq!(linked("ABC-1"), link);
        assert_eq!(linked(link), link);
        assert_eq!(
            linked("(ABC-1), XYZ-2."),
            format!("({link}), [XYZ-2](https://j/browse/XYZ-2).")
        );
        for same in [
            "    ABC-1",
            "```\nABC-1\n```",
            "`ABC-1`",
            "x-ABC-1",
            "XABC-1",
            "ABC-12",
            "ABC-1x",
            "https://j/browse/ABC-1",
        ] {
            assert_eq!(linked(same), same);
        }
        assert_eq!(
            linked("```\nABC-1\n```\nABC-1"),
            format!("```\nABC-1\n```\n{link}")
        );
    }
}
