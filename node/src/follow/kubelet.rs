//! A volume as Kubernetes' kubelet keeps it, step by step: it writes a new hidden directory, swaps the link `..data` by
//! renaming another over it, then links names that are new, unlinks those that are gone, and removes the old directory.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

/// Where an update stops, as if its writer were killed there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    Written,
    LinkMade,
    Swapped,
    NewLinked,
    OldUnlinked,
    Done,
}

/// One mounted volume.
pub(crate) struct Volume {
    root: PathBuf,
    updates: u32,
}

impl Volume {
    /// Mounts it with its first content.
    pub(crate) fn mount(root: impl Into<PathBuf>, content: &[(&str, &[u8])]) -> Self {
        let root = root.into();
        fs::create_dir_all(&root).unwrap();
        let mut volume = Self { root, updates: 0 };
        volume.update(content);
        volume
    }

    pub(crate) fn update(&mut self, content: &[(&str, &[u8])]) {
        self.update_until(Step::Done, content);
    }

    /// Updates up to and with a step.
    pub(crate) fn update_until(&mut self, last: Step, content: &[(&str, &[u8])]) {
        self.updates += 1;
        let name = format!(
            "..2026_11_26_22_58_{:02}.{}",
            self.updates,
            1_000_000 + self.updates
        );
        let next = self.root.join(&name);
        let content: BTreeMap<&str, &[u8]> = content.iter().copied().collect();
        for (path, bytes) in &content {
            let path = next.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        if last == Step::Written {
            return;
        }
        let (data, made) = (self.root.join("..data"), self.root.join("..data_tmp"));
        // What an ended writer left is in the way.
        let _left = fs::remove_file(&made);
        symlink(&name, &made).unwrap();
        if last == Step::LinkMade {
            return;
        }
        let former = fs::read_link(&data).ok();
        fs::rename(&made, &data).unwrap();
        if last == Step::Swapped {
            return;
        }
        self.link(&content);
        if last == Step::NewLinked {
            return;
        }
        self.unlink(&content);
        if last == Step::OldUnlinked {
            return;
        }
        if let Some(former) = former {
            fs::remove_dir_all(self.root.join(former)).unwrap();
        }
    }

    /// What a kubelet that was started again does about an update that is not complete.
    pub(crate) fn complete(&self) {
        let data = self.root.join("..data");
        let names: Vec<String> = fs::read_dir(&data)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let content = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
        self.link(&content);
        self.unlink(&content);
    }

    fn first_names(content: &BTreeMap<&str, &[u8]>) -> BTreeSet<String> {
        content
            .keys()
            .map(|path| path.split('/').next().unwrap_or_default().to_owned())
            .collect()
    }

    fn link(&self, content: &BTreeMap<&str, &[u8]>) {
        for name in Self::first_names(content) {
            let shown = self.root.join(&name);
            if fs::symlink_metadata(&shown).is_err() {
                symlink(Path::new("..data").join(&name), shown).unwrap();
            }
        }
    }

    fn unlink(&self, content: &BTreeMap<&str, &[u8]>) {
        let names = Self::first_names(content);
        for entry in fs::read_dir(&self.root).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if !name.starts_with("..") && !names.contains(&name) {
                fs::remove_file(self.root.join(name)).unwrap();
            }
        }
    }
}
