//! From files in the state to a parsed configuration: what the last one had by path and content is not read again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::Context as _;
use bytes::Bytes;
use trireme_api::blob;
use trireme_config::{ConfigCache, FileSet, Loaded, files::ContentId, plugins::Registry};
use trireme_proto::state::{BlobRef, ConfigFile};
use trireme_state::State;

use super::{layout, options};

/// Loads one configuration after the other, for whoever asks: a version that a door has checked is parsed when it is
/// committed.
pub struct Versions {
    registry: Arc<Registry>,
    cache: Mutex<ConfigCache>,
}

impl Versions {
    #[must_use]
    pub fn new(registry: Arc<Registry>) -> Self {
        Self {
            registry,
            cache: Mutex::default(),
        }
    }

    /// Loads files whose contents the state has. Takes as long as what is new in them needs, and longer while another
    /// configuration is loaded: not for a thread that others wait for.
    ///
    /// # Errors
    /// When the state lacks a content, or has another than its name says.
    pub fn load(&self, state: &State, files: &[ConfigFile]) -> anyhow::Result<Loaded> {
        let mut cache = self.cache();
        let (mut set, blobs) = named(files)?;
        for path in cache.missing(&set) {
            let Some((id, name)) = blobs.get(path.as_str()) else {
                continue;
            };
            let content = blob::read(state, name).with_context(|| path.clone())?;
            set.insert_known(path, *id, Some(Arc::from(&content[..])));
        }
        Ok(cache.load(&set, options(&self.registry)))
    }

    /// The same with contents that are at hand, by their sha256; where that does not do, the names of those that are needed
    /// too.
    ///
    /// # Errors
    /// When a file names no content.
    pub fn load_from(
        &self,
        contents: &HashMap<Bytes, Bytes>,
        files: &[ConfigFile],
    ) -> anyhow::Result<Result<Loaded, Vec<BlobRef>>> {
        let mut cache = self.cache();
        let (mut set, blobs) = named(files)?;
        let mut lacking = Vec::new();
        for path in cache.missing(&set) {
            let Some((id, name)) = blobs.get(path.as_str()) else {
                continue;
            };
            match contents.get(&name.sha256) {
                Some(content) => set.insert_known(path, *id, Some(Arc::from(&content[..]))),
                None => lacking.push((*name).clone()),
            }
        }
        if lacking.is_empty() {
            Ok(Ok(cache.load(&set, options(&self.registry))))
        } else {
            Ok(Err(lacking))
        }
    }

    fn cache(&self) -> MutexGuard<'_, ConfigCache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Contents by the path that has them.
type Blobs<'f> = HashMap<&'f str, (ContentId, &'f BlobRef)>;

/// Files by the names of their contents.
fn named(files: &[ConfigFile]) -> anyhow::Result<(FileSet, Blobs<'_>)> {
    let names = files.iter().map(|file| (&*file.role, &*file.path));
    let mut set = FileSet::new(layout(names));
    let mut blobs = HashMap::with_capacity(files.len());
    for file in files {
        let name = file
            .blob
            .as_ref()
            .with_context(|| format!("{}: the version names no content", file.path))?;
        let id = ContentId::try_from(&name.sha256[..])
            .with_context(|| format!("{}: its content has no proper name", file.path))?;
        set.insert_known(&*file.path, id, None);
        blobs.insert(&*file.path, (id, name));
    }
    Ok((set, blobs))
}
