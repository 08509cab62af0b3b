//! N2: the address that is dialled is one that the rule allows, whatever a name server answers and however the host is
//! spelled. A canary listens at the port of the good agent, at every address of this machine that is not allowed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use tokio::runtime::{Builder, Runtime};

use super::server::{Server, json};
use super::{Call, Rig, call_at, rule};
use crate::domain::answer::{Answer, Reach};
use crate::engine::client::Clients;
use crate::engine::departure::Permission;
use crate::engine::exchange::Shared;
use crate::engine::reports::Reports;
use crate::engine::resolve::Names;
use crate::engine::secrets::Secrets;
use crate::engine::ticket::Ticket;
use crate::engine::{Report, Scripts, Waker, agent_api};

const OK: &str = r#"{"status":"succeeded"}"#;
const GOOD: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// Calls whose names are resolved by a test.
struct Told {
    shared: Arc<Shared>,
    runtime: Runtime,
    lookups: Arc<AtomicUsize>,
}

impl Told {
    /// `answer` gets the number of the lookup, from 0.
    fn by(answer: impl Fn(usize) -> Vec<IpAddr> + Send + Sync + 'static) -> Told {
        let lookups = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&lookups);
        let names = Names::Told(Arc::new(move |_| answer(counter.fetch_add(1, Ordering::SeqCst))));
        let shared = Arc::new(Shared {
            clients: Clients::new(None, names),
            secrets: Secrets::new(None),
            scripts: Scripts::default(),
        });
        Told { shared, runtime: Builder::new_current_thread().enable_all().build().unwrap(), lookups }
    }

    fn run(&self, call: Call) -> Answer {
        let permission = Arc::new(Permission::none());
        permission.until(Instant::now() + Duration::from_secs(3600));
        let departure = Ticket::of(&call, &permission).departure;
        let (waker, _wakeup) = Waker::pair().unwrap();
        let reports = Reports::new(mpsc::channel().0, waker);
        match self.runtime.block_on(agent_api::make(call, departure, Arc::clone(&self.shared), &reports)) {
            Report::Ended { answer, .. } => answer,
            other => panic!("{other:?}"),
        }
    }
}

/// The good agent at 127.0.0.2, and canaries at the same port of other addresses.
fn agent_and_canaries(bytes: &str) -> (Server, Vec<Server>) {
    loop {
        let agent = Server::at((GOOD, 0), bytes).unwrap();
        let mut others: Vec<IpAddr> = vec![Ipv4Addr::LOCALHOST.into(), Ipv4Addr::new(127, 0, 0, 3).into()];
        // Containers may have no IPv6.
        if std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
            others.push(Ipv6Addr::LOCALHOST.into());
        }
        let canaries: Option<Vec<_>> =
            others.iter().map(|ip| Server::at(SocketAddr::new(*ip, agent.port), json("200 OK", "", OK)).ok()).collect();
        if let Some(canaries) = canaries {
            return (agent, canaries);
        }
    }
}

