//! What control needs of the store, as a trait: the store implements it, tests replace it.

use super::{Change, Record, Store, StoreError, Table};

/// Something that keeps records and the audit. Every call may block for as long as the disk does.
pub trait Keep: Send + Sync + 'static {
    /// Makes `change` durable, all of it or nothing. Returns the number of the newest audit entry.
    ///
    /// # Errors
    /// The disk failed or is full; the call can be repeated. All of it may be there all the same: the last thing to fail is a sync.
    fn commit(&self, change: &Change) -> Result<u64, StoreError>;

    /// All records of `table`, in order of their keys.
    ///
    /// # Errors
    /// The disk failed, or a record is damaged.
    fn all(&self, table: Table) -> Result<Vec<(String, Record)>, StoreError>;

    /// The record of `table` called `key`.
    ///
    /// # Errors
    /// The disk failed, or the record is damaged.
    fn get(&self, table: Table, key: &str) -> Result<Option<Record>, StoreError>;

    /// Audit entries after `seq` as stored, as [`Store::audit`].
    ///
    /// # Errors
    /// The disk failed.
    fn audit(&self, seq: u64, count: usize) -> Result<Vec<(u64, Vec<u8>)>, StoreError>;
}

impl Keep for Store {
    fn commit(&self, change: &Change) -> Result<u64, StoreError> {
        Self::commit(self, change)
    }

    fn all(&self, table: Table) -> Result<Vec<(String, Record)>, StoreError> {
        Self::all(self, table)
    }

    fn get(&self, table: Table, key: &str) -> Result<Option<Record>, StoreError> {
        Self::get(self, table, key)
    }

    fn audit(&self, seq: u64, count: usize) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        Self::audit(self, seq, count)
    }
}
