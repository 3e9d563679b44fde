//! Configurations: refused or compiled, and rendered to the same.

#![no_main]

differential::target!("config");
