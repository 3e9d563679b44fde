//! Places that are taken and given back: so many in all, and so many for one, so that nobody takes them all.

use std::sync::{Arc, Mutex, PoisonError};

/// Places for whoever a `K` tells apart.
#[derive(Clone, Debug)]
pub(super) struct Seats<K> {
    /// Who has the places that are taken.
    taken: Arc<Mutex<Vec<K>>>,
    in_all: usize,
    for_one: usize,
}

/// A place; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Seat<K: PartialEq> {
    taken: Arc<Mutex<Vec<K>>>,
    key: K,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// All are taken.
    InAll,
    /// Whoever asks has as many as one may have.
    ForOne,
}

// === impl Seats ===

impl<K: Clone + PartialEq> Seats<K> {
    /// `in_all` places, `for_one` of them at most for each.
    pub(super) fn new(in_all: usize, for_one: usize) -> Self {
        Self { taken: Arc::default(), in_all, for_one }
    }

    /// A place for `key`.
    pub(super) fn take(&self, key: K) -> Result<Seat<K>, Full> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.iter().filter(|other| **other == key).count() >= self.for_one {
            return Err(Full::ForOne);
        }
        if taken.len() >= self.in_all {
            return Err(Full::InAll);
        }
        taken.push(key.clone());
        Ok(Seat { taken: Arc::clone(&self.taken), key })
    }
}

// === impl Seat ===

impl<K: PartialEq> Drop for Seat<K> {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = taken.iter().position(|other| *other == self.key) {
            taken.swap_remove(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_all_places_and_each_is_given_back() {
        let seats = Seats::new(3, 2);
        let (first, second) = (seats.take("a").expect("free"), seats.take("a").expect("free"));
        assert_eq!(seats.take("a").err(), Some(Full::ForOne));
        let third = seats.take("b").expect("free");
        assert_eq!(seats.take("b").err(), Some(Full::InAll));
        assert_eq!(seats.take("a").err(), Some(Full::ForOne));
        drop(first);
        let again = seats.take("b").expect("given back");
        assert_eq!(seats.take("c").err(), Some(Full::InAll));
        drop((second, third, again));
        assert!(seats.taken.lock().expect("lock").is_empty());
    }
}
