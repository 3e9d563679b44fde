//! Records as the store has them: JSON, each with the version of its form.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::DeserializeOwned;

use super::queue::Line;
use crate::control::desk::{Record as Kept, Stored};
use crate::control::gates;
use crate::control::past::{self, Past};
use crate::core::id::Name;
use crate::core::roles::{MEMORY_VERSION, STORED_VERSION};
use crate::store::keep::Keep;
use crate::store::{Change, Record, StoreError, Table};

/// The key of the number of the next rollout, in [`Table::Process`].
const NEXT_ROLLOUT: &str = "next_rollout";
/// The form of that number: decimal.
const NUMBER_VERSION: u16 = 1;

/// Why what is stored cannot be used.
#[derive(Debug)]
pub enum BadRecord {
    /// The store cannot be read.
    Store(StoreError),
    /// A record of another version of this program, or a damaged one.
    Unknown {
        /// Its key.
        key: String,
        /// What is wrong.
        why: String,
    },
}

/// Reads what ran.
///
/// # Errors
/// The store cannot be read, or a record is not understood.
pub fn load(store: &dyn Keep) -> Result<Stored, BadRecord> {
    let roles = by_service(store, Table::Services, STORED_VERSION)?;
    let memories = by_service(store, Table::Memories, MEMORY_VERSION)?;
    let mut stored = Stored { roles, memories, next_rollout: 0 };
    for (key, record) in store.all(Table::Process).map_err(BadRecord::Store)? {
        if key == NEXT_ROLLOUT {
            let number = std::str::from_utf8(&record.bytes).ok().and_then(|text| text.parse().ok());
            let unknown = || BadRecord::Unknown { key: key.clone(), why: "it is not a number".to_owned() };
            stored.next_rollout = number.ok_or_else(unknown)?;
        }
    }
    Ok(stored)
}

/// The records of `table`, which are about a service each and have the form `known`.
fn by_service<T: DeserializeOwned>(store: &dyn Keep, table: Table, known: u16) -> Result<BTreeMap<Name, T>, BadRecord> {
    let mut all = BTreeMap::new();
    for (key, record) in store.all(table).map_err(BadRecord::Store)? {
        let unknown = |why: String| BadRecord::Unknown { key: key.clone(), why };
        if record.version != known {
            return Err(unknown(format!("it has form {}, this version knows form {known}", record.version)));
        }
        let name = Name::new(&key).map_err(|bad| unknown(bad.to_string()))?;
        all.insert(name, serde_json::from_slice(&record.bytes).map_err(|bad| unknown(bad.to_string()))?);
    }
    Ok(all)
}

/// Reads what was known of the rollouts that ran, by service. What is not understood is lost: it is only evidence.
///
/// # Errors
/// The store cannot be read.
pub fn load_evidence(store: &dyn Keep) -> Result<BTreeMap<String, Result<gates::Stored, String>>, BadRecord> {
    let read = |record: Record| {
        let (found, known) = (record.version, gates::STORED_VERSION);
        if found != known {
            return Err(format!("it has form {found}, this version knows form {known}"));
        }
        serde_json::from_slice(&record.bytes).map_err(|bad| bad.to_string())
    };
    let records = store.all(Table::Evidence).map_err(BadRecord::Store)?;
    Ok(records.into_iter().map(|(service, record)| (service, read(record))).collect())
}

/// What the store is told of `lines`.
pub(super) fn change(lines: &[Line], next_rollout: u64) -> serde_json::Result<Change> {
    let mut change = Change::default();
    for line in lines {
        if let Some((name, kept)) = &line.service {
            record(&mut change, name, kept, &line.past)?;
            match (&line.evidence, kept) {
                (Some(stored), Kept::Is(_)) => {
                    let record = Record { version: gates::STORED_VERSION, bytes: serde_json::to_vec(stored)? };
                    change.put.push((Table::Evidence, name.to_string(), record));
                }
                _ => change.remove.push((Table::Evidence, name.to_string())),
            }
        }
        for (table, key, record) in &line.also {
            match record {
                Some(record) => change.put.push((*table, key.clone(), record.clone())),
                None => change.remove.push((*table, key.clone())),
            }
        }
        change.audit.extend(line.drafts.iter().cloned());
        change.audit.extend(line.left_out.as_ref().map(|left_out| left_out.draft()));
    }
    let number = Record { version: NUMBER_VERSION, bytes: next_rollout.to_string().into_bytes() };
    change.put.push((Table::Process, NEXT_ROLLOUT.to_owned(), number));
    Ok(change)
}

/// The record of the service called `name`, and its rollouts that have ended. It is in service or has left, never both.
fn record(change: &mut Change, name: &Name, kept: &Kept, past: &[Past]) -> serde_json::Result<()> {
    let (history, put, remove) = match kept {
        Kept::Is(roles) => {
            let record = Record { version: STORED_VERSION, bytes: serde_json::to_vec(roles)? };
            (&roles.history, (Table::Services, record), Table::Memories)
        }
        Kept::Left(memory) => {
            let record = Record { version: MEMORY_VERSION, bytes: serde_json::to_vec(memory)? };
            (&memory.history, (Table::Memories, record), Table::Services)
        }
        Kept::Gone => {
            change.remove.extend([Table::Services, Table::Memories].map(|table| (table, name.to_string())));
            change.cut.push((Table::Rollouts, past::keys_before(name, None)));
            return Ok(());
        }
    };
    change.put.push((put.0, name.to_string(), put.1));
    change.remove.push((remove, name.to_string()));
    for past in past {
        change.put.push((Table::Rollouts, past::key(name, past.id), past.record()?));
    }
    // What the history has let go.
    let oldest = history.front().filter(|_| !past.is_empty());
    change.cut.extend(oldest.map(|ended| (Table::Rollouts, past::keys_before(name, Some(ended.id)))));
    Ok(())
}

impl fmt::Display for BadRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Unknown { key, why } => write!(
                f,
                "the record \"{key}\" in the store is not understood: {why}; run the version that wrote it, or move the store away to \
                 begin without history (candidates then wait for a start command)"
            ),
        }
    }
}

impl std::error::Error for BadRecord {}
