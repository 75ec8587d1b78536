//! The block in the text, and the label that follows from it.

use std::ops::Range;

use crate::label_names::{
    DEPRECATION, RELEASE_NOTE, RELEASE_NOTE_ACTION_REQUIRED, RELEASE_NOTE_NEEDED, RELEASE_NOTE_NONE,
};
use crate::text::commands;

commands! {
    BLOCK = r"(?s)(?:Release note\*\*:\s*(?:<!--[^<>]*-->\s*)?```(?:release-note)?|```release-note)(.+?)```";
    NONE = r"(?i)^\W*(NONE|NO)\W*$";
}

/// Of these a pull request has exactly one.
pub(super) const LABELS: [&str; 4] = [
    RELEASE_NOTE_NONE,
    RELEASE_NOTE_ACTION_REQUIRED,
    RELEASE_NOTE_NEEDED,
    RELEASE_NOTE,
];

/// Where the content of the first block is.
pub(super) fn place(body: &str) -> Option<Range<usize>> {
    let found = BLOCK.captures(body)?.get(1)?;
    Some(found.range())
}

/// What the first block says; empty without one.
pub(super) fn note(body: &str) -> &str {
    place(body).map_or("", |place| body[place].trim())
}

/// PLG-RELEASENOTE-001, PLG-RELEASENOTE-002: `labelled` says which labels are set, exactly as written.
pub(super) fn label(body: &str, labelled: impl Fn(&str) -> bool) -> &'static str {
    let note = note(body).to_lowercase();
    let deprecates = labelled(DEPRECATION);
    if note.is_empty() {
        match !deprecates && labelled(RELEASE_NOTE_NONE) {
            true => RELEASE_NOTE_NONE,
            false => RELEASE_NOTE_NEEDED,
        }
    } else if NONE.is_match(&note) {
        match deprecates {
            true => RELEASE_NOTE_NEEDED,
            false => RELEASE_NOTE_NONE,
        }
    } else if note.contains("action required") {
        RELEASE_NOTE_ACTION_REQUIRED
    } else {
        RELEASE_NOTE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plg_releasenote_001_the_first_block_is_the_note() {
        for (body, expected) in [
            ("```release-note\r\nA new flag.\r\n```", "A new flag."),
            (
                "x\n```release-note\na\nb\n```\n```release-note\nc\n```",
                "a\nb",
            ),
            ("**Release note**:\n```\nplain\n```", "plain"),
            (
                "**Release note**:\n<!-- write here -->\n```release-note\nhere\n```",
                "here",
            ),
            ("Release note:\n```\nnot bold\n```", ""),
            ("```release-note\n\n```", ""),
            ("```release-note```", ""),
            ("```go\nx\n```", ""),
            ("", ""),
        ] {
            assert_eq!(note(body), expected, "{body:?}");
        }
    }

    /// PLG-RELEASENOTE-001, PLG-RELEASENOTE-002
    #[test]
    fn plg_releasenote_002_the_label_follows_from_block_and_labels() {
        let block = |text: &str| format!("```release-note\n{text}\n```");
        let none: &[&str] = &[];
        for (text, labels, expected) in [
            ("", none, RELEASE_NOTE_NEEDED),
            ("", &[RELEASE_NOTE_NONE], RELEASE_NOTE_NONE),
            ("", &[RELEASE_NOTE_NONE, DEPRECATION], RELEASE_NOTE_NEEDED),
            ("NONE", none, RELEASE_NOTE_NONE),
            ("\"no\".", none, RELEASE_NOTE_NONE),
            ("None of it", none, RELEASE_NOTE),
            ("none", &[DEPRECATION], RELEASE_NOTE_NEEDED),
            ("A flag", &[DEPRECATION], RELEASE_NOTE),
            ("Action Required: move", none, RELEASE_NOTE_ACTION_REQUIRED),
            ("actionrequired", none, RELEASE_NOTE),
        ] {
            let label = label(&block(text), |label| labels.contains(&label));
            assert_eq!(label, expected, "{text:?} {labels:?}");
        }
    }
}
