//! Which files are generated: by `.generated_files` at the root of the repository, or by `linguist-generated=true` in its
//! `.gitattributes` (PLG-SIZE-002).

use std::collections::BTreeSet;

use regex::Regex;

pub(super) const GENERATED_FILES: &str = ".generated_files";
pub(super) const GIT_ATTRIBUTES: &str = ".gitattributes";

/// What files of a repository say about others.
#[derive(Debug, Default)]
pub(super) struct Generated {
    paths: BTreeSet<String>,
    names: BTreeSet<String>,
    path_prefixes: Vec<String>,
    name_prefixes: Vec<String>,
    attributes: Vec<Pattern>,
}

impl Generated {
    /// Takes in `.generated_files`; returns the paths of files that list further ones. A line that nobody understands
    /// makes all of it count for nothing, and is returned as the error.
    pub(super) fn read(&mut self, text: &str) -> Result<Vec<String>, String> {
        let mut lists = Vec::new();
        let mut read = Self::default();
        for line in statements(text) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [key, value] = words[..] else {
                return Err(line.to_owned());
            };
            let value = value.to_owned();
            match key {
                "prefix" | "path-prefix" => read.path_prefixes.push(value),
                "file-prefix" => read.name_prefixes.push(value),
                // As in Prow, either names the last part of a path.
                "file-name" | "path" => {
                    read.names.insert(value);
                }
                "paths-from-repo" => lists.push(value),
                _ => return Err(line.to_owned()),
            }
        }
        read.attributes = std::mem::take(&mut self.attributes);
        *self = read;
        Ok(lists)
    }

    /// Takes in a file of paths, one a line.
    pub(super) fn read_paths(&mut self, text: &str) {
        self.paths.extend(statements(text).map(str::to_owned));
    }

    /// Takes in `.gitattributes`; returns the patterns that are none.
    pub(super) fn read_attributes(&mut self, text: &str) -> Vec<String> {
        let mut wrong = Vec::new();
        for line in statements(text) {
            let mut words = line.split_whitespace();
            let Some(pattern) = words.next() else {
                continue;
            };
            if !words.any(|word| word == "linguist-generated=true") {
                continue;
            }
            // Git takes no negative patterns here, and none for directories.
            match pattern.starts_with('!') || pattern.ends_with('/') {
                true => wrong.push(pattern.to_owned()),
                false => self.attributes.push(Pattern::new(pattern)),
            }
        }
        wrong
    }

    pub(super) fn holds(&self, path: &str) -> bool {
        let name = path.rsplit('/').next().unwrap_or(path);
        let begins = |text: &str, prefixes: &[String]| {
            prefixes
                .iter()
                .any(|prefix| text.starts_with(prefix.as_str()))
        };
        self.paths.contains(path)
            || begins(path, &self.path_prefixes)
            || self.names.contains(name)
            || begins(name, &self.name_prefixes)
            || self.attributes.iter().any(|pattern| pattern.matches(path))
    }
}

/// Lines without comments and empty ones.
fn statements(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// One part of a pattern between slashes.
#[derive(Debug)]
enum Part {
    Empty,
    /// `**`
    AnyDepth,
    Glob(Regex),
    /// Matches nothing.
    Bad,
}

impl Part {
    fn matches(&self, name: &str) -> bool {
        matches!(self, Self::Glob(glob) if glob.is_match(name))
    }
}

/// A pattern of `.gitattributes` as Prow reads it: one with a slash need not reach to the end of a path, one without
/// matches any part of it.
#[derive(Debug)]
struct Pattern(Vec<Part>);

impl Pattern {
    fn new(pattern: &str) -> Self {
        let part = |part: &str| match part {
            "" => Part::Empty,
            "**" => Part::AnyDepth,
            part if pattern.contains('/') && part.contains("**") => Part::Bad,
            part => glob(part).map_or(Part::Bad, Part::Glob),
        };
        Self(pattern.split('/').map(part).collect())
    }

    fn matches(&self, path: &str) -> bool {
        let mut names = path.split('/');
        if let [only] = &self.0[..] {
            // Between no slashes, `**` is two stars.
            return matches!(only, Part::AnyDepth) || names.any(|name| only.matches(name));
        }
        let mut any_depth = false;
        let mut matched = false;
        for (n, part) in self.0.iter().enumerate() {
            match part {
                Part::Empty => any_depth = false,
                Part::AnyDepth if n + 1 == self.0.len() => break,
                Part::AnyDepth => any_depth = true,
                Part::Bad => return false,
                part if any_depth => {
                    any_depth = false;
                    if names.clone().next().is_none() {
                        return false;
                    }
                    matched = names.any(|name| part.matches(name));
                }
                part => {
                    if !names.next().is_some_and(|name| part.matches(name)) {
                        return false;
                    }
                    matched = true;
                }
            }
        }
        matched
    }
}

/// A glob as Go's `filepath.Match` reads it; `None` if it is malformed.
fn glob(pattern: &str) -> Option<Regex> {
    let mut regex = String::from("(?s)^");
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' => regex.push_str(".*"),
            '?' => regex.push('.'),
            '\\' => regex.push_str(&escaped(chars.next()?)),
            '[' => {
                regex.push('[');
                let mut c = chars.next()?;
                if c == '^' {
                    regex.push('^');
                    c = chars.next()?;
                }
                let mut is_first = true;
                while is_first || c != ']' {
                    is_first = false;
                    let mut member = |c: char| match c {
                        '\\' => chars.next(),
                        '-' | ']' => None,
                        c => Some(c),
                    };
                    let low = member(c)?;
                    regex.push_str(&escaped(low));
                    c = chars.next()?;
                    if c == '-' {
                        let next = chars.next()?;
                        let mut member = |c: char| match c {
                            '\\' => chars.next(),
                            '-' | ']' => None,
                            c => Some(c),
                        };
                        let high = member(next)?;
                        regex.push('-');
                        regex.push_str(&escaped(high));
                        c = chars.next()?;
                    }
                }
                regex.push(']');
            }
            c => regex.push_str(&escaped(c)),
        }
    }
    regex.push('$');
    Regex::new(&regex).ok()
}

