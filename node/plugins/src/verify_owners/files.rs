//! What is wrong with one OWNERS file, and where in its diff that is to be said.

use std::collections::BTreeSet;

use trireme_config::GoRegex;
use trireme_forge::owners::{OwnersContent, OwnersEntry, OwnersFile};

use crate::text::commands;

commands! {
    LINE = r"line (\d+)";
    HUNK = r"^@@ -\d+(?:,\d+)? \+(\d+)(?:,\d+)? @@";
}

/// What a file says for each of its patterns; those of the simple form are for `.*`.
pub(super) fn entries(file: &OwnersFile) -> Vec<(&str, &OwnersEntry)> {
    match &file.content {
        OwnersContent::Simple(entry) => vec![(".*", entry)],
        OwnersContent::Filters(filters) => filters
            .iter()
            .map(|(pattern, entry)| (pattern.as_str(), entry))
            .collect(),
    }
}

/// The file, or what is wrong with it (PLG-VERIFYOWNERS-004, PLG-VERIFYOWNERS-005). `name` is that of OWNERS files.
pub(super) fn check(
    path: &str,
    bytes: &[u8],
    name: &str,
    banned: &[String],
) -> Result<OwnersFile, String> {
    let file = OwnersFile::parse(bytes).map_err(|error| format!("Cannot parse file: {error}."))?;
    let entries = entries(&file);
    for (pattern, _) in &entries {
        if let Err(error) = GoRegex::new(pattern) {
            return Err(format!("Cannot parse file: {error}."));
        }
    }
    let labels = entries.iter().flat_map(|(_, entry)| &entry.labels);
    let labels: BTreeSet<&str> = labels
        .filter(|label| banned.contains(label))
        .map(String::as_str)
        .collect();
    if !labels.is_empty() {
        let labels = labels.into_iter().collect::<Vec<_>>().join(" ");
        return Err(format!("File contains banned labels: [{labels}]."));
    }
    let is_root = !path.contains('/');
    if is_root && entries.iter().all(|(_, entry)| entry.approvers.is_empty()) {
        return Err(format!(
            "No approvers defined in this root directory {name} file."
        ));
    }
    Ok(file)
}

/// The line of the diff for what is wrong: that of the line which the text names if it was added, else the first.
pub(super) fn position(patch: &str, message: &str) -> u32 {
    let named = LINE
        .captures(message)
        .and_then(|found| found.get(1)?.as_str().parse().ok());
    named.and_then(|line| added(patch, line)).unwrap_or(1)
}

/// Where in the diff a line of the new file was added.
fn added(patch: &str, wanted: u32) -> Option<u32> {
    let mut line: u32 = 0;
    for (position, text) in (0..).zip(patch.split('\n')) {
        if let Some(hunk) = HUNK.captures(text) {
            line = hunk.get(1)?.as_str().parse().ok()?;
            continue;
        }
        match text.chars().next() {
            Some('+') if line == wanted => return Some(position),
            Some('+' | ' ') => line = line.saturating_add(1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(path: &str, text: &str) -> String {
        let banned = ["approved".to_owned(), "lgtm".to_owned()];
        match check(path, text.as_bytes(), "OWNERS", &banned) {
            Ok(_) => "fine".to_owned(),
            Err(message) => message,
        }
    }

    #[test]
    fn plg_verifyowners_004_what_is_wrong_with_a_file() {
        for (path, text, expected) in [
            ("OWNERS", "approvers: [a]", "fine"),
            ("a/OWNERS", "reviewers: [a]", "fine"),
            ("a/OWNERS", "", "fine"),
            (
                "OWNERS",
                "reviewers: [a]",
                "No approvers defined in this root directory OWNERS file.",
            ),
            (
                "OWNERS",
                "",
                "No approvers defined in this root directory OWNERS file.",
            ),
            (
                "OWNERS",
                "filters:\n  '.*': {reviewers: [a]}\n  'x': {approvers: [b]}",
                "fine",
            ),
            (
                "a/OWNERS",
                "labels: [lgtm, kind/x, approved]",
                "File contains banned labels: [approved lgtm].",
            ),
            (
                "a/OWNERS",
                "filters:\n  a: {labels: [lgtm]}\n  b: {labels: [sig/x]}",
                "File contains banned labels: [lgtm].",
            ),
        ] {
            assert_eq!(wrong(path, text), expected, "{path} {text:?}");
        }
        insta::assert_snapshot!(wrong("a/OWNERS", "approvers: a"), @"Cannot parse file: approvers must be a list of names, not a string.");
        insta::assert_snapshot!(wrong("a/OWNERS", "approvers:\n- a\n- [\n"), @"Cannot parse file: line 3: unclosed bracket '['.");
        // PLG-VERIFYOWNERS-010
        insta::assert_snapshot!(wrong("a/OWNERS", "filters:\n  '(': {approvers: [a]}"), @"Cannot parse file: error parsing regexp: missing closing ): `(`.");
    }

    #[test]
    fn plg_verifyowners_005_the_place_is_that_of_an_added_line() {
        let patch = "@@ -1,2 +1,3 @@\n approvers:\n-- a\n+- b\n+- [\n@@ -9,1 +10,2 @@ x\n z\n+new\n\\ No newline at end of file";
        for (message, expected) in [
            ("line 3: no", 4),
            ("yaml: line 2: no", 3),
            ("line 11", 7),
            ("line 1", 1),
            ("line 10", 1),
            ("no place", 1),
        ] {
            assert_eq!(position(patch, message), expected, "{message}");
        }
        assert_eq!(position("", "line 3"), 1);
    }
}
