//! From settings to what the parts take.

use std::sync::Arc;

use tracing::level_filters::LevelFilter;

use crate::config::settings::{AccessLog, Log as LogSettings, LogFormat, LogLevel};
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
