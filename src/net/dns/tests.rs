//! Names and search domains, over a DNS server that says of each name what it was told to.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::Record;
use tokio::net::UdpSocket;

use super::*;

const TIMEOUT: Duration = Duration::from_millis(50);
const QUERY_MAX: usize = 4_096;

/// What is said of a name; `Silent` is no answer at all. Of names nobody spoke of: that they do not exist.
#[derive(Clone, Copy)]
enum Say {
    V4,
    Both,
    Empty,
    ServFail,
    Silent,
    /// The server fails for A and answers for AAAA.
    LostV4,
}

type Asked = Arc<Mutex<Vec<String>>>;

/// A resolver that searches below `domains`, the names that were asked for, and what answers.
async fn resolver(domains: &[&str], ndots: usize, zone: &[(&str, Say)], hosts: &str) -> (Resolver, Asked) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
    let address = socket.local_addr().expect("bound");
    let zone: BTreeMap<String, Say> = zone.iter().map(|(name, say)| ((*name).to_owned(), *say)).collect();
    let asked = Asked::default();
    tokio::spawn(serve(socket, zone, Arc::clone(&asked)));
    let domains = domains.iter().map(|domain| whole(domain)).collect();
    let config = ResolverConfig::from_parts(None, domains, vec![server(&address)]);
    let mut options = ResolverOpts::default();
    options.ndots = ndots;
    let mut known = Hosts::default();
    known.read_hosts_conf(hosts.as_bytes()).expect("a file of hosts");
    let made = Made::new(&config, options, known, TIMEOUT).expect("a resolver");
    let resolver = Resolver::new(vec![address], TIMEOUT);
    *resolver.0.made.lock().expect("alone") = Some((crate::clock::now(), Arc::new(made)));
    (resolver, asked)
}

async fn serve(socket: UdpSocket, zone: BTreeMap<String, Say>, asked: Asked) {
    let mut buffer = [0; QUERY_MAX];
    while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
        let query = Message::from_vec(&buffer[..len]).expect("a query");
        let question = query.queries.first().expect("a question").clone();
        let (name, record) = (question.name().to_ascii(), question.query_type());
        asked.lock().expect("nobody panics").push(format!("{record} {name}"));
        let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
        answer.add_query(question.clone());
        let (code, data) = match (zone.get(&name), record) {
            (Some(Say::Silent), _) => continue,
            (Some(Say::ServFail), _) | (Some(Say::LostV4), RecordType::A) => (ResponseCode::ServFail, None),
            (None, _) => (ResponseCode::NXDomain, None),
            (Some(Say::V4 | Say::Both), RecordType::A) => (ResponseCode::NoError, Some(RData::from(V4))),
            (Some(Say::Both | Say::LostV4), RecordType::AAAA) => (ResponseCode::NoError, Some(RData::from(V6))),
            (Some(_), _) => (ResponseCode::NoError, None),
        };
        answer.metadata.response_code = code;
        answer.add_answers(data.map(|data| Record::from_rdata(question.name().clone(), 60, data)));
        let _ = socket.send_to(&answer.to_vec().expect("an answer"), from).await;
    }
}

const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1));

fn whole(name: &str) -> Name {
    let mut name = Name::from_ascii(name).expect("a name");
    name.set_fqdn(true);
    name
}

async fn ask(resolver: &Resolver, name: &str) -> Addresses {
    match resolver.ask(&Question::Host(name.into()), crate::clock::now()).await {
        Heard::Host(found) => found,
        Heard::Srv(..) => panic!("asked for addresses"),
    }
}

