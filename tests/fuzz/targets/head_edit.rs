//! Requests written to an upstream with many edits.

#![no_main]

differential::target!("head_edit");