/// So that a character stands for itself, in classes too.
fn escaped(c: char) -> String {
    match c.is_ascii_punctuation() {
        true => format!("\\{c}"),
        false => c.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plg_size_002_generated_files_are_named_by_name_and_prefix() {
        let mut generated = Generated::default();
        let text = "# files\n\npath-prefix vendor/\nprefix third_party/\n  file-prefix\tzz_generated.\nfile-name generated.pb.go\npath docs/api.md\npaths-from-repo hack/list\n";
        assert_eq!(generated.read(text), Ok(vec!["hack/list".to_owned()]));
        generated.read_paths("# listed\na/b.go\n\n c.go \n");
        for (path, expected) in [
            ("vendor/x.go", true),
            ("pkg/vendor/x.go", false),
            ("third_party/x", true),
            ("pkg/zz_generated.deepcopy.go", true),
            ("pkg/api/generated.pb.go", true),
            ("pkg/not-generated.pb.go", false),
            // As upstream reads `path`: it names the last part.
            ("docs/api.md", false),
            ("a/b.go", true),
            ("b.go", false),
            ("c.go", true),
            ("x/c.go", false),
        ] {
            assert_eq!(generated.holds(path), expected, "{path}");
        }
    }

    #[test]
    fn plg_size_002_a_bad_line_makes_the_file_count_for_nothing() {
        for bad in ["file-name", "file-name a b", "nonsense x"] {
            let mut generated = Generated::default();
            let text = format!("file-name x\n{bad}\n");
            assert_eq!(generated.read(&text), Err(bad.to_owned()));
            assert!(!generated.holds("x"));
        }
    }

    #[test]
    fn plg_size_002_attributes_mark_generated_files() {
        for (pattern, path, expected) in [
            ("*.pb.go", "a/b/x.pb.go", true),
            ("*.pb.go", "x.pb.g", false),
            ("vendor", "vendor/a/b", true),
            ("x?.go", "xy.go", true),
            ("x[a-c].go", "xb.go", true),
            ("x[^a-c].go", "xb.go", false),
            ("x[^a-c].go", "xd.go", true),
            (r"x\*.go", "xy.go", false),
            (r"x\*.go", "x*.go", true),
            ("x[", "x[", false),
            ("x[]", "x]", false),
            ("/root.go", "root.go", true),
            ("/root.go", "a/root.go", false),
            ("docs/*.md", "docs/a.md", true),
            ("docs/*.md", "docs/a/b.md", false),
            ("docs/**", "docs/a/b.md", true),
            ("docs/**", "other/a", false),
            ("**/gen/*.go", "a/b/gen/x.go", true),
            ("**/gen/*.go", "gen/x.go", true),
            ("**/gen/*.go", "a/b/x.go", false),
            ("a/**/z", "a/b/c/z", true),
            ("a/**/z", "a/z", true),
            ("a/**/z", "b/z", false),
            ("a/b**/z", "a/bc/z", false),
        ] {
            let mut generated = Generated::default();
            let text = format!("*.md text\n{pattern} -diff linguist-generated=true\n");
            assert_eq!(generated.read_attributes(&text), Vec::<String>::new());
            assert_eq!(generated.holds(path), expected, "{pattern} {path}");
        }
        let mut generated = Generated::default();
        let text = "#*.go linguist-generated=true\n*.go linguist-generated\n!a linguist-generated=true\nb/ linguist-generated=true";
        assert_eq!(generated.read_attributes(text), ["!a", "b/"]);
        assert!(!generated.holds("x.go"));
    }
}
