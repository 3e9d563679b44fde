//! What can go wrong with the store, in sentences that say what to do.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why the store cannot be used, or did not take a change.
#[derive(Debug)]
pub enum StoreError {
    /// Another process works on the same directory.
    Locked {
        /// The directory.
        dir: PathBuf,
        /// The process that holds it, if it left its number.
        by: Option<u32>,
    },
    /// The file is not a store, or a damaged one. It is left as it is.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A newer version wrote it.
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format this version knows.
        known: u32,
    },
    /// The disk took no more: either nothing of the change is in the store, or, if a sync failed, all of it.
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

// === impl StoreError ===

impl StoreError {
    /// Whether the disk is full: a command is then answered 507.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::FileTooLarge];
        matches!(self, Self::Io { source, .. } if full.contains(&source.kind()))
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked { dir, by } => {
                write!(f, "{}: in use by another tidegate", dir.display())?;
                if let Some(pid) = by {
                    write!(f, " (process {pid})")?;
                }
                f.write_str("; stop it, or give this one a directory of its own ([state] dir)")
            }
            Self::Unreadable { path, why } => write!(
                f,
                "{}: not a usable store: {why}. It was left as it is; put a backup in its place, or move it away to begin without \
                 history (candidates then wait for a start command)",
                path.display()
            ),
            Self::Newer { path, found, known } => write!(
                f,
                "{}: written by a newer tidegate (format {found}, this one knows up to {known}); run that version, or move the \
                 file away to begin without history",
                path.display()
            ),
            Self::Io { path, source } => write!(f, "{}: {source}", path.display()),
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
