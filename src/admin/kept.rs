//! Answers that outlive the process: what was answered under an `Idempotency-Key` is in the store, and the key of a command that writes lands
//! in the transaction of its effect. Whatever is killed when, a command is carried out once.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::idempotency::{Answer, Answers, Begun, Fingerprint, KEPT_FOR, KEYS_MAX, Key, Table as Memory};
use super::problem::{MEDIA_TYPE, Problem};
use super::tag::Tag;
use crate::control::answer::{Applied, Refused};
use crate::control::landing::Landing;
use crate::store::keep::Keep;
use crate::store::{Change, Record, StoreError, Table};

/// Longest wait for the store before a command that is done is answered.
const KEPT_WITHIN: Duration = Duration::from_secs(1);
/// The form of a [`Stored`].
const VERSION: u16 = 1;

/// What is true now of a service, for a command whose answer was lost.
pub type Present = Arc<dyn Fn(&str) -> Result<Applied, Refused> + Send + Sync>;

/// Remembers in memory and in the store.
pub struct Kept {
    memory: Memory,
    store: Arc<dyn Keep>,
    present: Present,
    /// Commands that were carried out by a process that ended before their answer was kept, with their services.
    lost: Mutex<BTreeMap<String, String>>,
    /// Keys the store may let go.
    gone: Mutex<Vec<String>>,
    /// Commits at the same time.
    turn: Arc<Semaphore>,
}

/// A command with a key, as far as the store has to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    /// The key.
    pub key: Key,
    /// What was asked for.
    pub request: Fingerprint,
    /// When, in time since 1970.
    pub began: Duration,
    /// The service.
    pub service: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    caller: String,
    key: String,
    request: [u8; 32],
    began_ms: u64,
    service: String,
    /// Absent: it was carried out, or was about to be in the same transaction.
    answer: Option<StoredAnswer>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredAnswer {
    status: u16,
    content_type: Option<String>,
    etag: Option<String>,
    body: String,
}

/// The service whose record a command at `path` changes. Drains are not written down: a restart forgets them, and so it does their answers.
pub(super) fn service_of(path: &str) -> Option<&str> {
    let (service, verb) = path.strip_prefix("/v1/services/")?.split_once('/')?;
    (!verb.starts_with("endpoints/")).then_some(service)
}

// === impl Kept ===

impl Kept {
    /// Goes on from what `store` knows; what is too old by `now` is let go. Blocks while the store is read.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn load(store: Arc<dyn Keep>, now: Duration, present: Present) -> Result<Self, StoreError> {
        let (mut known, mut gone) = (Vec::new(), Vec::new());
        for (name, record) in store.all(Table::Idempotency)? {
            match Stored::read(&record).filter(|stored| now.saturating_sub(stored.began()) < KEPT_FOR) {
                Some(stored) => known.push((name, stored)),
                None => gone.push(name),
            }
        }
        known.sort_by_key(|(_, stored)| std::cmp::Reverse(stored.began_ms));
        gone.extend(known.split_off(known.len().min(KEYS_MAX)).into_iter().map(|(name, _)| name));
        let (memory, mut lost) = (Memory::default(), BTreeMap::new());
        for (name, stored) in known.into_iter().rev() {
            let (key, request, began) = (stored.key(), Fingerprint(stored.request), stored.began());
            memory.begin(&key, request, began);
            if let Some(answer) = stored.answer {
                memory.answer(&key, answer.into(), true);
            } else {
                memory.close(&key);
                lost.insert(name, stored.service);
            }
        }
        let (lost, gone, turn) = (Mutex::new(lost), Mutex::new(gone), Arc::new(Semaphore::new(1)));
        Ok(Self { memory, store, present, lost, gone, turn })
    }

    /// What is true now, in place of an answer nobody got.
    fn present(&self, key: &Key) -> Option<Answer> {
        let service = lock(&self.lost).get(&name_of(key)).cloned()?;
        Some(match (self.present)(&service) {
            Ok(applied) => Answer {
                status: 200,
                content_type: Some("application/json".to_owned()),
                etag: Some(Tag::at(applied.generation, applied.revision).text()),
                body: serde_json::to_vec(&applied).unwrap_or_default().into(),
            },
            Err(refused) => {
                let problem = Problem::from(refused);
                let (status, content_type) = (problem.status().as_u16(), Some(MEDIA_TYPE.to_owned()));
                Answer {
                    status,
                    content_type,
                    etag: None,
                    body: serde_json::to_vec(&problem).unwrap_or_default().into(),
                }
            }
        })
    }

    async fn keep(&self, marker: &Marker, answer: &Answer) {
        let Ok(record) = Stored::of(marker, Some(answer)).record() else { return };
        // An error: the semaphore is closed, which it never is.
        let turn = Arc::clone(&self.turn).acquire_owned().await;
        let remove = std::mem::take(&mut *lock(&self.gone));
        let change = Change {
            put: vec![(Table::Idempotency, name_of(&marker.key), record)],
            remove: remove.iter().map(|name| (Table::Idempotency, name.clone())).collect(),
            ..Change::default()
        };
        let store = Arc::clone(&self.store);
        let committed = spawn_blocking(move || {
            // Given back when it is over, however long nobody waits for it any more.
            let _turn = turn;
            store.commit(&change)
        });
        if let Ok(Err(error)) = committed.await {
            tracing::warn!(%error, "the store does not keep an answer; the command it belongs to is done");
            lock(&self.gone).extend(remove);
        }
    }
}