fn told(asked: &Asked) -> Vec<String> {
    let mut names: Vec<String> = asked.lock().expect("nobody panics").drain(..).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn some<T>(found: &Found<T>) -> bool {
    matches!(found, Found::Records(..))
}

fn why<T>(found: &Found<T>) -> &str {
    match found {
        Found::Failed(why) => why,
        _ => "",
    }
}

#[test]
fn names_are_searched_as_resolv_conf_says() {
    let search = |domains: &[&str], ndots| Search { domains: domains.iter().map(|d| whole(d)).collect(), ndots };
    let names = |search: &Search, name: &str| -> Vec<String> {
        search.names(&parsed(name).expect("a name")).iter().map(Name::to_ascii).collect()
    };
    let usual = search(&["a.test", "b.test", "a.test"], 1);
    assert_eq!(names(&usual, "web"), ["web.a.test.", "web.b.test.", "web."]);
    assert_eq!(names(&usual, "web.internal"), ["web.internal.", "web.internal.a.test.", "web.internal.b.test."]);
    assert_eq!(names(&usual, "web.internal."), ["web.internal."], "whole already");
    assert_eq!(names(&usual, "localhost"), ["localhost."]);
    let cluster = search(&["x.svc.test"], 5);
    assert_eq!(names(&cluster, "web.internal"), ["web.internal.x.svc.test.", "web.internal."]);
    assert_eq!(names(&search(&[], 1), "web"), ["web."]);
    let long = "a".repeat(60);
    let deep = search(&[&format!("{long}.{long}.{long}.{long}")], 1);
    assert_eq!(names(&deep, "web.internal"), ["web.internal."], "too long below its domain");
    let config = |domains: &[&str]| {
        let domains = domains.iter().map(|d| whole(d)).collect();
        ResolverConfig::from_parts(Some(whole("system.test")), domains, Vec::new())
    };
    assert_eq!(names(&Search::of(&config(&[]), 1), "web"), ["web.system.test.", "web."]);
    assert_eq!(names(&Search::of(&config(&["a.test"]), 1), "web"), ["web.a.test.", "web."]);
    let many = vec!["a.test"; DOMAINS_MAX + 1];
    assert_eq!(Search::of(&config(&many), 1).domains.len(), DOMAINS_MAX);
}

/// The name exists, the server fails for one family: what a search domain says of a name it does not have proves nothing.
#[tokio::test]
async fn a_failure_on_the_way_is_a_failure_and_not_nothing() {
    for (say, v6) in [(Say::LostV4, true), (Say::ServFail, false), (Say::Silent, false)] {
        let (resolver, asked) = resolver(&["corp.test"], 1, &[("web.internal.", say)], "").await;
        let found = ask(&resolver, "web.internal").await;
        assert!(why(&found[0]).starts_with("A of web.internal.: "), "{found:?}");
        assert_eq!(some(&found[1]), v6, "{found:?}");
        assert_eq!(told(&asked), ["A web.internal.", "AAAA web.internal."], "nobody else is asked");
    }
    // The domain that is asked first fails: the name below the next one may be somebody else.
    let zone = [("web.a.test.", Say::ServFail), ("web.b.test.", Say::Both)];
    let (resolver, _) = resolver(&["a.test", "b.test"], 1, &zone, "").await;
    let found = ask(&resolver, "web").await;
    assert!(why(&found[0]).starts_with("A of web.a.test.: ") && why(&found[1]).starts_with("AAAA of web.a.test.: "));
}

#[tokio::test]
async fn the_first_name_that_has_anything_is_the_one_for_both_families() {
    let zone = [("web.b.test.", Say::V4), ("web.c.test.", Say::Both), ("web.", Say::Both)];
    let (resolver, asked) = resolver(&["a.test", "b.test", "c.test"], 1, &zone, "").await;
    let found = ask(&resolver, "web").await;
    assert!(some(&found[0]) && found[1] == Found::Nothing, "{found:?}");
    assert_eq!(told(&asked), ["A web.a.test.", "A web.b.test.", "AAAA web.a.test.", "AAAA web.b.test."]);
    // A name without records is passed over like one that does not exist.
    let zone = [("web.a.test.", Say::Empty), ("web.", Say::Both)];
    let (resolver, _) = self::resolver(&["a.test"], 1, &zone, "").await;
    assert!(ask(&resolver, "web").await.iter().all(some));
    let (resolver, asked) = self::resolver(&["a.test"], 1, &[], "").await;
    assert_eq!(ask(&resolver, "web").await, [Found::Nothing, Found::Nothing]);
    assert_eq!(told(&asked).len(), 4);
}

#[tokio::test]
async fn the_file_of_hosts_comes_first_and_is_the_whole_answer() {
    let (resolver, asked) = resolver(&["a.test"], 1, &[("web.a.test.", Say::Both)], "10.0.0.9 web other.test\n").await;
    for name in ["web", "other.test", "other.test."] {
        let found = ask(&resolver, name).await;
        let Found::Records(ips, _) = &found[0] else { panic!("{found:?}") };
        assert_eq!((ips.as_slice(), &found[1]), (&[IpAddr::from([10, 0, 0, 9])][..], &Found::Nothing));
    }
    assert_eq!(told(&asked), Vec::<String>::new());
}

#[tokio::test]
async fn a_failure_ends_the_search_for_srv_records_as_well() {
    let zone = [("_x._tcp.web.internal.", Say::ServFail)];
    let (resolver, asked) = resolver(&["corp.test"], 1, &zone, "").await;
    let heard = resolver.ask(&Question::Srv("_x._tcp.web.internal".into()), crate::clock::now()).await;
    let Heard::Srv(found, hosts) = heard else { panic!("asked for SRV") };
    assert!(why(&found).starts_with("SRV of _x._tcp.web.internal.: ") && hosts.is_empty(), "{found:?}");
    assert_eq!(told(&asked), ["SRV _x._tcp.web.internal."]);
}
