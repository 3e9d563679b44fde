//! HTTP/2, both sides, on the frames, HPACK and windows of the `h2` crate: what is ours is the conversion of heads, the bodies and the limits.

pub mod body;
pub mod down;
pub mod io;
pub mod limits;
pub mod tally;
pub mod up;