impl Answers for Kept {
    fn begin(&self, key: &Key, request: Fingerprint, now: Duration) -> Begun {
        let begun = self.memory.begin_with(key, request, now, &mut |gone, stored| {
            let name = name_of(gone);
            lock(&self.lost).remove(&name);
            if stored {
                lock(&self.gone).push(name);
            }
        });
        match begun {
            Begun::UnderWay => self.present(key).map_or(Begun::UnderWay, Begun::Known),
            Begun::New => {
                // It may have been let go a moment ago.
                let name = name_of(key);
                lock(&self.gone).retain(|gone| *gone != name);
                Begun::New
            }
            other => other,
        }
    }

    fn lasts(&self) -> bool {
        true
    }

    fn finish<'a>(
        &'a self,
        key: &'a Key,
        answer: Answer,
        marker: Option<&'a Marker>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        self.memory.answer(key, answer.clone(), marker.is_some());
        Box::pin(async move {
            if let Some(marker) = marker {
                // Later than that it lands all the same, or a restart answers with what is true then.
                let _ = timeout(KEPT_WITHIN, self.keep(marker, &answer)).await;
            }
        })
    }

    fn forget(&self, key: &Key) {
        self.memory.forget(key);
    }
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").finish_non_exhaustive()
    }
}

// === impl Marker ===

impl Marker {
    /// What lands with the effect.
    pub(super) fn landing(&self) -> Option<Landing> {
        let record = Stored::of(self, None).record().ok()?;
        Some(Landing { table: Table::Idempotency, key: name_of(&self.key), record })
    }
}

// === impl Stored ===

impl Stored {
    fn of(marker: &Marker, answer: Option<&Answer>) -> Self {
        let answer = answer.map(|answer| StoredAnswer {
            status: answer.status,
            content_type: answer.content_type.clone(),
            etag: answer.etag.clone(),
            // Everything the API answers is JSON.
            body: String::from_utf8_lossy(&answer.body).into_owned(),
        });
        Self {
            caller: marker.key.caller.clone(),
            key: marker.key.key.clone(),
            request: marker.request.0,
            began_ms: u64::try_from(marker.began.as_millis()).unwrap_or(u64::MAX),
            service: marker.service.clone(),
            answer,
        }
    }

    fn read(record: &Record) -> Option<Self> {
        let known = record.version == VERSION;
        known.then(|| serde_json::from_slice(&record.bytes).ok()).flatten()
    }

    fn record(&self) -> serde_json::Result<Record> {
        Ok(Record { version: VERSION, bytes: serde_json::to_vec(self)? })
    }

    fn key(&self) -> Key {
        Key { caller: self.caller.clone(), key: self.key.clone() }
    }

    fn began(&self) -> Duration {
        Duration::from_millis(self.began_ms)
    }
}

impl From<StoredAnswer> for Answer {
    fn from(stored: StoredAnswer) -> Self {
        let StoredAnswer { status, content_type, etag, body } = stored;
        Self { status, content_type, etag, body: Bytes::from(body) }
    }
}

/// The key in the store. Neither part has a line break.
fn name_of(key: &Key) -> String {
    format!("{}\n{}", key.caller, key.key)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
