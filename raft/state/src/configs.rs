//! Configuration versions: numbered without gaps, the last few in memory, older ones in the archive.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use trireme_proto::state::{ConfigFile, ConfigVersion, Done, PutConfig};

use crate::{
    State,
    apply::Entry,
    archive,
    change::{Change, RecordKey},
    digest::Sum,
    ids::{config_root, config_tree},
    limits::{CONFIG_MEMORY, MAX_INLINE_CONFIG_BYTES, MAX_INLINE_CONFIG_FILES},
    reject::{Verdict, at_most, conflict, cut, invalid, name, not_found, record_size},
    table::{Record, Table},
};

/// What a file may be to a configuration.
pub const CONFIG_ROLES: [&str; 6] = [
    "main",
    "plugins",
    "job",
    // By a name that ends as Prow's default says: `_prowconfig.yaml`, `_pluginconfig.yaml`.
    "supplemental",
    // Whatever their names: of config.yaml, of plugins.yaml.
    "prow_supplemental",
    "plugin_supplemental",
];
/// Those that were known before [`crate::ROLES_LEVEL`], one for each file.
pub const FIRST_CONFIG_ROLES: [&str; 4] = ["main", "plugins", "job", "supplemental"];

/// Whether a file may have this role: one of [`CONFIG_ROLES`], or several of the last four in their order, joined by `+`.
#[must_use]
pub fn is_config_role(role: &str) -> bool {
    let place = |part: &str| CONFIG_ROLES.iter().position(|known| *known == part);
    if !role.contains('+') {
        return place(role).is_some();
    }
    let mut last = 1;
    role.split('+').all(|part| {
        let place = place(part).filter(|place| *place > last);
        place.is_some_and(|place| {
            last = place;
            true
        })
    })
}

impl Record for ConfigVersion {
    const KIND: u8 = 9;
    type Key = u64;

    fn key(&self) -> u64 {
        self.number
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Configs {
    rows: Table<ConfigVersion>,
}

impl Configs {
    pub(crate) fn put(
        &mut self,
        digest: &mut Sum,
        config: Arc<ConfigVersion>,
    ) -> Option<Arc<ConfigVersion>> {
        self.rows.put(digest, config)
    }

    pub(crate) fn last_number(&self) -> u64 {
        self.rows
            .iter()
            .next_back()
            .map_or(0, |config| config.number)
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<ConfigVersion>> {
        self.rows.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }
}

pub(crate) fn put(state: &mut State, entry: &mut Entry, command: &PutConfig) -> Verdict {
    let Some(asked) = &command.config else {
        return Err(invalid("no configuration"));
    };
    let current = state.configs.last_number();
    if command.expected_current != 0 && command.expected_current != current {
        return Err(conflict(format!(
            "configuration {current} is current, not {}: look at it and apply again",
            command.expected_current
        )));
    }
    let (paged_files, paged_bytes) = match (asked.files.is_empty(), asked.pages.is_empty()) {
        (true, true) => return Err(invalid("a configuration without files")),
        (false, false) => return Err(invalid("a configuration of files and of pages")),
        (true, false) => state.check_config_pages(&asked.pages)?,
        (false, true) => {
            check_files(state, &asked.files)?;
            (0, 0)
        }
    };
    if asked.rollback_of > current {
        return Err(not_found("configuration", &asked.rollback_of.to_string()));
    }
    let root = match asked.pages.is_empty() {
        true => config_root(&asked.files),
        false => config_tree(&asked.pages),
    };
    if !asked.root.is_empty() && asked.root != root.as_slice() {
        return Err(invalid("the root is not that of the files"));
    }
    let config = ConfigVersion {
        number: current.saturating_add(1),
        root: Bytes::copy_from_slice(&root),
        created_ms: entry.stamp_ms,
        revision: entry.index,
        author: cut(&asked.author),
        message: cut(&asked.message),
        source: cut(&asked.source),
        paged_files,
        paged_bytes,
        ..asked.clone()
    };
    record_size("the configuration", &config)?;

    let number = config.number;
    for blob in config.files.iter().filter_map(|file| file.blob.as_ref()) {
        state.blobs.refer(&blob.sha256);
    }
    for page in &config.pages {
        state.config_pages.refer(page);
    }
    let config = Arc::new(config);
    state.configs.put(&mut state.digest, config.clone());
    entry.changed(Change::Config(config));
    while state.configs.len() > CONFIG_MEMORY {
        let Some(oldest) = state.configs.iter().next().cloned() else {
            break;
        };
        state.configs.rows.remove(&mut state.digest, &oldest.number);
        archive::config(entry, &oldest);
        entry.changed(Change::Removed(RecordKey::Config {
            number: oldest.number,
        }));
        for blob in oldest.files.iter().filter_map(|file| file.blob.as_ref()) {
            state.release_blob(entry, &blob.sha256);
        }
        for page in &oldest.pages {
            state.release_config_page(entry, page);
        }
    }
    Ok(Done {
        config_version: number,
        ..Done::default()
    })
}

/// What holds of every file of a configuration.
pub(crate) fn check_file(state: &State, file: &ConfigFile) -> Verdict<()> {
    name("path", &file.path)?;
    if !is_config_role(&file.role) {
        return Err(invalid(format!(
            "{}: role {:?}, expected one of {CONFIG_ROLES:?}",
            file.path, file.role
        )));
    }
    let Some(blob) = &file.blob else {
        return Err(invalid(format!("{}: no blob", file.path)));
    };
    state.check_blob(blob)
}

/// Of a configuration without pages.
fn check_files(state: &State, files: &[ConfigFile]) -> Verdict<()> {
    at_most("files", files.len(), MAX_INLINE_CONFIG_FILES)?;
    let mut paths = BTreeSet::new();
    let mut bytes: u64 = 0;
    for file in files {
        if !paths.insert((&file.role, &file.path)) {
            return Err(invalid(format!("{} file {:?} twice", file.role, file.path)));
        }
        check_file(state, file)?;
        bytes = bytes.saturating_add(file.blob.as_ref().map_or(0, |blob| blob.size));
    }
    if bytes > MAX_INLINE_CONFIG_BYTES {
        return Err(invalid(format!(
            "{bytes} bytes of configuration, at most {MAX_INLINE_CONFIG_BYTES} are allowed"
        )));
    }
    Ok(())
}

impl State {
    /// The current configuration.
    pub fn config(&self) -> Option<&Arc<ConfigVersion>> {
        self.configs.iter().next_back()
    }

    /// A version in memory; older ones are in the archive.
    pub fn config_version(&self, number: u64) -> Option<&Arc<ConfigVersion>> {
        self.configs.rows.get(&number)
    }

    /// Versions in memory, oldest first.
    pub fn config_versions(&self) -> impl DoubleEndedIterator<Item = &Arc<ConfigVersion>> {
        self.configs.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_parts_in_their_order() {
        let good = "main plugins job supplemental prow_supplemental plugin_supplemental job+supplemental \
                    prow_supplemental+plugin_supplemental job+prow_supplemental+plugin_supplemental";
        for role in good.split_whitespace() {
            assert!(is_config_role(role), "{role}");
        }
        for role in [
            "",
            "+",
            "job+",
            "supplemental+job",
            "job+job",
            "main+job",
            "plugins+supplemental",
            "jobs",
        ] {
            assert!(!is_config_role(role), "{role:?}");
        }
    }
}
