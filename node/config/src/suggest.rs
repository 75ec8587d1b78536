//! "Did you mean": the known words that are closest to one that is not known.

use std::cmp::Ordering;

use strsim::{jaro_winkler, osa_distance};

/// Longer words are not compared: nobody misspells a name of this length.
const MAX_WORD_BYTES: usize = 128;

/// The known word that somebody who wrote `word` most likely meant. Case and the choice between `-`, `_` and nothing do
/// not count; otherwise at most a third of the letters may differ.
pub fn closest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let wanted = Wanted::new(word)?;
    let near = known.into_iter().filter_map(|other| wanted.near(other));
    near.min_by(Near::order).map(|near| near.word)
}

/// The same as a question; empty if nothing is close.
pub(crate) fn did_you_mean<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    closest(word, known).map_or_else(String::new, |word| format!("did you mean {word:?}?"))
}

/// At most so many known names that somebody may have meant, the closest first: also those of which `word` is a part.
pub fn near<'k>(word: &str, known: impl IntoIterator<Item = &'k str>, most: usize) -> Vec<&'k str> {
    let Some(wanted) = Wanted::new(word) else {
        return Vec::new();
    };
    let (mut near, mut misspelt) = (Vec::new(), Vec::new());
    for other in known {
        if let Some(longer) = wanted.part_of(other) {
            near.push(longer);
        } else if let Some(alike) = wanted.near(other) {
            misspelt.push(alike);
        }
    }
    // Beside one that differs by a letter nobody wants to read those that differ by five.
    let closest = misspelt.iter().map(|near| near.distance).min();
    misspelt.retain(|near| closest.is_some_and(|closest| near.distance <= closest * 2));
    near.append(&mut misspelt);
    near.sort_by(Near::order);
    near.dedup_by_key(|near| near.word);
    near.into_iter().take(most).map(|near| near.word).collect()
}

/// A word, in the form in which it is compared.
struct Wanted {
    plain: String,
    /// Letters that may differ.
    allowed: usize,
}

/// A known word, and how close it is.
struct Near<'k> {
    /// Letters that differ.
    distance: usize,
    /// Of two at the same distance the one with the same beginning is closer.
    alike: f64,
    word: &'k str,
}

impl Wanted {
    fn new(word: &str) -> Option<Self> {
        if word.len() > MAX_WORD_BYTES {
            return None;
        }
        let plain = plain(word);
        let letters = plain.chars().count();
        (letters > 0).then(|| Self {
            plain,
            allowed: letters.max(3) / 3,
        })
    }

    fn near<'k>(&self, word: &'k str) -> Option<Near<'k>> {
        if word.len() > MAX_WORD_BYTES {
            return None;
        }
        let other = plain(word);
        let too_long = other.chars().count().abs_diff(self.plain.chars().count()) > self.allowed;
        // The distance is at least the difference in length.
        let distance = if too_long {
            return None;
        } else {
            osa_distance(&self.plain, &other)
        };
        // A word none of whose letters was kept is another one.
        let is_near = distance <= self.allowed && distance < other.chars().count();
        is_near.then(|| Near {
            distance,
            alike: jaro_winkler(&self.plain, &other),
            word,
        })
    }

    /// How much longer a word is than the part of it that is wanted.
    fn part_of<'k>(&self, word: &'k str) -> Option<Near<'k>> {
        if word.len() > MAX_WORD_BYTES {
            return None;
        }
        let other = plain(word);
        other.contains(&self.plain).then(|| Near {
            distance: other.len() - self.plain.len(),
            alike: jaro_winkler(&self.plain, &other),
            word,
        })
    }
}

impl Near<'_> {
    fn order(&self, other: &Self) -> Ordering {
        let by_distance = self.distance.cmp(&other.distance);
        by_distance
            .then_with(|| other.alike.total_cmp(&self.alike))
            .then_with(|| self.word.cmp(other.word))
    }
}

fn plain(word: &str) -> String {
    word.to_lowercase().replace(['-', '_', ' '], "")
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
        for far in ["", "-", "x", "image", "colour", "testgrid"] {
            assert_eq!(meant(far), None, "{far}");
        }
        assert_eq!(meant(&"l".repeat(MAX_WORD_BYTES + 1)), None);
        assert_eq!(closest("lable", ["table", "label"]), Some("label"));
        assert_eq!(closest("b", ["a"]), None);
    }

    #[test]
    fn names_that_are_close_or_contain_the_word_are_suggested() {
        let known = [
            "pull-unit",
            "pull-unit-race",
            "ci-unit",
            "nightly",
            "nightly",
        ];
        let meant = |name: &str| near(name, known, 5);
        assert_eq!(meant("pull-unti"), ["pull-unit"]);
        assert_eq!(meant("nightli"), ["nightly"]);
        let alike = [
            "pull-kubernetes-unit",
            "pull-kubernetes-cmd",
            "pull-kubernetes-units",
        ];
        assert_eq!(
            near("pull-kubernetes-unti", alike, 5),
            ["pull-kubernetes-unit", "pull-kubernetes-units"]
        );
        assert_eq!(meant("unit"), ["ci-unit", "pull-unit", "pull-unit-race"]);
        assert_eq!(near("unit", known, 2), ["ci-unit", "pull-unit"]);
        assert_eq!(meant("something-else-entirely"), [""; 0]);
    }
}
