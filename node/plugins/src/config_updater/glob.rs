//! File patterns as the library reads them that Prow uses for `config_updater.maps` (PLG-CONFIGUPDATER-002).

use trireme_config::{GoRegex, RegexError};

/// A compiled pattern.
#[derive(Debug, Clone)]
pub(super) struct Glob {
    pattern: String,
    /// `None`: the pattern is a path.
    regex: Option<GoRegex>,
}

impl Glob {
    /// # Errors
    /// When a class of characters in it is none.
    pub(super) fn new(pattern: &str) -> Result<Self, RegexError> {
        let is_path = !pattern.contains(['*', '{']);
        let regex = match is_path {
            true => None,
            false => Some(GoRegex::new(&format!(
                "^{}$",
                translated(&cleaned(pattern))
            ))?),
        };
        Ok(Self {
            pattern: pattern.to_owned(),
            regex,
        })
    }

    pub(super) fn is_match(&self, path: &str) -> bool {
        match &self.regex {
            Some(regex) => regex.is_match(path),
            None => self.pattern == path,
        }
    }

    /// Which of several patterns that match a path is meant, the smallest: the path itself, then whoever names most of it
    /// (PLG-CONFIGUPDATER-012).
    pub(super) fn rank(&self) -> (bool, std::cmp::Reverse<usize>) {
        let literal = self.pattern.find(['*', '{', '[', '\\']);
        let literal = literal.unwrap_or(self.pattern.len());
        (self.regex.is_some(), std::cmp::Reverse(literal))
    }
}

/// Without empty steps and those to where one is.
fn cleaned(pattern: &str) -> String {
    let root = if pattern.starts_with('/') { "/" } else { "" };
    let steps = pattern.split('/');
    let steps: Vec<&str> = steps.filter(|step| !matches!(*step, "" | ".")).collect();
    format!("{root}{}", steps.join("/"))
}

fn translated(pattern: &str) -> String {
    let mut regex = String::with_capacity(pattern.len() * 2);
    let mut rest = pattern;
    while let Some(first) = rest.chars().next() {
        let after = &rest[first.len_utf8()..];
        if let Some(after) = rest.strip_prefix("**/") {
            regex.push_str("(.*/)?");
            rest = after;
            continue;
        }
        rest = after;
        match first {
            '*' => regex.push_str("[^/]*"),
            '\\' => {
                if let Some(escaped) = rest.chars().next() {
                    regex.push_str(&regex::escape(escaped.encode_utf8(&mut [0; 4])));
                    rest = &rest[escaped.len_utf8()..];
                }
            }
            '[' | '{' => match rest.split_once(if first == '[' { ']' } else { '}' }) {
                Some((within, after)) if !within.is_empty() => {
                    if first == '[' {
                        regex.push_str(&format!("[{within}]"));
                    } else {
                        let choices = within.split(',').map(regex::escape);
                        let choices = choices.collect::<Vec<_>>().join("|");
                        regex.push_str(&format!("({choices})"));
                    }
                    rest = after;
                }
                _ => regex.push_str(&regex::escape(first.encode_utf8(&mut [0; 4]))),
            },
            _ => regex.push_str(&regex::escape(first.encode_utf8(&mut [0; 4]))),
        }
    }
    regex
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plg_configupdater_002_patterns_match_whole_paths() {
        for (pattern, path, expected) in [
            ("config/prow/config.yaml", "config/prow/config.yaml", true),
            ("config/prow/config.yaml", "config/prow/configXyaml", false),
            ("config/jobs/**/*.yaml", "config/jobs/a.yaml", true),
            ("config/jobs/**/*.yaml", "config/jobs/a/b/c.yaml", true),
            ("config/jobs/**/*.yaml", "x/config/jobs/a.yaml", false),
            ("config/jobs/**/*.yaml", "config/jobs/a.yaml.bak", false),
            ("config/jobs/**/*.yaml", "config/jobs/ayaml", false),
            ("config/jobs/*.yaml", "config/jobs/a/b.yaml", false),
            ("jobs/**", "jobs/a", true),
            ("jobs/**", "jobs/a/b", false),
            ("**/*.yaml", "a.yaml", true),
            ("jobs/**/*.{yaml,yml}", "jobs/x/a.yml", true),
            ("jobs/**/*.{yaml,yml}", "jobs/x/a.json", false),
            ("jobs/{a.b,c}/*", "jobs/axb/d", false),
            ("./jobs//*.yaml", "jobs/a.yaml", true),
            ("jobs/[ab]*.yaml", "jobs/b1.yaml", true),
            ("jobs/[ab]*.yaml", "jobs/c1.yaml", false),
            // Without a star nothing in a pattern is special.
            ("jobs/[ab].yaml", "jobs/a.yaml", false),
            ("jobs/[ab].yaml", "jobs/[ab].yaml", true),
            ("jobs/{}*", "jobs/{}x", true),
            (r"jobs/\**", "jobs/*x", true),
            (r"jobs/\**", "jobs/ax", false),
            ("jobs/*é.yaml", "jobs/caf\u{e9}.yaml", true),
        ] {
            let glob = Glob::new(pattern).unwrap();
            assert_eq!(glob.is_match(path), expected, "{pattern} on {path}");
        }
        assert!(Glob::new("jobs/*[z-a]").is_err());
    }
}
