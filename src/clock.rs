//! The only place that reads the clock. Everything else is told what time it is.

use std::io::Write as _;
use std::ops::Deref;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Monotonic time now.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// Wall-clock time since 1970, for logs and records only.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
pub fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A time as HTTP writes it (RFC 9110 section 5.6.7), without memory of the heap. Derefs to its text.
#[derive(Clone, Copy, Debug)]
pub struct HttpDate([u8; HTTP_DATE_LEN]);

/// `Sun, 06 Nov 1994 08:49:37 GMT`
const HTTP_DATE_LEN: usize = 29;

/// Wall-clock time as HTTP writes it.
#[must_use]
pub fn http_date() -> HttpDate {
    let mut text = [b' '; HTTP_DATE_LEN];
    // It always fits.
    let _ = write!(&mut text[..], "{}", httpdate::HttpDate::from(UNIX_EPOCH + unix_time()));
    HttpDate(text)
}

// === impl HttpDate ===

impl HttpDate {
    /// Its text. Unlike that of the text as a `str`, the way there checks nothing.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Deref for HttpDate {
    type Target = str;

    fn deref(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_whole_and_now() {
        let date = http_date();
        let at = httpdate::parse_http_date(&date).expect("a date");
        let at = at.duration_since(UNIX_EPOCH).expect("after 1970");
        assert!(unix_time().saturating_sub(at) < Duration::from_secs(60), "{}", &*date);
    }
}
