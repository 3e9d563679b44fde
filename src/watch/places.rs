//! Where a file can change from: every directory entry that decides what a path leads to.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Symbolic links followed on the way to one file; the kernel stops at as many (`path_resolution(7)`).
const LINKS_MAX: usize = 40;

/// The entries and directories of a set of files. Paths in here are absolute and physical: no link is left in them but in the last name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Places {
    /// An event about one of these may mean a change.
    pub(super) entries: HashSet<PathBuf>,
    /// The directories to watch. `false`: it only matters if the directory below it is swapped, so it is no loss if it cannot be watched.
    pub(super) directories: BTreeMap<PathBuf, bool>,
}

impl Places {
    /// The places of all of `paths` as they are now.
    pub(super) fn of<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Self {
        let mut places = Self::default();
        for path in paths {
            places.add(path);
        }
        places
    }

    /// Walks `path` from the root. Of every link the folder is watched (Kubernetes swaps `..data`), of the file its folder, and the folder
    /// above that, where a deleted folder comes back. What does not exist yet is awaited in the last folder that does.
    fn add(&mut self, path: &Path) {
        // Fails for an empty path, which leads nowhere.
        let Ok(path) = std::path::absolute(path) else { return };
        let mut left: VecDeque<_> = names(&path).collect();
        let mut links = 0;
        let mut at = PathBuf::from("/");
        let mut file = at.clone();
        while let Some(name) = left.pop_front() {
            if name == ".." {
                at.pop();
                continue;
            }
            file = at.join(&name);
            self.entries.insert(file.clone());
            match fs::symlink_metadata(&file) {
                Ok(metadata) if metadata.is_symlink() && links < LINKS_MAX => {
                    links += 1;
                    self.watch(&at);
                    let Ok(target) = fs::read_link(&file) else { break };
                    if target.is_absolute() {
                        at = PathBuf::from("/");
                    }
                    for name in names(&target).rev() {
                        left.push_front(name);
                    }
                }
                Ok(metadata) if metadata.is_dir() => at.clone_from(&file),
                _ => break,
            }
        }
        self.watch(if file == at { file.parent().unwrap_or(&at) } else { &at });
    }

    fn watch(&mut self, folder: &Path) {
        self.directories.insert(folder.to_owned(), true);
        if let Some(above) = folder.parent() {
            self.directories.entry(above.to_owned()).or_insert(false);
        }
    }
}

/// The names in a path, `..` among them.
fn names(path: &Path) -> impl DoubleEndedIterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}
