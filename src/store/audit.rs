//! The register of every change: entries in order, each with the SHA-256 of the one before, so that nobody can take one out or
//! rewrite it unseen.

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What happened, before it has a place in the register. Entries are read for as long as they are kept, whatever was added to them since:
/// what is missing is empty, what is not known is passed over. That nobody changed them is what the chain is for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Draft {
    /// Milliseconds since 1970.
    pub time: u64,
    /// Who: the name of a token, `file`, `gate/<metric>`, `hook`.
    pub actor: String,
    /// The address it came from; empty for what the process did itself.
    pub source: String,
    /// The verb: `start`, `promote`, `abort`...
    pub verb: String,
    /// The service, if it is about one.
    pub service: Option<String>,
    /// The number of the rollout, if it is about one.
    pub rollout: Option<u64>,
    /// What was true before.
    pub from: String,
    /// What is true after.
    pub to: String,
    /// The generation in force when it was written: of what takes traffic back the one published with it, else the one before.
    pub generation: u64,
    /// Why, in the words of whoever did it.
    pub reason: Option<String>,
    /// The numbers behind a verdict, unabridged.
    pub evidence: Option<Value>,
    /// Digest of the configuration in force.
    pub config: String,
}

/// An entry of the register.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its place, from one, without gaps.
    pub seq: u64,
    /// SHA-256 of the stored bytes of the entry before, in base 16; of the first entry ever: 64 zeros.
    pub previous: String,
    /// What happened.
    pub what: Draft,
}

/// The part of the register that was looked at, and its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The oldest entry there is; above one when older ones were let go.
    pub first: u64,
    /// The newest entry; zero in an empty register.
    pub last: u64,
    /// SHA-256 of the newest entry. Kept elsewhere, it also proves that none was cut off at the end.
    pub head: String,
}

/// Where the chain does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The entry.
    pub seq: u64,
    /// What is wrong with it.
    pub why: &'static str,
}

/// The digest before the first entry.
pub const NOTHING_BEFORE: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// SHA-256 of an entry as stored, in base 16.
#[must_use]
pub fn digest_of(stored: &[u8]) -> String {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let digest = digest(&SHA256, stored);
    digest.as_ref().iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|n| char::from(HEX[usize::from(n)])).collect()
}

/// Checks entries as stored, oldest first, that begin after one with the digest `before`.
///
/// # Errors
/// The first entry that does not fit.
pub fn verify<'a>(
    stored: impl Iterator<Item = (u64, &'a [u8])>,
    after: Option<(u64, &str)>,
) -> Result<Option<(u64, String)>, Broken> {
    let mut last: Option<(u64, String)> = after.map(|(seq, digest)| (seq, digest.to_owned()));
    for (seq, bytes) in stored {
        let entry: Entry =
            serde_json::from_slice(bytes).map_err(|_| Broken { seq, why: "is not an entry of the register" })?;
        if entry.seq != seq {
            return Err(Broken { seq, why: "says it is another one" });
        }
        match &last {
            Some((before, _)) if seq != before + 1 => {
                return Err(Broken { seq, why: "does not follow the one before: entries are missing" });
            }
            Some((_, digest)) if *digest != entry.previous => {
                return Err(Broken { seq, why: "does not fit the one before: one of them was changed" });
            }
            None if seq == 1 && entry.previous != NOTHING_BEFORE => {
                return Err(Broken { seq, why: "claims to have one before it" });
            }
            _ => last = Some((seq, digest_of(bytes))),
        }
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_older_and_newer_versions_are_read_and_verified() {
        let older = format!(
            "{{\"seq\":1,\"previous\":\"{NOTHING_BEFORE}\",\"what\":{{\"time\":7,\"actor\":\"ci\",\"verb\":\"abort\"}}}}"
        );
        let entry: Entry = serde_json::from_str(&older).expect("read");
        assert_eq!((entry.what.actor.as_str(), entry.what.rollout, entry.what.time), ("ci", None, 7));
        let what = Draft { rollout: Some(3), source: "10.0.0.7:4711".to_owned(), ..entry.what };
        let mut newer =
            serde_json::to_value(Entry { seq: 2, previous: digest_of(older.as_bytes()), what }).expect("text");
        newer["what"]["later"] = "something".into();
        newer["also"] = 1.into();
        let newer = newer.to_string();
        let entry: Entry = serde_json::from_str(&newer).expect("read");
        assert_eq!((entry.what.rollout, entry.what.source.as_str()), (Some(3), "10.0.0.7:4711"));
        let stored = [(1, older.as_bytes()), (2, newer.as_bytes())];
        assert!(verify(stored.into_iter(), None).is_ok());
        let forged = newer.replace("something", "anything");
        let stored = [(2, forged.as_bytes()), (3, newer.as_bytes())];
        assert!(verify(stored.into_iter(), None).is_err());
    }
}
