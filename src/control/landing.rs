//! What lands in the store together with the effect of a command: if and only if the effect does.

use crate::store::{Record, Table};

use super::ledger::Line;

/// A record that lands with the effect of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Landing {
    /// Where.
    pub table: Table,
    /// Under which key.
    pub key: String,
    /// What.
    pub record: Record,
}

// === impl Landing ===

impl Landing {
    /// Has it land.
    pub(super) fn line(self) -> Line {
        Line { also: vec![(self.table, self.key, Some(self.record))], ..Line::default() }
    }

    /// Has it gone: what it was to land with did not happen.
    pub(super) fn undone(&self) -> Line {
        Line { also: vec![(self.table, self.key.clone(), None)], ..Line::default() }
    }
}
