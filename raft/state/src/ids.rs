//! Derived identifiers: the same cause always names the same record, on every node and after every retry.

use sha2::{Digest as _, Sha256};
use trireme_proto::state::ConfigFile;
use uuid::Uuid;

/// Namespace of all derived ids. Part of the format: never changes.
pub const NAMESPACE: Uuid = Uuid::from_u128(0x7472_6972_656d_5e8a_9b1d_0c5a_6f2e_41d7);

/// UUIDv5 over the kind and the parts, each with its length, so that no two lists of parts read the same.
fn derive(kind: &str, parts: &[&str]) -> String {
    let mut name = Vec::new();
    for part in std::iter::once(&kind).chain(parts) {
        name.extend_from_slice(&(part.len() as u64).to_be_bytes());
        name.extend_from_slice(part.as_bytes());
    }
    Uuid::new_v5(&NAMESPACE, &name).to_string()
}

/// The id of a job. `origin` names the cause: a delivery guid, a comment id, (pool, heads, base), (periodic, scheduled
/// time), a repair key; `creator` the plugin or controller; `ordinal` the job's place among those it makes for it.
pub fn job_id(origin: &str, creator: &str, ordinal: u32) -> String {
    derive("job", &[origin, creator, &ordinal.to_string()])
}

/// The id of a merge intent; `attempt` counts the intents for the same heads.
pub fn intent_id(
    org: &str,
    repo: &str,
    number: u64,
    head_sha: &str,
    base_sha: &str,
    attempt: u32,
) -> String {
    derive(
        "intent",
        &[
            org,
            repo,
            &number.to_string(),
            head_sha,
            base_sha,
            &attempt.to_string(),
        ],
    )
}

/// Any other id that is derived from its cause.
pub fn derived_id(kind: &str, parts: &[&str]) -> String {
    derive(kind, parts)
}

/// The root of a configuration: sha256 over its lines `role <space> path <space> hex sha256 <newline>`, sorted by
/// (role, path).
pub fn config_root(files: &[ConfigFile]) -> [u8; 32] {
    let mut sorted: Vec<&ConfigFile> = files.iter().collect();
    sorted.sort_by(|a, b| (&a.role, &a.path).cmp(&(&b.role, &b.path)));
    let mut hasher = Sha256::new();
    for file in sorted {
        hasher.update(&file.role);
        hasher.update(" ");
        hasher.update(&file.path);
        hasher.update(" ");
        for byte in file
            .blob
            .as_ref()
            .map(|blob| &blob.sha256[..])
            .unwrap_or_default()
        {
            hasher.update(format!("{byte:02x}"));
        }
        hasher.update("\n");
    }
    hasher.finalize().into()
}

/// The name of a page: sha256 over its lines `role <space> path <space> hex sha256 <space> size <newline>`.
pub fn config_page(files: &[ConfigFile]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for file in files {
        let (name, size) = match &file.blob {
            Some(blob) => (&blob.sha256[..], blob.size),
            None => (&[][..], 0),
        };
        let name: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
        hasher.update(format!("{} {} {name} {size}\n", file.role, file.path));
    }
    hasher.finalize().into()
}

/// The root of a configuration of pages: sha256 over a line that says so and their names, in their order.
pub fn config_tree(pages: &[impl AsRef<[u8]>]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update("configuration of pages\n");
    for page in pages {
        hasher.update(page);
    }
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ids are stored: a changed derivation would create everything a second time.
    #[test]
    fn derivations_are_fixed() {
        insta::assert_snapshot!(job_id("delivery-1", "trigger", 0), @"788a2793-89d0-5da5-962d-d9ac7fc3d39b");
        insta::assert_snapshot!(intent_id("o", "r", 1, "head", "base", 0), @"ac6ca107-60ab-56d9-a648-9de021efdbb3");
    }

    /// Pages are shared by versions: another derivation would store every page a second time.
    #[test]
    fn names_of_pages_are_fixed() {
        let file = ConfigFile {
            role: "job".into(),
            path: "a b".into(),
            blob: Some(trireme_proto::state::BlobRef {
                sha256: vec![1; 32].into(),
                size: 5,
            }),
        };
        let page = config_page(&[file]);
        let hex = |hash: [u8; 32]| crate::blobs::hex(&hash);
        insta::assert_snapshot!(hex(page), @"e5da170f7b15cafc24c4f6b1b3533f70151b5f0d37fc099d4127bf4b3d0cd703");
        insta::assert_snapshot!(hex(config_tree(&[page])), @"86cd63a13ed65132da1ac87c41d1f6d217ad894f68dac17ae17a0404e71bc41b");
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(job_id("a", "bc", 0), job_id("ab", "c", 0));
        assert_ne!(job_id("a", "b", 1), job_id("a", "b", 11));
    }

    #[test]
    fn root_does_not_depend_on_order() {
        let file = |path: &str| ConfigFile {
            role: "job".into(),
            path: path.into(),
            blob: None,
        };
        assert_eq!(
            config_root(&[file("a"), file("b")]),
            config_root(&[file("b"), file("a")])
        );
        assert_ne!(config_root(&[file("a")]), config_root(&[file("b")]));
    }
}
