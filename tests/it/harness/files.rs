//! A directory of a test's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

static NEXT: AtomicU64 = AtomicU64::new(0);

/// A directory that goes when the test ends.
#[derive(Debug)]
pub(crate) struct TempDir {
    path: PathBuf,
}

// === impl TempDir ===

impl TempDir {
    /// A new, empty one.
    pub(crate) fn new() -> Self {
        let name = format!("tidegate-it-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a new directory");
        Self { path }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes `name` beside and renames it into place, so that no reader ever sees half of it.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let (new, path) = (self.path.join(format!(".{name}.new")), self.path.join(name));
        fs::write(&new, text).expect("a writable directory");
        fs::rename(&new, &path).expect("a rename in place");
        path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // What cannot be removed is left to the system's own cleaning.
        let _ = fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_new_and_goes_at_the_end() {
        let (one, two) = (TempDir::new(), TempDir::new());
        assert_ne!(one.path(), two.path());
        let file = one.write("a.toml", "x = 1");
        one.write("a.toml", "x = 2");
        assert_eq!(fs::read_to_string(&file).unwrap(), "x = 2");
        assert_eq!(fs::read_dir(one.path()).unwrap().count(), 1);
        drop(one);
        assert!(!file.exists());
    }
}
