//! `tidegate audit`: what was written down, entry by entry, from the admin API or from the store itself, and whether the chain holds.

use serde_json::json;

use super::args;
use super::client::Admin;
use super::failure::Failure;
use super::terminal::{Terminal, say};
use super::text::{Align, Cell, Paint, Tone, columns};
use crate::core::id::Name;
use crate::store::audit::{self, Broken, Entry, NOTHING_BEFORE, Verified};
use crate::store::{AUDIT_PAGE_MAX, Store};
use crate::telemetry::access::timestamp;

/// Where entries come from, a page at a time.
enum Source {
    Api(Admin),
    Store(Box<Store>),
}

/// An entry as it is stored.
type Stored = Vec<u8>;

/// Follows the chain.
#[derive(Debug, Default)]
struct Chain {
    first: u64,
    last: Option<(u64, String)>,
}

/// Shows the audit, or checks it.
pub(super) async fn perform(asked: &args::Audit, terminal: Terminal) -> Result<(), Failure> {
    let source = match &asked.state_dir {
        Some(dir) => Source::Store(Box::new(Store::open_existing(dir).map_err(|error| unread(&error.to_string()))?)),
        None => Source::Api(Admin::choose(&asked.admin)?),
    };
    let (mut after, mut chain) = (asked.after, Chain::default());
    loop {
        let page = source.page(after).await?;
        let Some(last) = page.last() else { break };
        if asked.verify {
            page.iter().try_for_each(|entry| chain.follow(entry)).map_err(|at| broken(&at))?;
            after = chain.last.as_ref().map_or(after, |(seq, _)| *seq);
        } else {
            after = read(last)?.seq;
            say(&shown(&page, asked.service.as_ref(), terminal)?)?;
        }
    }
    if asked.verify { say(&holds(&chain.verified(), asked.after, terminal)) } else { Ok(()) }
}

fn shown(page: &[Stored], service: Option<&Name>, terminal: Terminal) -> Result<String, Failure> {
    let mut text = String::new();
    let mut rows = Vec::new();
    for stored in page {
        let entry = read(stored)?;
        if service.is_some_and(|service| entry.what.service.as_deref() != Some(service.as_str())) {
            continue;
        }
        if terminal.json {
            text.push_str(&String::from_utf8_lossy(stored));
            text.push('\n');
        } else {
            rows.push(row(&entry));
        }
    }
    Ok(if terminal.json { text } else { listed(&rows, terminal.paint) })
}

fn row(entry: &Entry) -> Vec<Cell> {
    let what = &entry.what;
    let tone = match what.verb.as_str() {
        "abort" | "rollback" => Tone::Bad,
        "pause" | "trial" => Tone::Notable,
        _ => Tone::Plain,
    };
    let change = if what.from == what.to { what.to.clone() } else { format!("{} -> {}", what.from, what.to) };
    let reason = what.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    vec![
        Cell::new(Tone::Faint, entry.seq.to_string()),
        Cell::plain(timestamp(std::time::Duration::from_millis(what.time))),
        Cell::plain(what.service.as_deref().unwrap_or("-")),
        Cell::plain(&what.actor),
        Cell::new(tone, &what.verb),
        Cell::plain(format!("{change}{reason}")),
    ]
}

/// In columns, without a heading: pages follow each other.
fn listed(rows: &[Vec<Cell>], paint: Paint) -> String {
    columns(paint, &[Align::Right, Align::Left, Align::Left, Align::Left, Align::Left, Align::Left], rows)
}

fn read(stored: &[u8]) -> Result<Entry, Failure> {
    serde_json::from_slice(stored).map_err(|error| {
        Failure::new("an entry of the audit is not understood")
            .detail(format!("{error}; `tidegate audit --verify` says which"))
    })
}

fn holds(verified: &Verified, after: u64, terminal: Terminal) -> String {
    let Verified { first, last, head } = verified;
    if terminal.json {
        return format!("{}\n", json!({ "holds": true, "first": first, "last": last, "head": head }));
    }
    if *last == 0 {
        return format!("the audit has no entries after {after}\n");
    }
    let gone = if *first > after + 1 { format!("; those before {first} were let go") } else { String::new() };
    format!("the audit holds from {first} to {last}{gone}\nSHA-256 of entry {last}: {head}\n")
}

fn broken(broken: &Broken) -> Failure {
    let Broken { seq, why } = broken;
    Failure::new("the audit does not hold").detail(format!("entry {seq} {why}"))
}

fn unread(why: &str) -> Failure {
    Failure::new("the audit cannot be read").detail(why)
}

// === impl Source ===

