//! The configuration file: TOML text in, everything resolved out, or all errors at once.

mod compile;
mod error;
mod file;
mod keys;
mod render;
pub mod settings;
mod units;
mod words;

use std::io::Read;
use std::path::Path;

use toml::de::DeTable;

pub use self::error::{ConfigError, ERRORS_MAX, Errors};
pub use self::render::render;

use self::error::Mistake;
use self::file::{Context, Table};
use self::settings::Settings;

/// Largest configuration file, in bytes.
pub const FILE_SIZE_MAX: u64 = 16 * 1024 * 1024;

/// Reads the file at `path` and resolves it. `env` looks up environment variables.
///
/// # Errors
/// Every mistake in the file at once; or why it cannot be read, and what to do.
pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Settings, Errors> {
    let refuse = |message: String| Errors::whole_file(&path.display().to_string(), message);
    let mut bytes = Vec::new();
    std::fs::File::open(path).and_then(|file| file.take(FILE_SIZE_MAX + 1).read_to_end(&mut bytes)).map_err(
        |error| refuse(format!("cannot be read: {error}; name a configuration file that this user may read")),
    )?;
    if bytes.len() as u64 > FILE_SIZE_MAX {
        return Err(refuse(format!("larger than {}", units::show_size(FILE_SIZE_MAX))));
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => parse(text, path, env),
        Err(error) => {
            let line = bytes[..error.valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
            Err(refuse(format!("line {line} is not UTF-8; a configuration file is UTF-8 text")))
        }
    }
}

/// Resolves the configuration in `text`. Messages name `origin`, and relative paths are relative to its folder.
///
/// # Errors
/// Every mistake in the text at once; of broken TOML syntax, the first.
pub fn parse(text: &str, origin: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Settings, Errors> {
    let file = origin.display().to_string();
    let document = DeTable::parse(text).map_err(|error| {
        let offset = error.span().map_or(text.len(), |span| span.start);
        let message = error.message().lines().collect::<Vec<_>>().join("; ");
        Errors::locate(&file, text, vec![Mistake { offset: Some(offset), key: String::new(), message }])
    })?;
    let base = origin.parent().unwrap_or_else(|| Path::new("")).to_path_buf();
    let context = Context::new(base, env);
    let settings = compile::settings(&Table::root(&context, document.get_ref()));
    match context.into_mistakes() {
        none if none.is_empty() => Ok(settings),
        mistakes => Err(Errors::locate(&file, text, mistakes)),
    }
}

/// Which changed sections take effect only after a restart.
#[must_use]
pub fn needs_restart(old: &Settings, new: &Settings) -> Vec<&'static str> {
    let sections = [
        ("[admin]", old.admin != new.admin),
        ("[state]", old.state != new.state),
        ("[runtime]", old.runtime != new.runtime),
    ];
    sections.into_iter().filter(|(_, changed)| *changed).map(|(section, _)| section).collect()
}
