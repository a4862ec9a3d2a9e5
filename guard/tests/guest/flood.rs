//! Floods on a real kernel: named in seconds, not fed, and the connections that are open go on.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use bench::conntrack::{self, Settings, Statistics};
use bench::netns::{SERVER, Topology};
use bench::syn::Syns;
use bench::udp::Flows;
use conntrack_guard::observe::{Timeout, since_boot};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::kernel::{Guard, Table, eventually, lives_on, run, timeouts, told};

const FOUND: Settings = Settings { max: 8_192, buckets: 8_192 };
/// There would be room enough to feed a flood.
const POLICY: &str = "[table]\nmax = { ceiling = 262144 }\n[hash]\nbuckets = { ceiling = 8192 }\n";
/// New flows a second, sent this often a second, for so many seconds: several times what the table holds.
const RATE: u64 = 2_000;
const TIMES: u64 = 20;
const LASTS: u64 = 20;
/// From its first packet until the log tells of it. Two seconds are for answers to come; a look at the entries takes a good part
/// of a second in an emulated guest with one CPU.
const NAMED: Duration = Duration::from_secs(6);
const CONNECTIONS: usize = 20;

/// A server that sends back what it gets, and connections to it.
struct Open<'a> {
    topology: &'a Topology,
    connections: Vec<TcpStream>,
}

const ECHO: SocketAddrV4 = SocketAddrV4::new(SERVER, 4_000);

impl<'a> Open<'a> {
    fn new(topology: &'a Topology) -> Self {
        let listener = topology.servers().run(|| TcpListener::bind(ECHO)).unwrap().unwrap();
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                thread::spawn(move || {
                    let mut reader = connection.try_clone().unwrap();
                    let _ = std::io::copy(&mut reader, &mut &connection);
                });
            }
        });
        let mut open = Self { topology, connections: Vec::new() };
        (0..CONNECTIONS).for_each(|_| open.one_more());
        open
    }

    fn one_more(&mut self) {
        let connect = || TcpStream::connect(ECHO).unwrap();
        self.connections.push(self.topology.clients().run(connect).unwrap());
    }

    /// Each has an answer in two seconds.
    fn go_on(&mut self) {
        for (number, connection) in self.connections.iter_mut().enumerate() {
            connection.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            connection.write_all(b"still there?").unwrap();
            let mut answer = [0; 12];
            connection.read_exact(&mut answer).unwrap_or_else(|error| panic!("connection {number}: {error}"));
        }
    }
}

/// A calm host: 20 questions a second, which are answered. It takes 20 s to be known, and 10 s at most until a look at the
/// entries.
fn calm(topology: &Topology) {
    for number in 0..45 {
        Flows::answered(1_000_000 + 20 * number, 20).send(topology).unwrap();
        thread::sleep(Duration::from_secs(1));
    }
    lives_on(Duration::from_secs(1));
}

/// `send`: so many more packets of it. `timeout`: what its entries wait for, and its floor.
fn is_named_and_not_fed(topology: &Topology, mut send: impl FnMut(u64) + Send, (timeout, floor): (Timeout, u64)) {
    run("modprobe", &["nf_conntrack_netlink"]);
    let _table = Table::with(FOUND.max, FOUND.buckets);
    let (name, found) = (timeout.name(), timeouts()[&timeout]);
    let mut guard = Guard::start(POLICY);
    let mut open = Open::new(topology);
    calm(topology);
    assert_eq!((told()["load"].clone(), Settings::read().unwrap()), (Value::from("growth"), FOUND));

    let (begin, before, over) = (since_boot(), Statistics::read().unwrap(), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..LASTS * TIMES {
                send(RATE / TIMES);
                thread::sleep(Duration::from_secs(1) / u32::try_from(TIMES).unwrap());
            }
            over.store(true, Ordering::Relaxed);
        });
        // The log takes no CPU time from the guard, the status would.
        let told_of =
            || guard.log().contains("a flood: when it was noticed").then(|| since_boot().saturating_sub(begin));
        let took = eventually("the flood is named", Duration::from_secs(15), told_of);
        println!("{name}: named after {took:?}: {}", told()["load"]);
        assert!(took < NAMED, "named after {took:?}");
        eventually("its timeout is shortened", Duration::from_secs(5), || {
            (timeouts()[&timeout] == floor).then_some(())
        });
        while !over.load(Ordering::Relaxed) {
            open.go_on();
            // Those who come now get in as well.
            open.one_more();
            thread::sleep(Duration::from_millis(500));
            assert!(Settings::read().unwrap().max <= 2 * FOUND.max, "max is fed: {:?}", Settings::read().unwrap());
        }
    });
    open.go_on();
    let (status, dropped) = (told(), Statistics::read().unwrap().drops_since(&before));
    println!("{name}: {dropped:?}, {} of {:?}", conntrack::count().unwrap(), Settings::read().unwrap());
    let reasons: Vec<_> =
        status["held"].as_array().unwrap().iter().filter_map(|held| held["reason"].as_str()).collect();
    let words = format!("(mostly {name})");
    assert!(reasons.iter().any(|reason| reason.starts_with("a flood: ") && reason.contains(&words)), "{reasons:?}");
    assert!(dropped.evicted > RATE, "the flood did not fill the table: {dropped:?}");
    let changes = status["changes"].as_array().unwrap();
    let cut = changes.iter().filter(|change| change["rule"] == "shorten-timeout");
    assert_eq!(cut.map(|change| change["setting"].as_str().unwrap()).collect::<Vec<_>>(), [name]);

    conntrack::flush().unwrap();
    guard.signal(Signal::SIGTERM);
    let (code, log) = guard.end();
    assert_eq!((code, Settings::read().unwrap(), timeouts()[&timeout]), (Some(0), FOUND, found), "{log}");
}

#[test]
fn a_syn_flood_is_named_and_not_fed() {
    let topology = Topology::create().unwrap();
    let mut syns = Syns::unanswered(&topology).unwrap();
    is_named_and_not_fed(&topology, |count| syns.send(count).unwrap(), (Timeout::TcpSynSent, 30));
}

#[test]
fn a_syn_flood_that_the_server_answers_is_named_and_not_fed() {
    let topology = Topology::create().unwrap();
    let mut syns = Syns::answered(&topology).unwrap();
    is_named_and_not_fed(&topology, |count| syns.send(count).unwrap(), (Timeout::TcpSynRecv, 20));
}

#[test]
fn a_udp_scan_is_named_and_not_fed() {
    let topology = Topology::create().unwrap();
    let mut first = 0;
    let scan = |count| {
        Flows::one_way(first, count).send(&topology).unwrap();
        first += count;
    };
    is_named_and_not_fed(&topology, scan, (Timeout::Udp, 15));
}
