//! Records as the store has them: JSON, each with the version of its form.

use std::collections::BTreeMap;
use std::fmt;

use super::queue::{Line, Record as Kept};
use crate::control::desk::Stored;
use crate::control::gates;
use crate::control::past;
use crate::core::id::Name;
use crate::core::roles::{Roles, STORED_VERSION};
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
    let mut stored = Stored::default();
    for (key, record) in store.all(Table::Services).map_err(BadRecord::Store)? {
        let unknown = |why: String| BadRecord::Unknown { key: key.clone(), why };
        if record.version != STORED_VERSION {
            let (found, known) = (record.version, STORED_VERSION);
            return Err(unknown(format!("it has form {found}, this version knows form {known}")));
        }
        let name = Name::new(&key).map_err(|bad| unknown(bad.to_string()))?;
        let roles: Roles = serde_json::from_slice(&record.bytes).map_err(|bad| unknown(bad.to_string()))?;
        stored.roles.insert(name, roles);
    }
    for (key, record) in store.all(Table::Process).map_err(BadRecord::Store)? {
        if key == NEXT_ROLLOUT {
            let number = std::str::from_utf8(&record.bytes).ok().and_then(|text| text.parse().ok());
            let unknown = || BadRecord::Unknown { key: key.clone(), why: "it is not a number".to_owned() };
            stored.next_rollout = number.ok_or_else(unknown)?;
        }
    }
    Ok(stored)
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
        match &line.service {
            Some((name, Kept::Is(roles))) => {
                let record = Record { version: STORED_VERSION, bytes: serde_json::to_vec(roles)? };
                change.put.push((Table::Services, name.to_string(), record));
                for past in &line.past {
                    change.put.push((Table::Rollouts, past::key(name, past.id), past.record()?));
                }
                // What the history has let go.
                let oldest = roles.history.front().filter(|_| !line.past.is_empty());
                change.cut.extend(oldest.map(|ended| (Table::Rollouts, past::keys_before(name, Some(ended.id)))));
            }
            Some((name, Kept::Gone)) => {
                change.remove.push((Table::Services, name.to_string()));
                change.cut.push((Table::Rollouts, past::keys_before(name, None)));
            }
            None => {}
        }
        if let Some((name, _)) = &line.service {
            match &line.evidence {
                Some(stored) => {
                    let record = Record { version: gates::STORED_VERSION, bytes: serde_json::to_vec(stored)? };
                    change.put.push((Table::Evidence, name.to_string(), record));
                }
                None => change.remove.push((Table::Evidence, name.to_string())),
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
