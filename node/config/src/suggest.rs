//! "Did you mean": the known word that is closest to one that is not known.

use strsim::{jaro_winkler, osa_distance};

/// Longer words are not compared: nobody misspells a name of this length.
const MAX_WORD: usize = 64;

/// The known word that somebody who wrote `word` most likely meant. Case and the choice between `-`, `_` and nothing do
/// not count; otherwise at most a third of the letters may differ.
pub(crate) fn closest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    if word.len() > MAX_WORD {
        return None;
    }
    let plain = |word: &str| word.to_lowercase().replace(['-', '_', ' '], "");
    let wanted = plain(word);
    let allowed = wanted.chars().count().max(3) / 3;
    let mut best: Option<(usize, f64, &str)> = None;
    for candidate in known {
        if candidate.len().abs_diff(word.len()) > allowed + 2 {
            continue;
        }
        let other = plain(candidate);
        let distance = osa_distance(&wanted, &other);
        if distance > allowed {
            continue;
        }
        // Of two at the same distance the one with the same beginning.
        let alike = jaro_winkler(&wanted, &other);
        let better = best.is_none_or(|(known, score, _)| {
            distance < known || (distance == known && alike > score)
        });
        if better {
            best = Some((distance, alike, candidate));
        }
    }
    best.map(|(_, _, candidate)| candidate)
}

/// The same as a question; empty if nothing is close.
pub(crate) fn did_you_mean<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    closest(word, known).map_or_else(String::new, |word| format!("did you mean {word:?}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_close_is_suggested_and_what_is_not_is_not() {
        let known = [
            "always_run",
            "run_if_changed",
            "decorate",
            "decoration_config",
            "spec",
            "labels",
            "max_concurrency",
        ];
        let meant = |word: &str| closest(word, known);
        assert_eq!(meant("alwaysRun"), Some("always_run"));
        assert_eq!(meant("run-if-changed"), Some("run_if_changed"));
        assert_eq!(meant("decorat"), Some("decorate"));
        assert_eq!(meant("decoration_confg"), Some("decoration_config"));
        assert_eq!(meant("sepc"), Some("spec"));
        assert_eq!(meant("label"), Some("labels"));
        assert_eq!(meant("max_concurency"), Some("max_concurrency"));
        for far in ["x", "image", "colour", "testgrid"] {
            assert_eq!(meant(far), None, "{far}");
        }
        assert_eq!(meant(&"l".repeat(MAX_WORD + 1)), None);
        assert_eq!(closest("lable", ["table", "label"]), Some("label"));
    }
}
