//! The configuration file: TOML text in, everything resolved out, or all errors at once.

mod compile;
mod error;
mod file;
mod keys;
mod plan;
mod render;
pub mod settings;
#[cfg(test)]
mod tests;
mod units;
mod words;

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use toml::de::DeTable;

pub use self::error::{ConfigError, ERRORS_MAX, Errors};
pub use self::plan::plan;
pub use self::render::render;
pub use self::units::DURATION_FORM;

use crate::core::endpoint::Place;

use self::error::Mistake;
use self::file::{Context, Table};
use self::settings::Settings;

/// Largest configuration file, in bytes.
pub const FILE_SIZE_MAX: u64 = 16 * 1024 * 1024;

/// Reads a duration as the file has them; [`DURATION_FORM`] says how.
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    units::duration(text)
}

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
            let offset = Some(error.valid_up_to());
            let message = "not UTF-8; a configuration file is UTF-8 text".to_owned();
            let before = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            let mistake = Mistake { offset, key: String::new(), message };
            Err(Errors::locate(&path.display().to_string(), &before, vec![mistake]))
        }
    }
}

/// Resolves the configuration in `text`. Messages name `origin`, and relative paths are relative to its folder.
///
/// # Errors
/// Every mistake in the text at once; of broken TOML syntax, the first.
pub fn parse(text: &str, origin: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Settings, Errors> {
    let file = origin.display().to_string();
    let (document, broken) = DeTable::parse_recoverable(text);
    let repeated = repeated_keys(text, &broken).map_err(|first| Errors::locate(&file, text, vec![first]))?;
    let base = origin.parent().unwrap_or_else(|| Path::new("")).to_path_buf();
    let context = Context::new(base, env);
    let settings = compile::settings(&Table::root(&context, document.get_ref()));
    let mut mistakes = context.into_mistakes();
    mistakes.extend(repeated);
    if mistakes.is_empty() { Ok(settings) } else { Err(Errors::locate(&file, text, mistakes)) }
}

/// The keys that are written twice, if nothing else is wrong with the syntax; else the first error, because what follows it
/// may be its consequence.
fn repeated_keys(text: &str, broken: &[toml::de::Error]) -> Result<Vec<Mistake>, Mistake> {
    let mistake = |error: &toml::de::Error, message: String| {
        let offset = Some(error.span().map_or(text.len(), |span| span.start));
        Mistake { offset, key: String::new(), message }
    };
    let repeated = |error: &toml::de::Error| {
        let key = error.span().and_then(|span| text.get(span)).filter(|_| error.message() == "duplicate key");
        match key {
            Some(key) => Ok(mistake(error, format!("{key} is written twice"))),
            None => Err(mistake(error, format!("not TOML: {}", error.message().replace('\n', "; ")))),
        }
    };
    let first = broken.iter().find_map(|error| repeated(error).err());
    match first {
        Some(first) => Err(first),
        None => Ok(broken.iter().filter_map(|error| repeated(error).ok()).collect()),
    }
}

/// Where an endpoint is, as the file writes it: an address, a name and port, `srv:NAME` or `unix:/path`.
///
/// # Errors
/// What is allowed.
pub fn place(text: &str) -> Result<Place, String> {
    compile::place(&Context::new(std::path::PathBuf::from("/"), &|_| None), text)
}

/// Which changed sections take effect only after a restart.
#[must_use]
pub fn needs_restart(old: &Settings, new: &Settings) -> Vec<&'static str> {
    let addresses = |settings: &Settings| (settings.admin.listen.clone(), settings.admin.probe_listen.clone());
    let sections = [
        // Tokens are looked up in the settings in force.
        ("[admin]", addresses(old) != addresses(new)),
        ("[state]", old.state != new.state),
        ("[runtime]", old.runtime != new.runtime),
    ];
    sections.into_iter().filter(|(_, changed)| *changed).map(|(section, _)| section).collect()
}
