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
}

impl Keep for Store {
    fn commit(&self, change: &Change) -> Result<u64, StoreError> {
        Self::commit(self, change)
    }

    fn all(&self, table: Table) -> Result<Vec<(String, Record)>, StoreError> {
        Self::all(self, table)
    }
}