fn agent_call(port: u16) -> Call {
    let rules = vec![rule("http", "agent.example", port, "/", &["127.0.0.2/32"])];
    call_at(&format!("http://agent.example:{port}"), None, rules)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn promise_n2_five_hundred_alternating_answers_reach_no_canary() {
    let (agent, canaries) = agent_and_canaries(&json("200 OK", "", OK));
    // Each list, and whether there is an address in it that may be dialled.
    let lists: [(Vec<IpAddr>, bool); 8] = [
        (vec![ip("127.0.0.1")], false),
        (vec![GOOD], true),
        (vec![ip("127.0.0.1"), GOOD], true),
        (vec![GOOD, ip("127.0.0.3"), ip("::1")], true),
        (vec![ip("::1"), ip("::ffff:127.0.0.1"), ip("127.0.0.3")], false),
        (vec![ip("::ffff:127.0.0.2")], true),
        (vec![ip("::127.0.0.1"), ip("64:ff9b::127.0.0.1"), ip("2002:7f00:1::")], false),
        (vec![], false),
    ];
    let answers: Vec<Vec<IpAddr>> = lists.iter().map(|(list, _)| list.clone()).collect();
    let told = Told::by(move |n| answers[n % answers.len()].clone());
    let mut reached = 0;
    for n in 0..500 {
        let answer = told.run(agent_call(agent.port));
        let want = if lists[n % lists.len()].1 { (Reach::Answered, "ok") } else { (Reach::NotSent, "address_denied") };
        assert_eq!((answer.reach, answer.reason.as_str()), want, "answer {n}: {answer:?}");
        reached += usize::from(want.0 == Reach::Answered);
    }
    assert_eq!(told.lookups.load(Ordering::SeqCst), 500, "one lookup for one connection, and none after it");
    let hits: usize = canaries.iter().map(Server::connections).sum();
    assert_eq!((hits, agent.connections()), (0, reached));
    println!("N2: 500 alternating DNS answers, {reached} deliveries, {hits} accepts on {} canaries", canaries.len());
}

#[test]
fn promise_n2_a_name_that_moves_between_two_questions_is_not_followed() {
    let accepted = json("202 Accepted", "Location: /s\r\nRetry-After: 0\r\n", "");
    let (agent, canaries) = agent_and_canaries(&accepted);
    let told = Told::by(|n| vec![if n % 2 == 0 { GOOD } else { ip("127.0.0.1") }]);
    let mut call = agent_call(agent.port);
    call.limits.total = Duration::from_secs(4);
    let answer = told.run(call);
    assert_eq!((answer.reach, answer.reason.as_str()), (Reach::Sent, "timeout"));
    let lookups = told.lookups.load(Ordering::SeqCst);
    assert!(lookups >= 4, "{lookups}");
    assert_eq!(canaries.iter().map(Server::connections).sum::<usize>(), 0);
    assert_eq!(agent.connections(), lookups.div_ceil(2));
}

/// The registries of IANA: special-purpose IPv4 and IPv6 addresses, multicast, what is reserved, and what carries an IPv4
/// address. Where the registry sets a part of a block free for everybody, it is refused all the same.
const SPECIAL: &str = "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.0.0/29 \
    192.0.0.8/32 192.0.0.9/32 192.0.0.10/32 192.0.0.170/32 192.0.0.171/32 192.0.2.0/24 192.88.99.0/24 192.168.0.0/16 \
    198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4 255.255.255.255/32 \
    ::/128 ::1/128 ::/96 ::ffff:0:0/104 ::ffff:10.0.0.0/104 ::ffff:127.0.0.0/104 ::ffff:169.254.0.0/112 \
    64:ff9b::/96 64:ff9b:1::/48 100::/64 100:0:0:1::/64 2001::/23 2001::/32 2001:1::1/128 2001:1::2/128 2001:1::3/128 \
    2001:2::/48 2001:3::/32 2001:4:112::/48 2001:10::/28 2001:20::/28 2001:30::/28 2001:db8::/32 2002::/16 3fff::/20 \
    5f00::/16 fc00::/7 fe80::/10 fec0::/10 ff00::/8 2606:4700:0:0:0:5efe::/96 2606:4700:0:0:200:5efe::/96 8000::/1 4000::/2";

/// First, last and some in between.
fn samples(net: IpNet) -> Vec<IpAddr> {
    match net {
        IpNet::V4(net) => v4(net).map(IpAddr::V4).to_vec(),
        IpNet::V6(net) => v6(net).map(IpAddr::V6).to_vec(),
    }
}

fn v4(net: Ipv4Net) -> [Ipv4Addr; 5] {
    let (first, last) = (u32::from(net.network()), u32::from(net.broadcast()));
    let step = (last - first) / 3;
    [first, first + step, first + 2 * step, last - step / 7, last].map(Ipv4Addr::from)
}

fn v6(net: Ipv6Net) -> [Ipv6Addr; 5] {
    let (first, last) = (u128::from(net.network()), u128::from(net.broadcast()));
    let step = (last - first) / 3;
    [first, first + step, first + 2 * step, last - step / 7, last].map(Ipv6Addr::from)
}

#[test]
fn promise_n2_no_address_of_a_special_purpose_is_dialled_under_a_rule_for_public_ones() {
    let nets: Vec<IpNet> = SPECIAL.split_whitespace().map(|net| net.parse().unwrap()).collect();
    let all: Vec<IpAddr> = nets.iter().flat_map(|net| samples(*net)).collect();
    let (count, answers) = (all.len(), all.clone());
    let told = Told::by(move |n| vec![answers[n % count]]);
    let rules = vec![rule("http", "agent.example", 80, "/", &[])];
    for address in all {
        let mut call = call_at("http://agent.example", None, rules.clone());
        // Should one be dialled after all, then not for long.
        call.limits.total = Duration::from_millis(200);
        let answer = told.run(call);
        assert_eq!((answer.reach, answer.reason.as_str()), (Reach::NotSent, "address_denied"), "{address}");
    }
    println!("N2: {count} addresses of {} special-purpose blocks: 0 dialled", nets.len());
}

#[test]
fn promise_n2_no_spelling_of_an_address_gets_around_the_rule() {
    let rig = Rig::new();
    let (agent, canaries) = agent_and_canaries(&json("200 OK", "", OK));
    let spellings = "127.0.0.1 127.1 127.0.1 0x7f.1 0x7f000001 2130706433 017700000001 0177.0.0.1 0x7f.0x0.0x0.0x1 127.0.0.1. \
        127.0.0.3 0x7f000003 [::1] [0:0:0:0:0:0:0:1] [::ffff:127.0.0.1] [::ffff:7f00:1] [::127.0.0.1] [::7f00:1] \
        [0:0:0:0:0:ffff:127.0.0.3] %31%32%37.0.0.1 \u{ff11}27\u{3002}0\u{3002}0\u{3002}1 localhost LOCALHOST localhost. \
        ip6-localhost";
    let count = spellings.split_whitespace().count();
    for host in spellings.split_whitespace() {
        let base = format!("http://{host}:{}", agent.port);
        let normal = url::Url::parse(&base).unwrap().host_str().unwrap().to_owned();
        for cidrs in [&[][..], &["127.0.0.2/32"], &["10.0.0.0/8", "fd00::/8"]] {
            let answer = rig.run(call_at(&base, None, vec![rule("http", &normal, agent.port, "/", cidrs)]));
            assert_eq!(answer.reach, Reach::NotSent, "{host}");
            assert!(["address_denied", "dns_failed"].contains(&answer.reason.as_str()), "{host}: {}", answer.reason);
        }
    }
    let hits: usize = canaries.iter().map(Server::connections).sum();
    assert_eq!((hits, agent.connections()), (0, 0));
    println!("N2: {count} spellings of addresses of this machine under 3 rules that do not list them: {hits} accepts");
}
