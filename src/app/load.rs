//! From settings to what the parts take.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::level_filters::LevelFilter;

use crate::config::settings::{AccessLog, Log as LogSettings, LogFormat, LogLevel, Settings};
use crate::control::writer::Listening;
use crate::telemetry::Format;
use crate::telemetry::access::{self, AccessWriter};
use crate::telemetry::log::Log;
use crate::telemetry::sink::Target;

/// Takes over what a reload changes beside routing and listeners.
pub(super) fn listening(log: Arc<Log>, access: Arc<AccessWriter>) -> Listening {
    Arc::new(move |settings| {
        // TIDEGATE_LOG wins over the file.
        let _ = log.set_level(log_level(&settings.log).0);
        match access.prepare(access_log(&settings.log.access)) {
            Ok(prepared) => access.commit(prepared),
            Err(why) => tracing::error!("{why}; the access log stays as it was"),
        }
    })
}

pub(super) fn log_level(log: &LogSettings) -> (LevelFilter, Option<Format>) {
    let level = match log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    (level, log.format.map(format))
}

pub(super) fn access_log(log: &AccessLog) -> access::Settings {
    access::Settings {
        enabled: log.enabled,
        sample: log.sample,
        format: format(log.format),
        target: log.path.clone().map_or(Target::Stdout, Target::File),
    }
}

fn format(format: LogFormat) -> Format {
    match format {
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    }
}

/// The file and all files it refers to.
pub(super) fn files(config: &Path, settings: &Settings) -> Vec<PathBuf> {
    let listeners = settings.listeners.iter().filter_map(|listener| listener.tls.as_ref());
    let ours = listeners.flat_map(|tls| &tls.certificates).flat_map(|files| [&files.cert, &files.key]);
    let upstreams = settings.services.iter().filter_map(|service| service.upstream.tls.as_ref());
    let theirs = upstreams.flat_map(|tls| tls.ca.iter().chain(tls.client.iter().flat_map(|(cert, key)| [cert, key])));
    let named = ours.chain(theirs).map(|file| PathBuf::from(&file.path));
    let secrets = settings.services.iter().filter_map(|service| service.affinity.secret.as_ref());
    let secrets = secrets.map(|secret| PathBuf::from(&*secret.1));
    let mut files: Vec<PathBuf> = std::iter::once(config.to_owned()).chain(named).chain(secrets).collect();
    files.sort_unstable();
    files.dedup();
    files
}
