//! Latency of an endpoint as a moving average that jumps up at once and comes down slowly (peak EWMA), in one word so that workers can
//! share it without a lock.

/// Time constant of the decay, in milliseconds.
pub const DECAY_MS: f32 = 10_000.0;
/// What a failure counts as, in microseconds: an endpoint that fails fast must not look fast.
pub const PENALTY_US: f32 = 5_000_000.0;
/// Least that counts as a latency, in microseconds: zero is no history.
const SEEN_MIN_US: f32 = 1.0;

/// An average and when it was true.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ewma {
    /// Microseconds; zero: there is no history.
    us: f32,
    /// Milliseconds on a clock of the caller's, wrapping.
    at_ms: u32,
}

/// What is known of how long an endpoint takes to answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Latency {
    /// So many microseconds.
    Recent(f32),
    /// Nothing.
    Unknown,
    /// Nothing yet: the first request is there.
    Awaited,
}

// === impl Ewma ===

impl Ewma {
    /// From one word.
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        let [us, at_ms] = [bits >> 32, bits & 0xffff_ffff].map(|half| u32::try_from(half).unwrap_or(0));
        Self { us: f32::from_bits(us), at_ms }
    }

    /// In one word.
    #[must_use]
    pub fn to_bits(self) -> u64 {
        u64::from(self.us.to_bits()) << 32 | u64::from(self.at_ms)
    }

    /// What is left of it at `now_ms`. Without requests it fades, so that an endpoint that was slow is tried again. While an answer is
    /// `awaited` it does not: what hangs would look the faster the longer nobody is answered.
    #[must_use]
    pub fn at(self, now_ms: u32, awaited: bool) -> Latency {
        let us = if awaited { self.us } else { self.us * self.fade(now_ms) };
        match awaited {
            _ if us > 0.0 => Latency::Recent(us),
            true => Latency::Awaited,
            false => Latency::Unknown,
        }
    }

    /// With one more latency, or a failure.
    #[must_use]
    pub fn observe(self, now_ms: u32, latency_us: Option<f32>) -> Self {
        let seen = latency_us.unwrap_or(PENALTY_US).max(SEEN_MIN_US);
        let fade = self.fade(now_ms);
        let us = if seen > self.us * fade { seen } else { self.us * fade + seen * (1.0 - fade) };
        Self { us, at_ms: now_ms }
    }

    fn fade(self, now_ms: u32) -> f32 {
        let passed = now_ms.wrapping_sub(self.at_ms);
        // Workers see the clock a little apart; a step back is no time at all.
        let passed = if passed > u32::MAX / 2 { 0 } else { passed };
        #[expect(clippy::cast_precision_loss, reason = "a time constant of seconds needs no exact milliseconds")]
        let passed = passed as f32;
        (-passed / DECAY_MS).exp()
    }
}
