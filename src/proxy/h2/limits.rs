//! Limits of the `h2` crate that are there for every connection, and how they are made to come after ours.

use std::time::Duration;

/// The crate's limit of a header list is so many times ours: what is over its own it drops, and of trailers says nothing.
pub const HEADER_LIST_FACTOR: u32 = 4;
/// Streams reset here that are remembered at once, so that late frames are no mistakes, are so many times the streams there may be at once.
pub const RESET_FACTOR: usize = 4;
/// How long they are remembered: what was under way to them may have waited behind much else.
pub const RESET_REMEMBERED: Duration = Duration::from_secs(3);
/// Payload below which the crate counts a DATA frame as small: what a frame that waits costs besides, in bytes.
const SMALL: usize = 256;
/// Largest stream window that frames of a single byte may fill, in bytes: that costs 64 MiB.
const WINDOW_OF_BYTES_MAX: usize = 256 * 1024;

/// What small DATA frames nobody has read yet may cost on a connection before the crate ends it, in bytes: `SMALL` minus the length of
/// each. By itself the crate ends it at half the window of the connection, with every stream on it, where a reader that is slow should only
/// stop its own writer. So the windows come first here: the window of one stream whatever its frames, and those of all streams together
/// with frames of 64 bytes on average. This is also the memory that such frames can take.
#[must_use]
pub fn small_frames_max(stream_window: u32, connection_window: u32) -> usize {
    let one = (stream_window as usize).min(WINDOW_OF_BYTES_MAX) * (SMALL - 1);
    let all = connection_window as usize * 3;
    one.max(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_end_before_the_budget() {
        let (stream, connection) = (64 * 1024, 100 * 64 * 1024);
        let budget = small_frames_max(stream, connection);
        assert!(budget >= stream as usize * 255, "frames of one byte on one stream");
        assert!(budget >= connection as usize / 64 * (SMALL - 64), "frames of 64 bytes on all");
        assert!(small_frames_max(16 << 20, 64 << 20) <= 192 << 20, "however large the windows are");
    }
}
