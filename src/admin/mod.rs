//! The admin side: what the process says about itself.

pub mod gather;
