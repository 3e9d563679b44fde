//! The file as it is written: a TOML document whose keys and values know their place, and readers that note every mistake.
//!
//! serde stops at the first error, so the document is walked by hand instead: each reader notes what is wrong and returns
//! `None` or the default, and compiling goes on. Which keys exist is listed in [`super::keys`].

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt::Display;
use std::hash::Hash;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::Mistake;
use super::keys::{self, Section};
use super::units;
use super::words::Words;
use crate::core::health::json::Scalar;

/// Longest piece of a value that a message repeats, in characters.
const SHOWN_MAX: usize = 80;

/// What compiling needs beside the document.
pub(super) struct Context<'d> {
    /// The folder relative paths are relative to.
    pub(super) base: PathBuf,
    /// Looks up an environment variable.
    pub(super) env: &'d dyn Fn(&str) -> Option<String>,
    mistakes: RefCell<Vec<Mistake>>,
}

/// A table and its place.
pub(super) struct Table<'d> {
    context: &'d Context<'d>,
    section: &'static Section,
    path: String,
    offset: Option<usize>,
    entries: &'d DeTable<'d>,
}

/// The value of a key of `table`, or an element of it.
#[derive(Clone, Copy)]
pub(super) struct Value<'t, 'd> {
    table: &'t Table<'d>,
    key: &'d str,
    index: Option<usize>,
    spanned: &'d Spanned<DeValue<'d>>,
}

// === impl Context ===

impl<'d> Context<'d> {
    pub(super) fn new(base: PathBuf, env: &'d dyn Fn(&str) -> Option<String>) -> Self {
        Self { base, env, mistakes: RefCell::default() }
    }

    /// `path` as it is meant: relative ones are relative to the folder of the file.
    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        let joined = self.base.join(Path::new(path));
        std::path::absolute(&joined).unwrap_or(joined)
    }

    pub(super) fn into_mistakes(self) -> Vec<Mistake> {
        self.mistakes.into_inner()
    }

    fn note(&self, offset: Option<usize>, key: String, message: String) {
        self.mistakes.borrow_mut().push(Mistake { offset, key, message });
    }
}

// === impl Table ===

impl<'d> Table<'d> {
    /// The whole document.
    pub(super) fn root(context: &'d Context<'d>, entries: &'d DeTable<'d>) -> Self {
        Self::at_root(context, &keys::ROOT, entries)
    }

    /// A whole document of another kind.
    pub(super) fn at_root(context: &'d Context<'d>, section: &'static Section, entries: &'d DeTable<'d>) -> Self {
        Self::new(context, section, String::new(), None, entries)
    }

    /// A table whose unknown keys are noted at once.
    fn new(
        context: &'d Context<'d>,
        section: &'static Section,
        path: String,
        offset: Option<usize>,
        entries: &'d DeTable<'d>,
    ) -> Self {
        let table = Self { context, section, path, offset, entries };
        let unknown = entries.keys().filter(|key| !section.keys.contains(&key.get_ref().as_ref()));
        for key in unknown {
            let name = key.get_ref().as_ref();
            context.note(Some(key.span().start), join(&table.path, name), section.refusal(name));
        }
        table
    }

    pub(super) fn context(&self) -> &'d Context<'d> {
        self.context
    }

    /// The path of the table.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// What is written for `key`.
    pub(super) fn value(&self, key: &str) -> Option<Value<'_, 'd>> {
        debug_assert!(self.section.keys.contains(&key), "{key} is not listed in {}", self.section.path);
        let (key, spanned) = self.entries.get_key_value(key)?;
        Some(Value { table: self, key: key.get_ref(), index: None, spanned })
    }

