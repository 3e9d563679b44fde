//! A DNS server of the test's own: it answers what it was told to, over UDP, and counts who asked.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use super::wait::until;

/// Longest query that is read, in bytes.
const QUERY_MAX: usize = 4_096;

/// What the server does with every query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Answers what it was told.
    Normal,
    /// Has a failure of its own.
    ServFail,
    /// Knows the names, and nothing of them.
    Empty,
    /// Knows no name.
    NxDomain,
    /// Says nothing.
    Silent,
}

/// The server. Dropping it stops it.
pub(crate) struct Dns {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    serving: JoinHandle<()>,
}

struct Zone {
    mood: Mood,
    records: BTreeMap<(String, RecordType), (u32, Vec<RData>)>,
    asked: BTreeMap<String, usize>,
    /// Names nothing is ever said of.
    silent: BTreeSet<String>,
}

// === impl Dns ===

impl Dns {
    /// Starts on a free port of the loopback; knows nothing yet.
    pub(crate) async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        let address = socket.local_addr().expect("a bound socket");
        let zone =
            Zone { mood: Mood::Normal, records: BTreeMap::new(), asked: BTreeMap::new(), silent: BTreeSet::new() };
        let zone = Arc::new(Mutex::new(zone));
        let serving = tokio::spawn(serve(socket, Arc::clone(&zone)));
        Self { address, zone, serving }
    }

    /// The lines of `[runtime.dns]` that have only it asked, and answers that run out used for 50 ms.
    pub(crate) fn lines(&self) -> String {
        format!("servers = [\"{}\"]\ntimeout = \"100ms\"\nmin_ttl = \"50ms\"", self.address)
    }

    /// What every query gets from now on.
    pub(crate) fn mood(&self, mood: Mood) {
        self.zone().mood = mood;
    }

    /// The addresses of `name` from now on, of both families, and how many seconds they may be used.
    pub(crate) fn host(&self, name: &str, ttl: u32, ips: &[&str]) {
        let ips = ips.iter().map(|ip| RData::from(ip.parse::<std::net::IpAddr>().expect("an IP address")));
        let (v4, v6): (Vec<_>, Vec<_>) = ips.partition(|data| data.record_type() == RecordType::A);
        self.tell(name, RecordType::A, ttl, v4);
        self.tell(name, RecordType::AAAA, ttl, v6);
    }

    /// The SRV records of `name` from now on: priority, weight, port, target.
    pub(crate) fn srv(&self, name: &str, ttl: u32, targets: &[(u16, u16, u16, &str)]) {
        let target = |(priority, weight, port, target): &(u16, u16, u16, &str)| {
            RData::SRV(SRV::new(*priority, *weight, *port, Name::from_ascii(target).expect("a name")))
        };
        self.tell(name, RecordType::SRV, ttl, targets.iter().map(target).collect());
    }

    /// Nobody who asks for `name` gets an answer from now on.
    pub(crate) fn silence(&self, name: &str) {
        self.zone().silent.insert(name.to_owned());
    }

    /// How often `name` was asked for, over all types of records.
    pub(crate) fn asked(&self, name: &str) -> usize {
        self.zone().asked.get(name).copied().unwrap_or_default()
    }

    /// Returns once `name` was asked for `more` times again.
    pub(crate) async fn asked_again(&self, name: &str, more: usize) {
        let before = self.asked(name);
        until("a name to be asked for again", || self.asked(name) >= before + more).await;
    }

    fn tell(&self, name: &str, record: RecordType, ttl: u32, data: Vec<RData>) {
        self.zone().records.insert((name.to_owned(), record), (ttl, data));
    }

    fn zone(&self) -> MutexGuard<'_, Zone> {
        self.zone.lock().expect("no one panics with the zone")
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

// === impl Zone ===

impl Zone {
    fn answer(&mut self, query: &Message) -> Option<Message> {
        let asked = query.queries.first().expect("a question").clone();
        let name = asked.name().to_ascii().trim_end_matches('.').to_ascii_lowercase();
        *self.asked.entry(name.clone()).or_default() += 1;
        if self.silent.contains(&name) {
            return None;
        }
        let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
        answer.add_query(asked.clone());
        let known = self.records.keys().any(|(known, _)| *known == name);
        answer.metadata.response_code = match self.mood {
            Mood::Silent => return None,
            Mood::ServFail => ResponseCode::ServFail,
            Mood::NxDomain => ResponseCode::NXDomain,
            Mood::Normal if !known => ResponseCode::NXDomain,
            Mood::Normal | Mood::Empty => ResponseCode::NoError,
        };
        if self.mood == Mood::Normal
            && let Some((ttl, data)) = self.records.get(&(name, asked.query_type()))
        {
            let record = |data: &RData| Record::from_rdata(asked.name().clone(), *ttl, data.clone());
            answer.add_answers(data.iter().map(record));
        }
        Some(answer)
    }
}

async fn serve(socket: UdpSocket, zone: Arc<Mutex<Zone>>) {
    let mut buffer = [0; QUERY_MAX];
    loop {
        let (len, from) = socket.recv_from(&mut buffer).await.expect("a bound socket");
        let query = Message::from_vec(&buffer[..len]).expect("a query");
        let answer = zone.lock().expect("no one panics with the zone").answer(&query);
        if let Some(answer) = answer {
            // Whoever asked may be gone.
            let _ = socket.send_to(&answer.to_vec().expect("an answer"), from).await;
        }
    }
}
