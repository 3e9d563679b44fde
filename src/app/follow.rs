//! Which files are followed, and what is known to be in them: whatever a reload has read is no news, whoever asked for it.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::config::settings::{Settings, TokenSource};
use crate::control::reload::{Loader, Source};
use crate::core::health::wanted::ProbeTls;
use crate::watch::{Digest, FileWatch, Watched};

/// The bit of a file's mode that lets everyone read it.
const READABLE_BY_ANYONE: u32 = 0o004;

/// Keeps the watch in step with what was read.
pub(super) struct Follow {
    config: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    watch: Weak<FileWatch>,
    /// What the configuration refers to. A digest is for the watch once: of what it has seen since, it knows better.
    files: Vec<Watched>,
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
        match settings {
            Some(settings) => {
                warn_of_readable_tokens(settings);
                inner.files = referred(settings);
            }
            // What was loaded of them is not known, so what the watch knows stays. The digests of the last good load would differ from a
            // broken file at every look, and every difference is a reload.
            None => inner.files.iter_mut().for_each(|file| file.read = None),
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
        std::iter::once(config).chain(self.files.iter().cloned()).collect()
    }
}

/// The files with tokens.
fn token_files(settings: &Settings) -> impl Iterator<Item = &PathBuf> {
    settings.admin.tokens.iter().filter_map(|token| match &token.source {
        TokenSource::File(path) => Some(path),
        TokenSource::Env(_) => None,
    })
}

/// A warning, not a refusal: secrets that a container is given can be read by everyone in it, where there is one alone.
pub(super) fn warn_of_readable_tokens(settings: &Settings) {
    for path in token_files(settings) {
        if std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & READABLE_BY_ANYONE != 0) {
            tracing::warn!(file = %path.display(), "anyone on this machine may read this token of the admin API: chmod 600 it");
        }
    }
}

/// The files a configuration refers to, with what was loaded of them.
fn referred(settings: &Settings) -> Vec<Watched> {
    let listeners = settings.listeners.iter().filter_map(|listener| listener.tls.as_ref());
    let ours = listeners.flat_map(|tls| &tls.certificates).flat_map(|files| [&files.cert, &files.key]);
    let upstreams = settings.services.iter().flat_map(|service| {
        let probes = match &service.health.tls {
            ProbeTls::Own(tls) => Some(tls),
            ProbeTls::Upstream | ProbeTls::Off => None,
        };
        service.upstream.tls.iter().chain(probes)
    });
    let theirs = upstreams.flat_map(|tls| tls.ca.iter().chain(tls.client.iter().flat_map(|(cert, key)| [cert, key])));
    let mut files: BTreeMap<PathBuf, Option<Digest>> = BTreeMap::new();
    for file in ours.chain(theirs) {
        let read = Digest::of(&file.pem);
        // A file that is named twice and was changed between the two reads: nothing is in no PEM file, so that it is news in any case.
        let known = files.entry(PathBuf::from(&file.path)).or_insert(Some(read));
        if *known != Some(read) {
            *known = Some(Digest::of(&[]));
        }
    }
    // A secret is not kept as it was read.
    let secrets = settings.services.iter().filter_map(|service| service.affinity.secret.as_ref());
    for path in secrets.map(|secret| PathBuf::from(&*secret.1)).chain(token_files(settings).cloned()) {
        files.entry(path).or_insert(None);
    }
    files.into_iter().map(|(path, read)| Watched { path, read }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::atomic::{AtomicU32, Ordering};

    use crate::config::settings::{CertificateFiles, ListenerTls};
    use crate::control::answer::Problem;
    use crate::control::fake;
    use crate::core::service::PemFile;
    use crate::watch::Timing;

    static NEXT: AtomicU32 = AtomicU32::new(0);

    /// A file of a test's own; it goes with the value.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(contents: &str) -> Self {
            let name = format!("tidegate-follow-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let path = std::env::temp_dir().join(name);
            std::fs::write(&path, contents).expect("writes");
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    /// Settings with `cert` and `key` as they were read from `path`.
    fn with_pem(path: &Path, cert: &str, key: &str) -> Settings {
        let file = |pem: &str| PemFile { path: path.display().to_string(), pem: pem.as_bytes().into() };
        let mut settings = fake::web_and_api();
        let certificates = vec![CertificateFiles { cert: file(cert), key: file(key) }];
        settings.listeners[0].tls = Some(ListenerTls { certificates });
        settings
    }

    fn read_of(follow: &Follow, path: &Path) -> Option<Digest> {
        follow.files().into_iter().find(|file| file.path == path).expect("followed").read
    }

    #[test]
    fn a_file_that_is_referred_to_is_compared_with_what_was_loaded_of_it() {
        let (config, pem) = (Scratch::new(""), Scratch::new("new"));
        let follow = Follow::new(&config.0);
        let settings = with_pem(&pem.0, "old", "old");
        let load = follow.loader(Arc::new(move |_| Ok(settings.clone())));
        load(Source::File).expect("loads");
        assert_eq!(read_of(&follow, &pem.0), Some(Digest::of(b"old")), "whatever is in it by now");
        assert_eq!(follow.files().len(), 2, "a file that is named twice is followed once");
    }

    #[test]
    fn a_file_that_changed_while_it_was_read_is_none_of_both() {
        let (config, pem) = (Scratch::new(""), Scratch::new("new"));
        let follow = Follow::new(&config.0);
        let settings = with_pem(&pem.0, "old", "new");
        let load = follow.loader(Arc::new(move |_| Ok(settings.clone())));
        load(Source::File).expect("loads");
        let read = read_of(&follow, &pem.0).expect("known");
        assert!(read != Digest::of(b"old") && read != Digest::of(b"new"));
    }

    #[test]
    fn a_refused_file_leaves_what_is_known_of_the_others() {
        let (config, pem) = (Scratch::new(""), Scratch::new("broken"));
        let follow = Follow::new(&config.0);
        let outcomes =
            Mutex::new(vec![Err(vec![Problem::of("broken".to_owned())]), Ok(with_pem(&pem.0, "old", "old"))]);
        let next = move |_| outcomes.lock().expect("lock").pop().expect("an outcome");
        let load = follow.loader(Arc::new(next));
        load(Source::File).expect("loads");
        load(Source::File).expect_err("refused");
        // With the digest of before, the watch would tell of the same broken contents again and again.
        assert_eq!(read_of(&follow, &pem.0), None);
    }

    #[tokio::test]
    async fn a_change_between_loading_and_watching_is_told() {
        let (config, pem) = (Scratch::new(""), Scratch::new("new"));
        let follow = Follow::new(&config.0);
        let settings = with_pem(&pem.0, "old", "old");
        let load = follow.loader(Arc::new(move |_| Ok(settings.clone())));
        load(Source::File).expect("loads");
        let (sender, mut changes) = tokio::sync::mpsc::channel(1);
        let _watch = FileWatch::start(follow.files(), Timing::default(), sender).expect("watches");
        let changed = tokio::time::timeout(std::time::Duration::from_secs(10), changes.recv()).await;
        assert_eq!(changed.expect("in time").expect("watched").paths, std::slice::from_ref(&pem.0));
    }
}
