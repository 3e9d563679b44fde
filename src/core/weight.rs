//! Shares of traffic with a grain of 0.01 %, and fixed splits made of them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The number of grains in 100 %.
pub const GRAINS: u16 = 10_000;

/// A share between 0 % and 100 % in grains of 0.01 %.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Weight(u16);

/// Why a text is not a [`Weight`]; displays what is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadWeight {
    /// Not a decimal number followed by `%`.
    Form,
    /// Outside 0 % to 100 %.
    Range,
    /// More than two decimals.
    Grain,
}

/// Targets with weights that add up to 100 %: a bucket in `0..10000` falls into exactly one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split<T> {
    parts: Vec<(Weight, T)>,
}

// === impl Weight ===

impl TryFrom<u16> for Weight {
    type Error = BadWeight;

    fn try_from(grains: u16) -> Result<Self, BadWeight> {
        Self::from_grains(grains)
    }
}

impl From<Weight> for u16 {
    fn from(weight: Weight) -> Self {
        weight.0
    }
}

impl Weight {
    /// No traffic.
    pub const ZERO: Self = Self(0);
    /// All traffic.
    pub const FULL: Self = Self(GRAINS);
    /// A fifth of it.
    pub const FIFTH: Self = Self(GRAINS / 5);
    /// Half of it.
    pub const HALF: Self = Self(GRAINS / 2);
    /// Four fifths of it.
    pub const FOUR_FIFTHS: Self = Self(GRAINS / 10 * 8);
    /// Nine tenths of it.
    pub const NINE_TENTHS: Self = Self(GRAINS / 10 * 9);

    /// `grains` hundredths of a percent.
    ///
    /// # Errors
    /// [`BadWeight::Range`] above 10,000.
    pub const fn from_grains(grains: u16) -> Result<Self, BadWeight> {
        if grains > GRAINS { Err(BadWeight::Range) } else { Ok(Self(grains)) }
    }

    /// `percent` hundredths; more than 100 is 100 %.
    #[must_use]
    pub const fn of_percent(percent: u16) -> Self {
        Self(if percent > 100 { GRAINS } else { percent * (GRAINS / 100) })
    }

    /// Reads `"5%"`, `"0.01%"`, `"100%"`.
    ///
    /// # Errors
    /// Says which rule the text breaks.
    pub fn parse(text: &str) -> Result<Self, BadWeight> {
        let number = text.trim().strip_suffix('%').ok_or(BadWeight::Form)?.trim_end();
        let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
        let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        let unsigned = whole.strip_prefix('-').unwrap_or(whole);
        if unsigned.is_empty() || !digits(unsigned) || !digits(decimals) || number.ends_with('.') {
            return Err(BadWeight::Form);
        }
        if unsigned.len() != whole.len() {
            return Err(BadWeight::Range);
        }
        let decimals = decimals.trim_end_matches('0');
        if decimals.len() > 2 {
            return Err(BadWeight::Grain);
        }
        let percent: u32 = unsigned.parse().map_err(|_| BadWeight::Range)?;
        let hundredths: u32 = format!("{decimals:0<2}").parse().map_err(|_| BadWeight::Form)?;
        let grains = percent.checked_mul(100).and_then(|g| g.checked_add(hundredths));
        let grains = grains.and_then(|g| u16::try_from(g).ok()).ok_or(BadWeight::Range)?;
        Self::from_grains(grains)
    }

    /// In hundredths of a percent, `0..=10000`.
    #[must_use]
    pub const fn grains(self) -> u16 {
        self.0
    }

    /// Whether `bucket` (in `0..10000`) lies below the weight.
    #[must_use]
    pub const fn holds(self, bucket: u16) -> bool {
        bucket < self.0
    }

    /// As a fraction, `0.0..=1.0`.
    #[must_use]
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / f64::from(GRAINS)
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 100, self.0 % 100);
        match rest {
            0 => write!(f, "{whole}%"),
            r if r % 10 == 0 => write!(f, "{whole}.{}%", r / 10),
            r => write!(f, "{whole}.{r:02}%"),
        }
    }
}

// === impl BadWeight ===

impl fmt::Display for BadWeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => "a weight is a share such as \"5%\" or \"0.01%\"",
            Self::Range => "a weight is between 0% and 100%",
            Self::Grain => "a weight has a grain of 0.01%",
        })
    }
}

impl std::error::Error for BadWeight {}

// === impl Split ===

impl<T> Split<T> {
    /// A split over `parts`, in the order given.
    ///
    /// # Errors
    /// The sum in grains when it is not 10,000.
    pub fn new(parts: Vec<(Weight, T)>) -> Result<Self, u32> {
        let sum: u32 = parts.iter().map(|(w, _)| u32::from(w.grains())).sum();
        if sum == u32::from(GRAINS) { Ok(Self { parts }) } else { Err(sum) }
    }

    /// The target `bucket` (in `0..10000`) falls into.
    #[must_use]
    pub fn pick(&self, bucket: u16) -> &T {
        let mut upper = 0;
        for (weight, target) in &self.parts {
            upper += weight.grains();
            if bucket < upper {
                return target;
            }
        }
        let last = self.parts.len() - 1;
        &self.parts[last].1
    }

    /// The same shares over targets named another way.
    ///
    /// # Errors
    /// The first one `name` returns.
    pub fn try_map<U, E>(&self, name: impl Fn(&T) -> Result<U, E>) -> Result<Split<U>, E> {
        let parts = self.parts.iter().map(|(weight, target)| Ok((*weight, name(target)?)));
        Ok(Split { parts: parts.collect::<Result<_, E>>()? })
    }

    /// The parts, in order.
    #[must_use]
    pub fn parts(&self) -> &[(Weight, T)] {
        &self.parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refusals_name_the_rule() {
        for (text, why) in [
            ("", BadWeight::Form),
            ("5", BadWeight::Form),
            ("%", BadWeight::Form),
            ("x%", BadWeight::Form),
            ("5.%", BadWeight::Form),
            (".5%", BadWeight::Form),
            ("+5%", BadWeight::Form),
            ("-5%", BadWeight::Range),
            ("100.01%", BadWeight::Range),
            ("130%", BadWeight::Range),
            ("99999999999%", BadWeight::Range),
            ("0.001%", BadWeight::Grain),
        ] {
            assert_eq!(Weight::parse(text), Err(why), "{text}");
        }
    }

    #[test]
    fn a_split_covers_every_bucket_once() {
        let w = |g| Weight::from_grains(g).expect("in range");
        let split = Split::new(vec![(w(0), 'z'), (w(7_000), 'a'), (w(3_000), 'b')]).expect("sums up");
        assert_eq!((*split.pick(0), *split.pick(6_999), *split.pick(7_000), *split.pick(9_999)), ('a', 'a', 'b', 'b'));
        assert_eq!(Split::new(vec![(w(9_999), ())]), Err(9_999));
    }

    proptest! {
        #[test]
        fn display_and_parse_are_inverse(grains in 0..=GRAINS) {
            let weight = Weight::from_grains(grains).expect("in range");
            prop_assert_eq!(Weight::parse(&weight.to_string()), Ok(weight));
        }
    }
}
