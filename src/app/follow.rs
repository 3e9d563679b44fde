//! Which files are followed, and what is known to be in them: whatever a reload has read is no news, whoever asked for it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::config::settings::Settings;
use crate::control::reload::{Loader, Source};
use crate::watch::{Digest, FileWatch, Watched};

/// Keeps the watch in step with what was read.
pub(super) struct Follow {
    config: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    watch: Weak<FileWatch>,
    files: Vec<PathBuf>,
    read: Option<Digest>,
}

// === impl Follow ===

impl Follow {
    /// Follows `config`, and after the first load all files it refers to.
    pub(super) fn new(config: &Path) -> Arc<Self> {
        Arc::new(Self { config: config.to_owned(), inner: Mutex::default() })
    }

    /// `load`, with the watch told of every reload. A file that changes again between the two reads is found by the watch.
    pub(super) fn loader(self: &Arc<Self>, load: Loader) -> Loader {
        let follow = Arc::clone(self);
        Arc::new(move |source| {
            let read = (source == Source::File).then(|| Digest::of_file(&follow.config).ok());
            let loaded = load(source);
            if let Some(read) = read {
                follow.loaded(read, loaded.as_ref().ok());
            }
            loaded
        })
    }

    /// What to watch.
    pub(super) fn files(&self) -> Vec<Watched> {
        self.locked().wanted(&self.config)
    }

    /// Tells `watch` from now on.
    pub(super) fn attach(&self, watch: &Arc<FileWatch>) {
        self.locked().watch = Arc::downgrade(watch);
    }

    fn loaded(&self, read: Option<Digest>, settings: Option<&Settings>) {
        let mut inner = self.locked();
        inner.read = read;
        if let Some(settings) = settings {
            inner.files = referred(settings);
        }
        if let Some(watch) = inner.watch.upgrade() {
            watch.watch(inner.wanted(&self.config));
        }
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Inner ===

impl Inner {
    fn wanted(&self, config: &Path) -> Vec<Watched> {
        let config = Watched { path: config.to_owned(), read: self.read };
        let others = self.files.iter().map(|path| Watched { path: path.clone(), read: None });
        std::iter::once(config).chain(others).collect()
    }
}

/// The files a configuration refers to.
fn referred(settings: &Settings) -> Vec<PathBuf> {
    let listeners = settings.listeners.iter().filter_map(|listener| listener.tls.as_ref());
    let ours = listeners.flat_map(|tls| &tls.certificates).flat_map(|files| [&files.cert, &files.key]);
    let upstreams = settings.services.iter().filter_map(|service| service.upstream.tls.as_ref());
    let theirs = upstreams.flat_map(|tls| tls.ca.iter().chain(tls.client.iter().flat_map(|(cert, key)| [cert, key])));
    let named = ours.chain(theirs).map(|file| PathBuf::from(&file.path));
    let secrets = settings.services.iter().filter_map(|service| service.affinity.secret.as_ref());
    let secrets = secrets.map(|secret| PathBuf::from(&*secret.1));
    let mut files: Vec<PathBuf> = named.chain(secrets).collect();
    files.sort_unstable();
    files.dedup();
    files
}
