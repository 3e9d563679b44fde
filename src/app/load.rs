//! From settings to what the parts take.

use std::sync::Arc;

use tracing::level_filters::LevelFilter;

use crate::config::settings::{AccessLog, Log as LogSettings, LogFormat, LogLevel};
use crate::control::answer::Problem;
use crate::control::reload::Listening;
use crate::telemetry::Format;
use crate::telemetry::access::{self, AccessWriter};
use crate::telemetry::log::Log;
use crate::telemetry::sink::Target;

/// What a reload changes beside routing and listeners: opens the target of the access log, then takes it all over.
pub(super) fn listening(log: Arc<Log>, access: Arc<AccessWriter>) -> Listening {
    Arc::new(move |settings| {
        let prepared = access.prepare(access_log(&settings.log.access)).map_err(|why| vec![target_problem(why)])?;
        let ((level, format), log, access) = (log_level(&settings.log), Arc::clone(&log), Arc::clone(&access));
        Ok(Box::new(move || {
            // TIDEGATE_LOG wins over the file, and whoever embeds us may have a log of their own.
            let _ = (log.set_level(level), log.set_format(format));
            access.commit(prepared);
        }))
    })
}

fn target_problem(why: String) -> Problem {
    Problem { key: Some("log.access.path".to_owned()), ..Problem::of(why) }
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
