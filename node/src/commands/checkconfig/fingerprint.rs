//! The fingerprint by which GitHub's code scanning knows a line again when others come and go above it. It is the one
//! that GitHub's own action adds to reports that have none, and warns of if another one is there.

use std::collections::BTreeMap;

/// Characters that a line's fingerprint covers, those of the lines after it included.
const COVERED: usize = 100;
const FACTOR: u64 = 37;
/// Stands for the end of the file.
const END: u16 = u16::MAX;

/// The fingerprint of each line of a text.
pub(super) fn of_lines(text: &str) -> Vec<String> {
    let (characters, lines) = squeezed(text);
    let mut seen: BTreeMap<u64, u32> = BTreeMap::new();
    let fingerprint = |start: usize| {
        let covered = characters[start..start + COVERED].iter();
        let hash = covered.fold(0_u64, |hash, c| {
            hash.wrapping_mul(FACTOR).wrapping_add(u64::from(*c))
        });
        let times = seen.entry(hash).or_default();
        *times += 1;
        format!("{hash:x}:{times}")
    };
    lines.into_iter().map(fingerprint).collect()
}

/// UTF-16 without spaces and tabs, one line feed for every end of a line, so many zeros behind the end that every line is
/// long enough; and where each line begins.
fn squeezed(text: &str) -> (Vec<u16>, Vec<usize>) {
    let mut characters = Vec::with_capacity(text.len() + COVERED + 1);
    let mut lines = Vec::new();
    let (mut is_new_line, mut is_after_return) = (true, false);
    let ended = text.encode_utf16().chain([END]);
    for mut c in ended {
        let is_second_half = is_after_return && c == u16::from(b'\n');
        if is_second_half || c == u16::from(b' ') || c == u16::from(b'\t') {
            is_after_return = false;
            continue;
        }
        is_after_return = c == u16::from(b'\r');
        if is_after_return {
            c = u16::from(b'\n');
        }
        if is_new_line {
            lines.push(characters.len());
        }
        is_new_line = c == u16::from(b'\n');
        characters.push(c);
    }
    characters.resize(characters.len() + COVERED, 0);
    (characters, lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values are those that GitHub's action gives.
    #[test]
    fn cfg_116_fingerprints_are_those_of_githubs_action() {
        assert_eq!(of_lines(""), ["c129715d7a2bc9a3:1"]);
        assert_eq!(
            of_lines(" a\nb\n  \t\tc\n d"),
            [
                "271789c17abda88f:1",
                "54703d4cd895b18:1",
                "180aee12dab6264:1",
                "a23a3dc5e078b07b:1"
            ]
        );
        let ends = [
            " hello; \t\nworld!!!\n\n\n  \t\tGreetings\n End\n",
            " hello; \t\r\nworld!!!\r\n\r\n\r\n  \t\tGreetings\r\n End\r\n",
            " hello; \t\nworld!!!\r\n\n\r  \t\tGreetings\r End\r\n",
        ];
        for text in ends {
            let lines = of_lines(text);
            assert_eq!(
                (lines.len(), lines[0].as_str(), lines[5].as_str()),
                (7, "e9496ae3ebfced30:1", "c8e28b0b4002a3a0:1"),
                "{text:?}"
            );
        }
        let alike = of_lines(&"Lorem ipsum dolor sit amet.\n".repeat(10));
        assert_eq!(alike[5], "a7f2ff13bc495cf2:6");
        assert_eq!(alike[6], "a7f2ff1481e87703:1");
        assert_eq!(alike.len(), 11);
    }
}
