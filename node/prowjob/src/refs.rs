//! What code a job is about.

use std::fmt;

go_struct! {
    /// A pull request at one commit.
    pub struct Pull {
        always {
            "number" => number: i64,
            "author" => author: String,
            "sha" => sha: String,
        }
        "title" => title: String,
        /// What to fetch for it, e.g. `pull/123/head` or `refs/changes/00/123/1`; empty means GitHub's default.
        "ref" => r#ref: String,
        /// Source branch.
        "head_ref" => head_ref: String,
        "link" => link: String,
        "commit_link" => commit_link: String,
        "author_link" => author_link: String,
    }
}

go_struct! {
    /// A repository at a base commit with pull requests on top, and how to clone it.
    pub struct Refs {
        always {
            "org" => org: String,
            "repo" => repo: String,
        }
        "repo_link" => repo_link: String,
        "base_ref" => base_ref: String,
        "base_sha" => base_sha: String,
        "base_link" => base_link: String,
        /// In the order in which they are merged.
        "pulls" => pulls: Vec<Pull>,
        /// Where below `<root>/src` it is cloned to.
        "path_alias" => path_alias: String,
        /// Makes this clone the job's working directory.
        "workdir" => workdir: bool,
        /// Not what is tested; never determines the run's revision.
        "auxiliary" => auxiliary: bool,
        "clone_uri" => clone_uri: String,
        "skip_submodules" => skip_submodules: bool,
        /// 0 = everything.
        "clone_depth" => clone_depth: i64,
        "skip_fetch_head" => skip_fetch_head: bool,
        /// Unset means what the decoration says.
        "blobless_fetch" => blobless_fetch: Option<bool>,
        "sparse_checkout_files" => sparse_checkout_files: Vec<String>,
    }
}

impl Refs {
    /// `org/repo`, or the org alone when there is no repo.
    pub fn org_repo(&self) -> String {
        if self.repo.is_empty() {
            self.org.clone()
        } else {
            format!("{}/{}", self.org, self.repo)
        }
    }

    /// What the job tests: the first pull's commit, else the base commit, else the base ref.
    pub fn revision(&self) -> &str {
        match self.pulls.first() {
            Some(pull) => &pull.sha,
            None if self.base_sha.is_empty() => &self.base_ref,
            None => &self.base_sha,
        }
    }
}

/// `base_ref[:base_sha][,number:sha[:ref]]...` (EXE-012).
impl fmt::Display for Refs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base_ref)?;
        if !self.base_sha.is_empty() {
            write!(f, ":{}", self.base_sha)?;
        }
        for pull in &self.pulls {
            write!(f, ",{}:{}", pull.number, pull.sha)?;
            if !pull.r#ref.is_empty() {
                write!(f, ":{}", pull.r#ref)?;
            }
        }
        Ok(())
    }
}

/// The refs that give a run its revision: its own, else the first extra ones that are not auxiliary (POD-053).
pub fn main_refs<'a>(refs: Option<&'a Refs>, extra: &'a [Refs]) -> Option<&'a Refs> {
    refs.or_else(|| extra.iter().find(|r| !r.auxiliary))
}

/// Revision of a run with these refs, empty when it has none.
pub fn main_revision<'a>(refs: Option<&'a Refs>, extra: &'a [Refs]) -> &'a str {
    main_refs(refs, extra).map_or("", Refs::revision)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pull(number: i64, sha: &str, r#ref: &str) -> Pull {
        Pull {
            number,
            sha: sha.into(),
            r#ref: r#ref.into(),
            ..Pull::default()
        }
    }

    #[test]
    fn exe_012_text_form() {
        let mut refs = Refs {
            base_ref: "main".into(),
            ..Refs::default()
        };
        assert_eq!(refs.to_string(), "main");
        refs.base_sha = "abc".into();
        refs.pulls = vec![pull(1, "d", ""), pull(2, "e", "refs/changes/2/2/1")];
        assert_eq!(refs.to_string(), "main:abc,1:d,2:e:refs/changes/2/2/1");
    }

    #[test]
    fn exe_004_only_five_keys_are_written_when_empty() {
        let refs = Refs {
            pulls: vec![Pull::default()],
            ..Refs::default()
        };
        insta::assert_snapshot!(serde_json::to_string(&refs).unwrap(), @r#"{"org":"","repo":"","pulls":[{"number":0,"author":"","sha":""}]}"#);
        let back: Refs = serde_json::from_str(
            r#"{"org":null,"pulls":null,"workdir":null,"blobless_fetch":null}"#,
        )
        .unwrap();
        assert_eq!(back, Refs::default());
    }

    #[test]
    fn pod_053_auxiliary_refs_give_no_revision() {
        let aux = Refs {
            base_ref: "a".into(),
            auxiliary: true,
            ..Refs::default()
        };
        let main = Refs {
            base_ref: "m".into(),
            ..Refs::default()
        };
        assert_eq!(main_revision(None, &[aux.clone(), main]), "m");
        assert_eq!(main_revision(Some(&aux), &[]), "a");
        assert_eq!(main_revision(None, &[]), "");
    }
}
