//! The process log: `tracing` to standard error, through a bounded queue so that no thread waits for a terminal or a pipe.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layered, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use super::Format;
use super::sink::{Block, CLOSE_TIMEOUT, Output, Sink, Target};

/// Environment variable whose directives (`debug`, `tidegate=trace,pingora=info`) replace the level of the file.
pub const OVERRIDE_ENV: &str = "TIDEGATE_LOG";
/// Most lines that wait to be written; what comes beyond is dropped and counted.
pub const QUEUE_LINES_MAX: usize = 1024;
/// Longest text of [`OVERRIDE_ENV`], in bytes.
const DIRECTIVES_MAX: usize = 4 * 1024;

/// The process log; closing or dropping it writes what is queued.
#[derive(Debug)]
pub struct Log {
    lines: Option<Lines>,
    handles: Option<Handles>,
    /// [`OVERRIDE_ENV`] is in force: the level of the file is not.
    overridden: bool,
}

/// What a reload changes.
struct Handles {
    filter: reload::Handle<EnvFilter, Registry>,
    layer: reload::Handle<BoxedLayer, Filtered>,
}

type Filtered = Layered<reload::Layer<EnvFilter, Registry>, Registry>;
type BoxedLayer = Box<dyn Layer<Filtered> + Send + Sync>;

/// Makes a writer per event; the thread behind it is shared.
#[derive(Clone)]
struct Lines(Arc<Sink>);

// === impl Log ===

impl Log {
    /// Starts logging at `level`. Without a `format`: text on a terminal, JSON otherwise. If the process logs already, that stays and
    /// the value returned has no effect. Bad directives in [`OVERRIDE_ENV`] are reported in the log and ignored.
    ///
    /// # Errors
    /// If standard error cannot be used or no thread can be started.
    pub fn init(level: LevelFilter, format: Option<Format>) -> io::Result<Self> {
        let (overrides, complaint) = match overrides(std::env::var(OVERRIDE_ENV).ok()) {
            Ok(filter) => (filter, None),
            Err(complaint) => (None, Some(complaint)),
        };
        let sink = Sink::start("log", QUEUE_LINES_MAX, Some(Output::open(&Target::Stderr)?), None)?;
        let lines = Lines(Arc::new(sink));
        let overridden = overrides.is_some();
        let (subscriber, handles) = subscriber(level, overrides, to_stderr(format, &lines));
        if subscriber.try_init().is_err() {
            return Ok(Self { lines: None, handles: None, overridden: false });
        }
        let log = Self { lines: Some(lines), handles: Some(handles), overridden };
        let _overridden = log.set_level(level);
        if let Some(complaint) = complaint {
            tracing::warn!("{complaint}");
        }
        Ok(log)
    }

    /// Changes the level at a reload. `false` if [`OVERRIDE_ENV`] is in force, or another log.
    #[must_use]
    pub fn set_level(&self, level: LevelFilter) -> bool {
        let Some(handles) = self.handles.as_ref().filter(|_| !self.overridden) else { return false };
        handles.filter.reload(filter(level)).is_ok()
    }

    /// Changes how lines look at a reload, as at [`Log::init`]. `false` with another log in force.
    #[must_use]
    pub fn set_format(&self, format: Option<Format>) -> bool {
        let (Some(handles), Some(lines)) = (&self.handles, &self.lines) else { return false };
        handles.layer.reload(to_stderr(format, lines)).is_ok()
    }

    /// Lines lost because the writer was behind or could not write.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.lines.as_ref().map_or(0, |lines| lines.0.stats().lines_lost)
    }

    /// Writes what is queued and ends the writer. Whether all was written within 2 s. What is logged later is lost.
    #[must_use]
    pub fn close(&self) -> bool {
        self.lines.as_ref().is_none_or(|lines| lines.0.close(CLOSE_TIMEOUT))
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _stuck = self.close();
    }
}

/// What `init` installs. `log` records pass a ceiling that is set once, from the first filter, so it begins no lower than a reload may ask for.
fn subscriber(
    level: LevelFilter,
    overrides: Option<EnvFilter>,
    layer: BoxedLayer,
) -> (impl tracing::Subscriber + Send + Sync, Handles) {
    let first = overrides.unwrap_or_else(|| filter(level.max(LevelFilter::WARN)));
    let (filter, filter_handle) = reload::Layer::new(first);
    let (layer, layer_handle) = reload::Layer::new(layer);
    let handles = Handles { filter: filter_handle, layer: layer_handle };
    (tracing_subscriber::registry().with(filter).with(layer), handles)
}

/// Ours at `level`, others at `warn` at most: their `debug` and `trace` show header fields. Pingora warns of what clients do every day.
fn filter(level: LevelFilter) -> EnvFilter {
    let others = level.min(LevelFilter::WARN);
    let pingora = level.min(LevelFilter::ERROR);
    EnvFilter::new(format!("{others},tidegate={level},pingora={pingora}"))
}

/// The filter of [`OVERRIDE_ENV`], if it is set.
fn overrides(text: Option<String>) -> Result<Option<EnvFilter>, String> {
    let Some(text) = text.filter(|text| !text.trim().is_empty()) else { return Ok(None) };
    if text.len() > DIRECTIVES_MAX {
        return Err(format!("{OVERRIDE_ENV} is ignored: longer than {DIRECTIVES_MAX} bytes"));
    }
    EnvFilter::builder().parse(&text).map(Some).map_err(|error| {
        format!("{OVERRIDE_ENV} is ignored: {error}; allowed are directives such as \"debug\" or \"tidegate=debug,pingora=warn\"")
    })
}

/// Without a `format`: text on a terminal, JSON otherwise.
fn to_stderr(format: Option<Format>, lines: &Lines) -> BoxedLayer {
    let terminal = io::stderr().is_terminal();
    layer(format.unwrap_or(if terminal { Format::Text } else { Format::Json }), terminal, lines.clone())
}

fn layer(format: Format, color: bool, lines: Lines) -> BoxedLayer {
    let layer = tracing_subscriber::fmt::layer().with_writer(lines);
    match format {
        Format::Text => layer.with_ansi(color).boxed(),
        Format::Json => layer.json().flatten_event(true).with_ansi(false).boxed(),
    }
}

// === Debug ===

impl std::fmt::Debug for Handles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handles(..)")
    }
}

// === impl Lines ===

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Lines;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

/// The formatter hands over one whole line per call.
impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Err(refused) = self.0.offer(Block { bytes: line.to_vec(), lines: 1, home: None }) {
            self.0.lost(u64::from(refused.lines));
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Lines").field(&self.0.stats()).finish()
    }
}

#[cfg(test)]
mod tests;
