//! What is suggested for keys that nobody reads: every field of some types, misspelt in every way.

use std::collections::BTreeSet;

use strsim::osa_distance;

use super::{Cx, Decode, Object};
use crate::job::Presubmit;
use crate::prow::ProwConfig;
use crate::yaml;

/// What is suggested for each unknown key of a text.
fn suggested(
    text: &str,
    decode: impl Fn(&yaml::Node, &mut Vec<(String, String)>),
) -> Vec<(String, String)> {
    let document = yaml::parse(text.as_bytes()).unwrap();
    let mut found = Vec::new();
    decode(&document.root, &mut found);
    found
}

fn keep(cx: Cx<'_>, found: &mut Vec<(String, String)>) {
    let unknown = cx
        .diagnostics
        .into_iter()
        .filter(|found| found.message.starts_with("unknown field"));
    found.extend(unknown.map(|found| (found.message, found.help)));
}

fn of_type<T: Decode>(node: &yaml::Node, found: &mut Vec<(String, String)>) {
    let mut cx = Cx::new("a.yaml", true);
    T::decode(node, &mut cx);
    keep(cx, found);
}

fn of_container(node: &yaml::Node, found: &mut Vec<(String, String)>) {
    let mut cx = Cx::new("a.yaml", true);
    cx.object("Container", node);
    keep(cx, found);
}

fn plain(word: &str) -> String {
    word.to_lowercase().replace(['-', '_'], "")
}

/// A letter less, another letter, a letter more, two letters exchanged, at every place.
fn misspelt(word: &str) -> BTreeSet<String> {
    let letters: Vec<char> = word.chars().collect();
    let mut all = BTreeSet::new();
    for at in 0..letters.len() {
        let (before, after) = (&letters[..at], &letters[at + 1..]);
        let with =
            |middle: &[char]| -> String { before.iter().chain(middle).chain(after).collect() };
        all.insert(with(&[]));
        all.insert(with(&['q']));
        all.insert(with(&[letters[at], letters[at]]));
        all.insert(with(&[letters[at], 'x']));
        if let Some((next, rest)) = after.split_first() {
            all.insert(
                before
                    .iter()
                    .chain([next, &letters[at]])
                    .chain(rest)
                    .collect(),
            );
        }
    }
    all
}

type Read = fn(&yaml::Node, &mut Vec<(String, String)>);

/// For every field of the type and every way of misspelling it: exactly it is suggested, unless another field is as
/// close; and nothing that is there already.
fn every_misspelt_key_is_understood(names: &[&str], read: Read) {
    let mut checked = 0;
    for name in names {
        for key in misspelt(name) {
            let word = plain(&key);
            let is_field = |known: &&&str| known.eq_ignore_ascii_case(&key);
            if word.is_empty() || names.iter().any(|known| is_field(&known)) {
                continue;
            }
            let distances = names.iter().map(|known| osa_distance(&word, &plain(known)));
            let closest = distances.min().unwrap();
            assert!(closest <= 1, "{key}");
            let meant: BTreeSet<String> = names
                .iter()
                .filter(|known| osa_distance(&word, &plain(known)) == closest)
                .map(|known| format!("did you mean {known:?}?"))
                .collect();
            let told = suggested(&format!("{key:?}: null\n"), read);
            assert_eq!(told.len(), 1, "{key}: {told:?}");
            if plain(name).len() > 1 {
                assert!(meant.contains(&told[0].1), "{key}: {told:?}, not {meant:?}");
            }
            checked += usize::from(meant.len() == 1);
            for present in [(*name).to_owned(), name.to_uppercase()] {
                let told = suggested(&format!("{present:?}: null\n{key:?}: null\n"), read);
                assert_eq!(told.len(), 1, "{key}: {told:?}");
                let named = format!("did you mean {name:?}?");
                assert_ne!(told[0].1, named, "{key} beside {present}");
            }
        }
    }
    assert!(
        checked > 20 * names.len(),
        "only {checked} of {}",
        names.len()
    );
    for far in ["xylophone", "qqqq", "zzzzzzzzzzzz", "colour_of_the_sky"] {
        let told = suggested(&format!("{far}: null\n"), read);
        assert_eq!(told.len(), 1, "{far}");
        assert_eq!(told[0].1, "", "{far}");
    }
}

fn names<T: Object>() -> Vec<&'static str> {
    let mut names = Vec::new();
    T::names(&mut names);
    names
}

/// CFG-024.
#[test]
fn cfg_024_a_misspelt_key_of_a_job_is_understood() {
    every_misspelt_key_is_understood(&names::<Presubmit>(), of_type::<Presubmit>);
}

#[test]
fn cfg_024_a_misspelt_key_of_the_main_file_is_understood() {
    every_misspelt_key_is_understood(&names::<ProwConfig>(), of_type::<ProwConfig>);
}

#[test]
fn cfg_024_a_misspelt_key_of_a_pod_is_understood() {
    let names = super::schema::names("Container");
    assert!(names.len() > 20);
    every_misspelt_key_is_understood(&names, of_container);
}
