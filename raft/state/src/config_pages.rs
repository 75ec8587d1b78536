//! Pages of configurations: sorted runs of files, named by their content and shared by the versions that have them. A page
//! keeps its blobs; a version keeps its pages. What no version names is swept like a blob that nothing names.

use std::sync::Arc;

use bytes::Bytes;
use imbl::{OrdMap, OrdSet};
use sha2::{Digest as _, Sha256};
use trireme_proto::state::{ConfigFile, ConfigPage, ConfigVersion, Done, PutConfigPage};

use crate::{
    State,
    apply::Entry,
    archive,
    blobs::hex,
    configs::check_file,
    digest::Sum,
    ids::config_page,
    limits::{
        BLOB_GRACE_MS, MAX_CONFIG_BYTES, MAX_CONFIG_FILES, MAX_CONFIG_PAGE_BYTES,
        MAX_CONFIG_PAGE_FILES, MAX_CONFIG_PAGES, MAX_PAGES_PER_CONFIG,
    },
    reject::{Verdict, at_most, exhausted, invalid, not_found},
    table::{Record, Table},
};

impl Record for ConfigPage {
    const KIND: u8 = 27;
    type Key = Bytes;

    fn key(&self) -> Bytes {
        self.sha256.clone()
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ConfigPages {
    rows: Table<ConfigPage>,
    /// How many versions name a page.
    references: OrdMap<Bytes, u32>,
    unreferenced: OrdSet<(i64, Bytes)>,
}

impl ConfigPages {
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.rows.bytes()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<ConfigPage>> {
        self.rows.iter()
    }

    pub(crate) fn get(&self, sha256: &[u8]) -> Option<&Arc<ConfigPage>> {
        self.rows.get(sha256)
    }

    fn put(&mut self, digest: &mut Sum, page: ConfigPage) {
        let sha256 = page.sha256.clone();
        self.shelve(&sha256, false);
        self.rows.put(digest, Arc::new(page));
        self.shelve(&sha256, true);
    }

    fn remove(&mut self, digest: &mut Sum, sha256: &Bytes) -> Option<Arc<ConfigPage>> {
        self.shelve(sha256, false);
        self.rows.remove(digest, sha256)
    }

    /// Puts a page among the unreferenced if it is, or takes it from there.
    fn shelve(&mut self, sha256: &Bytes, add: bool) {
        let Some(page) = self.rows.get(sha256) else {
            return;
        };
        if self.references.contains_key(sha256) {
            return;
        }
        let place = (page.put_ms, sha256.clone());
        if add {
            self.unreferenced.insert(place);
        } else {
            self.unreferenced.remove(&place);
        }
    }

    /// A version names the page.
    pub(crate) fn refer(&mut self, sha256: &Bytes) {
        self.shelve(sha256, false);
        let count = self.references.get(sha256).copied().unwrap_or(0);
        self.references
            .insert(sha256.clone(), count.saturating_add(1));
    }

    /// A version names it no longer. Whether it was the last.
    fn release(&mut self, sha256: &Bytes) -> bool {
        let count = self.references.get(sha256).copied().unwrap_or(0);
        if count > 1 {
            self.references.insert(sha256.clone(), count - 1);
            return false;
        }
        self.references.remove(sha256);
        self.shelve(sha256, true);
        count == 1
    }
}

fn place(file: &ConfigFile) -> (&str, &str) {
    (&file.role, &file.path)
}

fn blobs(page: &ConfigPage) -> impl Iterator<Item = &Bytes> {
    let named = page.files.iter().filter_map(|file| file.blob.as_ref());
    named.map(|blob| &blob.sha256)
}

pub(crate) fn put(state: &mut State, entry: &mut Entry, command: PutConfigPage) -> Verdict {
    let Some(asked) = command.page else {
        return Err(invalid("no page"));
    };
    if asked.files.is_empty() {
        return Err(invalid("a page without files"));
    }
    at_most("files of a page", asked.files.len(), MAX_CONFIG_PAGE_FILES)?;
    let name = Bytes::copy_from_slice(&config_page(&asked.files));
    if !asked.sha256.is_empty() && asked.sha256 != name {
        return Err(invalid("the page's name is not that of its files"));
    }
    if let Some(former) = state.config_pages.get(&name) {
        // Still wanted: its hour begins anew. A page that is named does not expire.
        let named = state.config_pages.references.contains_key(&name);
        let touched = !named && former.put_ms < entry.stamp_ms;
        if touched {
            let page = ConfigPage {
                put_ms: entry.stamp_ms,
                ..(**former).clone()
            };
            state.config_pages.put(&mut state.digest, page);
        }
        return Ok(Done {
            duplicate: !touched,
            ..Done::default()
        });
    }
    for file in &asked.files {
        check_file(state, file)?;
    }
    for (former, next) in asked.files.iter().zip(asked.files.iter().skip(1)) {
        if place(former) >= place(next) {
            return Err(invalid(format!(
                "{} {:?} does not belong after {} {:?}",
                next.role, next.path, former.role, former.path
            )));
        }
    }
    let page = ConfigPage {
        sha256: name,
        files: asked.files,
        put_ms: entry.stamp_ms,
    };
    let size = prost::Message::encoded_len(&page);
    if size > MAX_CONFIG_PAGE_BYTES {
        return Err(invalid(format!(
            "a page of {size} bytes, at most {MAX_CONFIG_PAGE_BYTES} are allowed"
        )));
    }
    if state.config_pages.len() >= MAX_CONFIG_PAGES {
        return Err(exhausted("pages of configurations", MAX_CONFIG_PAGES));
    }
    for sha256 in blobs(&page) {
        state.blobs.refer(sha256);
    }
    state.config_pages.put(&mut state.digest, page);
    Ok(Done::default())
}

/// Removes the page if no version names it and nobody has put it since; whether it did. What of its blobs nothing else
/// names goes into the archive: a version that is there may have been the one to name them first.
pub(crate) fn sweep(state: &mut State, entry: &mut Entry, sha256: &Bytes, before_ms: i64) -> bool {
    let pages = &mut state.config_pages;
    let expired = pages
        .get(sha256)
        .is_some_and(|page| page.put_ms < before_ms);
    if !expired || pages.references.contains_key(sha256) {
        return false;
    }
    let Some(page) = pages.remove(&mut state.digest, sha256) else {
        return false;
    };
    for sha256 in blobs(&page) {
        state.release_blob(entry, sha256);
    }
    true
}

impl State {
    /// How many files the pages have, and their bytes.
    pub(crate) fn check_config_pages(&self, pages: &[Bytes]) -> Verdict<(u32, u64)> {
        at_most("pages", pages.len(), MAX_PAGES_PER_CONFIG)?;
        let (mut files, mut bytes) = (0_usize, 0_u64);
        let mut last: Option<&ConfigFile> = None;
        for sha256 in pages {
            let Some(page) = self.config_pages.get(sha256) else {
                return Err(not_found("configuration page", &hex(sha256)));
            };
            let ascends = match (last, page.files.first()) {
                (Some(last), Some(first)) => place(last) < place(first),
                _ => true,
            };
            if !ascends {
                return Err(invalid(format!(
                    "page {} does not belong after the one before it",
                    hex(sha256)
                )));
            }
            last = page.files.last();
            files = files.saturating_add(page.files.len());
            for blob in page.files.iter().filter_map(|file| file.blob.as_ref()) {
                bytes = bytes.saturating_add(blob.size);
            }
        }
        at_most("files", files, MAX_CONFIG_FILES)?;
        if bytes > MAX_CONFIG_BYTES {
            return Err(invalid(format!(
                "{bytes} bytes of configuration, at most {MAX_CONFIG_BYTES} are allowed"
            )));
        }
        Ok((u32::try_from(files).unwrap_or(u32::MAX), bytes))
    }

    /// A version that named the page has left. The last one takes the page into the archive, and what of its blobs
    /// nothing else names.
    pub(crate) fn release_config_page(&mut self, entry: &mut Entry, sha256: &Bytes) {
        if !self.config_pages.release(sha256) {
            return;
        }
        if let Some(page) = self.config_pages.remove(&mut self.digest, sha256) {
            archive::config_page(entry, &page);
            for sha256 in blobs(&page) {
                self.release_blob(entry, sha256);
            }
        }
    }

    /// Whether it fitted: false for one that no state would have written.
    pub(crate) fn restore_config_page(&mut self, page: ConfigPage) -> bool {
        let known = self.config_pages.get(&page.sha256).is_some();
        if known || page.sha256 != config_page(&page.files).as_slice() {
            return false;
        }
        for sha256 in blobs(&page) {
            self.blobs.refer(sha256);
        }
        self.config_pages.put(&mut self.digest, page);
        true
    }

    /// A page in memory, by its name; what older versions had is in the archive.
    pub fn config_page(&self, sha256: &[u8]) -> Option<&Arc<ConfigPage>> {
        self.config_pages.get(sha256)
    }

    /// All files of a version in memory, ascending by (role, path) where it has pages; `None` if a page is not there.
    pub fn config_files(&self, version: &ConfigVersion) -> Option<Vec<ConfigFile>> {
        let mut files = version.files.clone();
        for sha256 in &version.pages {
            files.extend_from_slice(&self.config_pages.get(sha256)?.files);
        }
        Some(files)
    }

    /// Pages that `SweepBlobs` would remove at this time, oldest first.
    pub fn expired_config_pages(&self, now_ms: i64) -> impl Iterator<Item = &Bytes> {
        let before = now_ms.saturating_sub(BLOB_GRACE_MS);
        self.config_pages
            .unreferenced
            .range(..(before, Bytes::new()))
            .map(|(_, sha256)| sha256)
    }
}

/// How many files a version has.
pub fn config_file_count(version: &ConfigVersion) -> usize {
    version
        .files
        .len()
        .saturating_add(version.paged_files as usize)
}

/// A page ends after a file whose place hashes to this many zero bits: 64 files on the average.
const BOUNDARY_BITS: u32 = 6;

/// Cuts files into pages. Where a page ends follows from the places of its files alone, so that a changed file changes one
/// page, and an added or removed one at most two; the order in which they are given does not matter.
pub fn config_pages(mut files: Vec<ConfigFile>) -> Vec<ConfigPage> {
    /// Room for the name and the time.
    const AROUND: usize = 64;
    files.sort_by(|a, b| place(a).cmp(&place(b)));
    let mut pages = Vec::new();
    let mut run: Vec<ConfigFile> = Vec::new();
    let mut bytes = AROUND;
    let mut close = |run: &mut Vec<ConfigFile>| {
        if !run.is_empty() {
            let files = std::mem::take(run);
            pages.push(ConfigPage {
                sha256: Bytes::copy_from_slice(&config_page(&files)),
                files,
                put_ms: 0,
            });
        }
    };
    for file in files {
        // The field's own tag and length.
        let size = prost::Message::encoded_len(&file).saturating_add(8);
        if run.len() >= MAX_CONFIG_PAGE_FILES || bytes.saturating_add(size) > MAX_CONFIG_PAGE_BYTES
        {
            close(&mut run);
            bytes = AROUND;
        }
        bytes = bytes.saturating_add(size);
        let ends = is_boundary(&file);
        run.push(file);
        if ends {
            close(&mut run);
            bytes = AROUND;
        }
    }
    close(&mut run);
    pages
}

fn is_boundary(file: &ConfigFile) -> bool {
    let mut hasher = Sha256::new();
    hasher.update(&file.role);
    hasher.update([0]);
    hasher.update(&file.path);
    let hash: [u8; 32] = hasher.finalize().into();
    let [first, ..] = hash;
    first.trailing_zeros() >= BOUNDARY_BITS
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use trireme_proto::state::BlobRef;

    use super::*;

    fn file(at: usize, content: u8) -> ConfigFile {
        ConfigFile {
            role: "job".into(),
            path: format!("jobs/org-{}/repo-{at}.yaml", at % 97),
            blob: Some(BlobRef {
                sha256: vec![content; 32].into(),
                size: 10,
            }),
        }
    }

    fn names(files: &[ConfigFile]) -> BTreeSet<Bytes> {
        config_pages(files.to_vec())
            .into_iter()
            .map(|page| page.sha256)
            .collect()
    }

    #[test]
    fn a_changed_file_changes_one_page_and_an_added_one_at_most_two() {
        let files: Vec<_> = (0..5000).map(|at| file(at, 1)).collect();
        let before = names(&files);
        assert!((40..160).contains(&before.len()), "{}", before.len());
        let mut changed = files.clone();
        changed[1234] = file(1234, 2);
        assert_eq!(names(&changed).difference(&before).count(), 1);
        assert_eq!(before.difference(&names(&changed)).count(), 1);
        for at in 5000..5050 {
            let mut more = files.clone();
            more.push(file(at, 1));
            let new = names(&more).difference(&before).count();
            assert!((1..=2).contains(&new), "{new} new pages");
        }
    }

    #[test]
    fn pages_hold_all_files_in_order_within_their_bounds() {
        let mut files: Vec<_> = (0..3000).map(|at| file(at, 1)).collect();
        for (at, file) in files.iter_mut().enumerate() {
            // Long paths fill a page before many files do.
            file.path = format!("{}{at:04}", "x".repeat(1000));
        }
        files.reverse();
        let pages = config_pages(files.clone());
        for page in &pages {
            assert!(prost::Message::encoded_len(page) <= MAX_CONFIG_PAGE_BYTES);
            assert!(page.files.len() <= MAX_CONFIG_PAGE_FILES);
        }
        files.reverse();
        let joined: Vec<_> = pages.into_iter().flat_map(|page| page.files).collect();
        assert_eq!(joined, files);
        assert!(config_pages(Vec::new()).is_empty());
    }
}
