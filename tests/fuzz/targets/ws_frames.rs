//! WebSocket frames: the tracker beside a reference.

#![no_main]

differential::target!("ws_frames");