impl Source {
    /// The entries after `after`, oldest first; none at the end.
    async fn page(&self, after: u64) -> Result<Vec<Stored>, Failure> {
        match self {
            Self::Api(admin) => {
                let body = admin.get(&format!("/v1/audit?after={after}&limit={AUDIT_PAGE_MAX}")).await?;
                Ok(body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect())
            }
            Self::Store(store) => {
                let page = store.audit(after, AUDIT_PAGE_MAX).map_err(|error| unread(&error.to_string()))?;
                Ok(page.into_iter().map(|(_, stored)| stored).collect())
            }
        }
    }
}

// === impl Chain ===

impl Chain {
    fn follow(&mut self, stored: &[u8]) -> Result<(), Broken> {
        let next = self.last.as_ref().map_or(1, |(seq, _)| seq + 1);
        let entry = serde_json::from_slice::<Entry>(stored);
        let seq = entry.map_err(|_| Broken { seq: next, why: "is not an entry of the register" })?.seq;
        let after = self.last.as_ref().map(|(seq, digest)| (*seq, digest.as_str()));
        self.last = audit::verify(std::iter::once((seq, stored)), after)?;
        if self.first == 0 {
            self.first = seq;
        }
        Ok(())
    }

    fn verified(self) -> Verified {
        let (last, head) = self.last.unwrap_or_else(|| (0, NOTHING_BEFORE.to_owned()));
        Verified { first: self.first, last, head }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::audit::{Draft, digest_of};

    fn register(count: u64) -> Vec<Stored> {
        let mut previous = NOTHING_BEFORE.to_owned();
        let entry = |seq| {
            let what = Draft {
                time: 1_000 * seq,
                actor: "token ci".to_owned(),
                verb: "step".to_owned(),
                service: Some(if seq == 2 { "api" } else { "web" }.to_owned()),
                from: "v1".to_owned(),
                to: format!("step {seq}"),
                reason: (seq == 3).then(|| "go".to_owned()),
                ..Draft::default()
            };
            let stored = serde_json::to_vec(&Entry { seq, previous: previous.clone(), what }).expect("text");
            previous = digest_of(&stored);
            stored
        };
        (1..=count).map(entry).collect()
    }

    fn checked(entries: &[Stored]) -> Result<Verified, Broken> {
        let mut chain = Chain::default();
        entries.iter().try_for_each(|entry| chain.follow(entry))?;
        Ok(chain.verified())
    }

    #[test]
    fn a_chain_holds_until_one_is_changed_or_missing() {
        let whole = register(4);
        let verified = checked(&whole).expect("holds");
        assert_eq!((verified.first, verified.last, verified.head), (1, 4, digest_of(&whole[3])));
        assert_eq!(checked(&whole[1..]).expect("older ones were let go").first, 2);
        assert_eq!(checked(&[]).expect("nothing").last, 0);
        let mut changed = whole.clone();
        changed[1] = String::from_utf8(changed[1].clone()).expect("text").replace("token ci", "token me").into_bytes();
        assert_eq!(checked(&changed).expect_err("changed").seq, 3);
        assert_eq!(checked(&[whole[0].clone(), whole[2].clone()]).expect_err("missing").seq, 3);
        assert_eq!(checked(&[whole[0].clone(), b"{}".to_vec()]).expect_err("none").seq, 2);
    }

    #[test]
    fn entries_are_lines_and_a_service_has_its_own() {
        let (entries, web) = (register(3), Name::new("web").expect("name"));
        let terminal = |json| Terminal { json, interactive: false, paint: Paint(false) };
        let text = shown(&entries, None, terminal(false)).expect("text");
        let lines: Vec<_> = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(lines[0], "1 1970-01-01T00:00:01.000Z web token ci step v1 -> step 1");
        assert!(lines[2].ends_with("v1 -> step 3 (go)"), "{text}");
        let json = shown(&entries, Some(&web), terminal(true)).expect("text");
        assert_eq!(json.lines().map(str::as_bytes).collect::<Vec<_>>(), [&entries[0][..], &entries[2][..]]);
    }

    #[test]
    fn the_verdict_says_what_was_looked_at() {
        let verified = Verified { first: 8, last: 9, head: "ab".to_owned() };
        let terminal = Terminal { json: false, interactive: false, paint: Paint(false) };
        let text = holds(&verified, 0, terminal);
        assert_eq!(text, "the audit holds from 8 to 9; those before 8 were let go\nSHA-256 of entry 9: ab\n");
        assert!(!holds(&verified, 7, terminal).contains("let go"));
        let json = holds(&verified, 0, Terminal { json: true, ..terminal });
        assert_eq!(json, "{\"first\":8,\"head\":\"ab\",\"holds\":true,\"last\":9}\n");
    }
}
