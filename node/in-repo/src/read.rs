//! From commits to files, and from files to what they say.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use trireme_config::in_repo::{DIR, OwnFile, OwnFiles, ProwYaml, wants};
use trireme_config::{Diagnostic, Rule};
use trireme_forge::git::{
    Cone, ConeContent, ConeLimits, ConeRequest, GitError, Mirrors, TrialMerge,
};

use crate::cache::Key;
use crate::{Content, InRepoError, InRepoMetrics};

/// Entries of the top level and of all that is in `.prow/`, whatever they are.
pub const MAX_ENTRIES: usize = 50_000;
/// Files that are read.
pub const MAX_FILES: usize = 2_000;
/// Bytes of these files together.
pub const MAX_BYTES: u64 = 8 << 20;

const REQUEST: ConeRequest = ConeRequest {
    dir: DIR,
    select: wants,
    limits: ConeLimits {
        entries: MAX_ENTRIES,
        files: MAX_FILES,
        bytes: MAX_BYTES,
    },
};

/// Fetches what is missing, merges, reads and parses.
pub(crate) async fn content(
    mirrors: &Mirrors,
    key: &Key,
    metrics: &InRepoMetrics,
) -> Result<Content, InRepoError> {
    let began = Instant::now();
    let mut wanted = vec![key.base.as_str()];
    wanted.extend(key.heads.iter().map(String::as_str));
    let fetched = mirrors.ensure(&key.repo, &wanted).await;
    metrics.fetched(&key.repo, began.elapsed());
    fetched?;
    let began = Instant::now();
    let read = merged(mirrors, key).await;
    metrics.read(&key.repo, began.elapsed());
    read
}

async fn merged(mirrors: &Mirrors, key: &Key) -> Result<Content, InRepoError> {
    let heads: Vec<&str> = key.heads.iter().map(String::as_str).collect();
    let merge = mirrors.merges_cleanly(&key.repo, &key.base, &heads, key.method);
    let commit = match merge.await? {
        TrialMerge::Clean { commit, .. } => commit,
        TrialMerge::Conflict { head, paths } => return Err(InRepoError::Conflict { head, paths }),
    };
    let cone = mirrors.read_cone(&key.repo, &commit, Some(&key.base), REQUEST);
    let cone = match cone.await {
        Ok(cone) => cone,
        // Whoever wrote so much has to hear of it.
        Err(error @ (GitError::TooMany { .. } | GitError::TooLarge { .. })) => {
            return Err(InRepoError::Broken {
                found: [Diagnostic::error(Rule::File, DIR, error.to_string())].into(),
                changed: true,
            });
        }
        Err(error) => return Err(error.into()),
    };
    let parsed = tokio::task::spawn_blocking(move || parse(cone)).await;
    parsed.map_err(|error| GitError::Failed {
        repo: key.repo.clone(),
        action: "reading in-repo configuration".to_owned(),
        reason: error.to_string(),
    })?
}

fn parse(cone: Cone) -> Result<Content, InRepoError> {
    let mut bytes = 0;
    let mut files = BTreeMap::new();
    for file in cone.files {
        let content = match file.content {
            ConeContent::Bytes(content) => {
                bytes += content.len() as u64;
                OwnFile::Bytes(content.into())
            }
            ConeContent::Dangling(why) => OwnFile::Dangling(why),
            ConeContent::Directory(why) => OwnFile::NoFile(why),
        };
        files.insert(file.path, content);
    }
    let own = OwnFiles {
        has_dir: cone.has_dir,
        files,
    };
    let mut found = Vec::new();
    let files = ProwYaml::read(&own, &mut found);
    found.sort();
    found.dedup();
    let (errors, warnings): (Vec<_>, Vec<_>) = found.into_iter().partition(Diagnostic::is_error);
    if !errors.is_empty() {
        return Err(InRepoError::Broken {
            found: errors.into(),
            changed: cone.changed,
        });
    }
    Ok(Content {
        files,
        warnings: Arc::from(warnings),
        changed: cone.changed,
        bytes,
        defaulted: Mutex::default(),
    })
}
