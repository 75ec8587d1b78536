//! The description of a status: what a person reads, and the base commit for Tide, in GitHub's 140 bytes.

/// What GitHub takes at most, in bytes.
pub const MAX_DESCRIPTION: usize = 140;

/// In a description: valid for this head whatever the base is (read by Tide).
pub const SKIP_RETEST: &str = "[prow:skip-retest]";

const BASE_SHA: &str = " BaseSHA:";
/// As Prow wrote it before `BASE_SHA`.
const BASE_SHA_OLD: &str = " Basesha:";
const ELIDED: &str = " ... ";
/// Looks like a space, and GitHub's pages do not fold it.
const PADDING: char = '\u{2001}';
const SHA_DIGITS: usize = 40;

/// `text` with the base commit at its end, so that the result outlives the job's record (CRI-011).
///
/// Longer texts lose their middle; shorter ones are padded, so that the commit stands at the right edge of GitHub's
/// pages, which cut it off.
#[must_use]
pub fn with_base_sha(text: &str, base_sha: &str) -> String {
    let mut suffix = String::new();
    if !base_sha.is_empty() {
        let mut room = MAX_DESCRIPTION.saturating_sub(text.len() + BASE_SHA.len() + base_sha.len());
        // Prow measures again after each pad, which is three bytes long and counted as one more to go.
        let mut pads = 0;
        while pads < room {
            suffix.push(PADDING);
            room = room.saturating_sub(PADDING.len_utf8());
            pads += 1;
        }
        suffix.push_str(BASE_SHA);
        suffix.push_str(base_sha);
    }
    elide_middle(text, MAX_DESCRIPTION.saturating_sub(suffix.len())) + &suffix
}

/// The base commit in a description; `None` unless exactly one of 40 characters follows at its end (CRI-020).
#[must_use]
pub fn base_sha_of(description: &str) -> Option<&str> {
    [BASE_SHA, BASE_SHA_OLD].into_iter().find_map(|mark| {
        let (_, sha) = description.split_once(mark)?;
        (sha.len() == SHA_DIGITS && !sha.contains(mark)).then_some(sha)
    })
}

/// Whether Tide takes this context as passed on any base (TIDE-061).
#[must_use]
pub fn skips_retest(description: &str) -> bool {
    description.contains(SKIP_RETEST)
}

/// Upstream cuts by bytes, and through characters; here what is left of one goes with it (JOB-066).
fn elide_middle(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let half = max.saturating_sub(ELIDED.len()) / 2;
    let head = &text[..text.floor_char_boundary(half)];
    let tail = &text[text.ceil_char_boundary(text.len() - half)..];
    format!("{head}{ELIDED}{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA: &str = "1111111111111111111111111111111111111111";

    /// JOB-066: the commit at the end, 140 bytes at most, no character in half.
    #[test]
    fn job_066_shortened_between_characters() {
        let text = with_base_sha(&"größe ✓ ".repeat(30), SHA);
        insta::assert_snapshot!(text.replace(PADDING, "~"), @"größe ✓ größe ✓ größe ✓ größe ... e ✓ größe ✓ größe ✓ größe ✓  BaseSHA:1111111111111111111111111111111111111111");
        for length in 0..200 {
            let text = with_base_sha(&"a✓".repeat(length), SHA);
            assert!(text.len() <= MAX_DESCRIPTION && !text.contains(char::REPLACEMENT_CHARACTER));
            assert_eq!(base_sha_of(&text), Some(SHA));
        }
    }

    #[test]
    fn cri_011_the_base_commit_stands_at_the_end() {
        let visible = |text: &str| with_base_sha(text, SHA).replace(PADDING, "~");
        insta::assert_snapshot!(visible("Job succeeded."), @"Job succeeded.~~~~~~~~~~~~~~~~~~~~ BaseSHA:1111111111111111111111111111111111111111");
        insta::assert_snapshot!(with_base_sha("Job succeeded.", ""), @"Job succeeded.");
        insta::assert_snapshot!(visible(&"long ".repeat(40)), @"long long long long long long long long lon ... ng long long long long long long long long  BaseSHA:1111111111111111111111111111111111111111");
    }

    /// JOB-066, JOB-071.
    #[test]
    fn cri_020_both_spellings_are_read_back() {
        assert_eq!(base_sha_of(&with_base_sha("x", SHA)), Some(SHA));
        assert_eq!(base_sha_of(&format!("x Basesha:{SHA}")), Some(SHA));
        assert_eq!(base_sha_of("x BaseSHA:11"), None);
        assert!(skips_retest("Overridden by alice [prow:skip-retest]"));
    }
}