    /// Whether `key` is written.
    pub(super) fn has(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    /// What is written for `key`, whose absence is a mistake; `what` says what belongs there.
    pub(super) fn required(&self, key: &str, what: &str) -> Option<Value<'_, 'd>> {
        let value = self.value(key);
        if value.is_none() {
            self.context.note(self.offset, join(&self.path, key), format!("missing: {what}"));
        }
        value
    }

    /// Notes a mistake about the table as a whole.
    pub(super) fn wrong(&self, message: impl Display) {
        self.context.note(self.offset, self.path.clone(), message.to_string());
    }

    /// The table `key`.
    pub(super) fn table(&self, key: &str, section: &'static Section) -> Option<Table<'d>> {
        self.value(key)?.table(section)
    }

    /// The array of tables `key`.
    pub(super) fn tables(&self, key: &str, section: &'static Section) -> Option<Vec<Table<'d>>> {
        let elements = self.value(key)?.elements("an array of tables belongs here")?;
        Some(elements.iter().filter_map(|element| element.table(section)).collect())
    }

    /// The tables within the table `key`, by the names their author chose.
    pub(super) fn named_tables(&self, key: &str, section: &'static Section) -> Vec<(Value<'_, 'd>, Table<'d>)> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let DeValue::Table(entries) = value.spanned.get_ref() else {
            value.refuse("a table of tables belongs here");
            return Vec::new();
        };
        let path = join(&self.path, key);
        let named = entries.iter().filter_map(|(name, inner)| {
            let path = join(&path, name.get_ref());
            let DeValue::Table(inner_entries) = inner.get_ref() else {
                self.context.note(Some(inner.span().start), path, format!("{}: a table belongs here", show(inner)));
                return None;
            };
            let name_value = Value { table: self, key: name.get_ref(), index: None, spanned: inner };
            let offset = Some(name.span().start);
            Some((name_value, Table::new(self.context, section, path, offset, inner_entries)))
        });
        named.collect()
    }

    /// What is written in the table `key`, whose keys are of the author's choice; `form` says what belongs there.
    pub(super) fn entries(&self, key: &str, form: &str) -> Vec<(&'d str, Value<'_, 'd>)> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let DeValue::Table(entries) = value.spanned.get_ref() else {
            value.refuse(form);
            return Vec::new();
        };
        let entry = |(name, spanned): (&'d Spanned<_>, &'d Spanned<DeValue<'d>>)| {
            let name: &'d std::borrow::Cow<'d, str> = name.get_ref();
            (name.as_ref(), Value { spanned, ..value })
        };
        entries.iter().map(entry).collect()
    }

    /// The names in the table `key`.
    pub(super) fn names(&self, key: &str) -> impl Iterator<Item = &'d str> + use<'d> {
        let entries = match self.value(key).map(|v| v.spanned.get_ref()) {
            Some(DeValue::Table(entries)) => Some(entries),
            _ => None,
        };
        entries.into_iter().flat_map(|entries| entries.keys().map(|name| name.get_ref().as_ref()))
    }

    /// The duration `key`.
    pub(super) fn duration(&self, key: &str, range: RangeInclusive<Duration>, default: Duration) -> Duration {
        self.value(key).and_then(|v| v.duration(range)).unwrap_or(default)
    }

    /// The size `key`, in bytes.
    pub(super) fn size(&self, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        self.value(key)?.size(range)
    }

    /// The number `key`.
    pub(super) fn integer(&self, key: &str, range: RangeInclusive<u32>, default: u32) -> u32 {
        self.value(key).and_then(|v| v.integer(&range, "")).unwrap_or(default)
    }

    /// The switch `key`.
    pub(super) fn boolean(&self, key: &str, default: bool) -> bool {
        self.value(key).and_then(Value::boolean).unwrap_or(default)
    }

    /// One of a few words.
    pub(super) fn word<T: Copy + PartialEq>(&self, key: &str, words: &Words<T>) -> Option<T> {
        let value = self.value(key)?;
        value.read(&words.form(), |text| words.get(text))
    }
}

// === impl Value ===

impl<'t, 'd> Value<'t, 'd> {
    /// The name the table this value is was given.
    pub(super) fn key(self) -> &'d str {
        self.key
    }

    pub(super) fn context(self) -> &'d Context<'d> {
        self.table.context
    }

    /// Notes that this value is wrong.
    pub(super) fn wrong(self, message: impl Display) {
        self.table.context.note(Some(self.spanned.span().start), self.path(), message.to_string());
    }

    /// Notes that this value is wrong, shows it and says what is allowed.
    pub(super) fn refuse(self, allowed: impl Display) {
        self.wrong(format_args!("{}: {allowed}", show(self.spanned)));
    }

    /// The text of this value as `parse` reads it; `form` says what belongs here when it is not even a string.
    pub(super) fn read<T, E: Display>(self, form: &str, parse: impl FnOnce(&'d str) -> Result<T, E>) -> Option<T> {
        match self.text(form).map(parse)? {
            Ok(value) => Some(value),
            Err(allowed) => {
                self.refuse(allowed);
                None
            }
        }
    }

    /// The text of this value; `form` says what belongs here when it is no string.
    pub(super) fn text(self, form: &str) -> Option<&'d str> {
        let text = self.spanned.get_ref().as_str();
        if text.is_none() {
            self.refuse(form);
        }
        text
    }

