//! What the gate of a rollout thinks, for whoever asks beside control.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Written by control about once a second and at every verdict that matters.
#[derive(Debug, Default)]
pub(super) struct Board {
    log_e: AtomicU64,
    bound: AtomicU64,
    opinion: AtomicU8,
}

/// What it thinks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Glance {
    /// Evidence of harm, in nats.
    pub log_e: f64,
    /// From where on the candidate is condemned, in nats.
    pub bound: f64,
    /// In a word.
    pub opinion: Opinion,
}

/// What it thinks, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opinion {
    /// Nothing was told yet.
    Unknown,
    /// Too little was seen, or something speaks against it but not enough.
    Inconclusive,
    /// Enough was seen, and nothing speaks against it.
    Clean,
    /// The candidate does harm.
    Harmful,
}

// === impl Board ===

impl Board {
    pub(super) fn show(&self, glance: Glance) {
        self.log_e.store(glance.log_e.to_bits(), Ordering::Relaxed);
        self.bound.store(glance.bound.to_bits(), Ordering::Relaxed);
        self.opinion.store(glance.opinion as u8, Ordering::Release);
    }

    pub(super) fn read(&self) -> Glance {
        let opinion = self.opinion.load(Ordering::Acquire);
        let opinion = Opinion::ALL.into_iter().find(|known| *known as u8 == opinion).unwrap_or(Opinion::Unknown);
        let number = |cell: &AtomicU64| f64::from_bits(cell.load(Ordering::Relaxed));
        Glance { log_e: number(&self.log_e), bound: number(&self.bound), opinion }
    }
}

// === impl Opinion ===

impl Opinion {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Unknown, Self::Inconclusive, Self::Clean, Self::Harmful];

    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Inconclusive => "inconclusive",
            Self::Clean => "clean",
            Self::Harmful => "harmful",
        }
    }
}