    /// The text of this value, which no message repeats: it may be a credential. `form` says what belongs here when it is no string.
    pub(super) fn hidden_text(self, form: &str) -> Option<&'d str> {
        let text = self.spanned.get_ref().as_str();
        if text.is_none() {
            self.wrong(format_args!("{form} belongs here (what is written is not shown)"));
        }
        text
    }

    /// This value as a switch, if it is one.
    pub(super) fn as_boolean(self) -> Option<bool> {
        self.spanned.get_ref().as_bool()
    }

    /// This value, if it is a string, a whole number or a switch.
    pub(super) fn scalar(self) -> Option<Scalar> {
        match self.spanned.get_ref() {
            DeValue::String(text) => Some(Scalar::Text(text.to_string())),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok().map(Scalar::Number),
            DeValue::Boolean(value) => Some(Scalar::Bool(*value)),
            _ => None,
        }
    }

    /// This value, if it is a string.
    pub(super) fn as_text(self) -> Option<&'d str> {
        self.spanned.get_ref().as_str()
    }

    /// Whether this value is a table.
    pub(super) fn is_table(self) -> bool {
        self.spanned.get_ref().is_table()
    }

    /// Whether this value is the string `text`.
    pub(super) fn is_text(self, text: &str) -> bool {
        self.spanned.get_ref().as_str() == Some(text)
    }

    /// The elements of this array; `form` says what belongs here.
    pub(super) fn elements(self, form: &str) -> Option<Vec<Value<'t, 'd>>> {
        let DeValue::Array(array) = self.spanned.get_ref() else {
            self.refuse(form);
            return None;
        };
        let element = |(index, spanned)| Value { index: Some(index), spanned, ..self };
        Some(array.iter().enumerate().map(element).collect())
    }

    /// The elements of this list as `parse` reads them, `count` of them and each only once; `form` says what the list holds.
    pub(super) fn list<T: Clone + Eq + Hash, E: Display>(
        self,
        form: &str,
        count: RangeInclusive<usize>,
        parse: impl Fn(&'d str) -> Result<T, E>,
    ) -> Vec<T> {
        let Some(elements) = self.elements(form) else { return Vec::new() };
        if elements.len() < *count.start() {
            self.wrong(format_args!("an empty list; {form}"));
        }
        if elements.len() > *count.end() {
            self.wrong(format_args!("{} elements; at most {} are allowed", elements.len(), count.end()));
        }
        let mut seen = HashSet::new();
        let once = |element: Value<'t, 'd>| {
            let value = element.read(form, &parse)?;
            let first = seen.insert(value.clone());
            if !first {
                element.refuse("listed twice");
            }
            first.then_some(value)
        };
        elements.into_iter().filter_map(once).collect()
    }

    /// This table.
    pub(super) fn table(self, section: &'static Section) -> Option<Table<'d>> {
        let DeValue::Table(entries) = self.spanned.get_ref() else {
            self.refuse("a table belongs here");
            return None;
        };
        let offset = Some(self.spanned.span().start);
        Some(Table::new(self.table.context, section, self.path(), offset, entries))
    }

    pub(super) fn duration(self, range: RangeInclusive<Duration>) -> Option<Duration> {
        let bounded = |text: &str| {
            let value = units::duration(text).ok_or_else(|| units::DURATION_FORM.to_owned())?;
            let [low, high] = [range.start(), range.end()].map(|bound| units::show_duration(*bound));
            range
                .contains(&value)
                .then_some(value)
                .ok_or_else(|| format!("a duration between \"{low}\" and \"{high}\""))
        };
        self.read(units::DURATION_FORM, bounded)
    }

    fn size(self, range: RangeInclusive<u64>) -> Option<u64> {
        let bounded = |text: &str| {
            let value = units::size(text).ok_or_else(|| units::SIZE_FORM.to_owned())?;
            let [low, high] = [range.start(), range.end()].map(|bound| units::show_size(*bound));
            range.contains(&value).then_some(value).ok_or_else(|| format!("a size between \"{low}\" and \"{high}\""))
        };
        self.read(units::SIZE_FORM, bounded)
    }

    /// A number; `or` names what else is allowed here, such as `"auto" or `.
    pub(super) fn integer(self, range: &RangeInclusive<u32>, or: &str) -> Option<u32> {
        let number = match self.spanned.get_ref() {
            DeValue::Integer(number) => u32::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        let number = number.filter(|n| range.contains(n));
        if number.is_none() {
            self.refuse(format_args!("{or}a whole number between {} and {}", range.start(), range.end()));
        }
        number
    }

    /// A number that may have decimals.
    pub(super) fn number(self, range: &RangeInclusive<f64>) -> Option<f64> {
        let number = match self.spanned.get_ref() {
            DeValue::Integer(number) => i32::from_str_radix(number.as_str(), number.radix()).ok().map(f64::from),
            DeValue::Float(number) => number.as_str().parse::<f64>().ok(),
            _ => None,
        };
        let number = number.filter(|n| range.contains(n));
        if number.is_none() {
            self.refuse(format_args!("a number between {} and {}", range.start(), range.end()));
        }
        number
    }

    /// A share of at most `most` percent, as a fraction.
    pub(super) fn percent(self, most: u32) -> Option<f64> {
        let form = format!("a share between 0% and {most}% with at most two decimals, such as \"0.05%\"");
        self.read(&form, |text| units::percent(text).filter(|share| *share <= f64::from(most) / 100.0).ok_or(&form))
    }

    pub(super) fn boolean(self) -> Option<bool> {
        let value = self.spanned.get_ref().as_bool();
        if value.is_none() {
            self.refuse("true or false");
        }
        value
    }

    fn path(self) -> String {
        let path = join(&self.table.path, self.key);
        match self.index {
            Some(index) => format!("{path}[{index}]"),
            None => path,
        }
    }
}

/// `key` within `path`; quoted when it is not a bare TOML key.
pub(super) fn join(path: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    let dot = if path.is_empty() { "" } else { "." };
    if bare { format!("{path}{dot}{key}") } else { format!("{path}{dot}{}", quote(key)) }
}

/// A value for a message: on one line, in its TOML form, cut when it is long.
fn show(value: &Spanned<DeValue<'_>>) -> String {
    match value.get_ref() {
        DeValue::String(text) => quote(text),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

fn quote(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}
