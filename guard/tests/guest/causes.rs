//! Every cause for which nf_conntrack drops something, all in one run, beside the kernel's own statistics.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd as _;
use std::process::Command;
use std::sync::Barrier;
use std::time::Duration;

use bench::conntrack::{self, Settings, Statistics};
use bench::netns::{SERVER, Topology};
use bench::udp::{Delivered, Flows};
use clap::ValueEnum as _;
use conntrack_guard::kernel::{BackEnd, Options};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket};

use crate::kernel::{Guard, Table, binary, eventually, insert_assured, told};

/// Packets with SYN and FIN, which no tracker accepts.
const INVALID: u64 = 20;
/// ICMP messages of a type that does not exist.
const ICMP_ERRORS: u64 = 15;
/// Longest wait for the status to tell what happened.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn without_hooks_the_statistics_tell_all_but_what_they_do_not_have() {
    every_cause(Options { back_end: Some(BackEnd::Proc), ..Options::default() });
}

/// The daemon's status after a run with all causes, against the statistics and against what was sent.
pub fn every_cause(options: Options) {
    let name = |value: clap::builder::PossibleValue| value.get_name().to_owned();
    let back_end = options.back_end.unwrap();
    let (walk, chosen) = (name(options.walk.to_possible_value().unwrap()), name(back_end.to_possible_value().unwrap()));
    let topology = Topology::create().unwrap();
    let _table = Table::with(262_144, 512);
    let arguments = ["--backend", &chosen, "--walk", &walk];
    let _guard = Guard::start_as("mode = \"advise\"\n", &mut Command::new(binary()), &arguments);
    eventually("the first tick", PATIENCE, || told()["uptime_ms"].as_u64().filter(|uptime| *uptime > 0));
    let before = Statistics::read().unwrap();
    let lost = provoke(&topology, &before);

    let now = Statistics::read().unwrap();
    let counted = |column| now.since(&before, column);
    let truth = now.drops_since(&before);
    println!("{truth:?}, {lost} packets did not arrive");
    let drops = eventually("the last drop is told", PATIENCE, || {
        let drops = told()["drops"].clone();
        (drops["drop"] == counted("drop") && drops["early_drop"] == counted("early_drop")).then_some(drops)
    });
    println!("{drops}");
    for (cause, statistic) in [
        ("chain_too_long", "chainlength"),
        ("early_drop", "early_drop"),
        ("invalid", "invalid"),
        ("icmp_error", "icmp_error"),
        ("clash_resolved", "clashres"),
        ("drop", "drop"),
        ("insert_failed", "insert_failed"),
    ] {
        assert_eq!(drops[cause], counted(statistic), "{cause}");
        assert_eq!(drops["sources"][cause], "statistics");
    }
    let by_hook = if back_end == BackEnd::Proc { "statistics" } else { back_end.name() };
    for (cause, truth) in [("table_full", truth.table_full), ("clash_lost", truth.clash_lost)] {
        assert!(truth > 0, "{cause}: not provoked");
        assert_eq!((&drops[cause], &drops["sources"][cause]), (&truth.into(), &by_hook.into()), "{cause}");
    }
    let estimated = told()["estimated"].as_array().unwrap().iter().any(|place| *place == "drops.table_full");
    assert_eq!(estimated, back_end == BackEnd::Proc);
    assert!(truth.evicted > 0);
    // Before 5.15 there is no limit, and no such column.
    assert_eq!(truth.chain_too_long > 0, now.has("chainlength"));
    assert_eq!(lost, truth.table_full + truth.chain_too_long, "what was dropped did not arrive");
    // 5.10 counts an ICMP error as invalid too.
    assert!([INVALID, INVALID + ICMP_ERRORS].contains(&counted("invalid")), "{}", counted("invalid"));
    assert_eq!(counted("icmp_error"), ICMP_ERRORS);
    if back_end != BackEnd::Proc {
        let made_room = told()["counted"]["made_room"].as_u64().unwrap();
        assert!((1..=truth.evicted).contains(&made_room), "one call evicts one entry or more: {made_room}");
    }
}

/// One after another; answers how many of the UDP packets did not arrive.
fn provoke(topology: &Topology, before: &Statistics) -> u64 {
    const MAX: u64 = 2_000;
    // 47 entries a chain: kernels that limit chains refuse those longer than 50 and a random number up to 30.
    let mut lost = missing(Flows::one_way(0, 12_000).send(topology).unwrap());
    conntrack::flush().unwrap();
    Settings { max: 262_144, buckets: 16_384 }.write().unwrap();
    lose_a_clash(before);
    send_from(topology, SockProtocol::Tcp, INVALID, |n| tcp(1_000 + n, 9, SYN | FIN));
    send_from(topology, SockProtocol::Icmp, ICMP_ERRORS, |_| [&[40_u8][..], &[0; 19]].concat());
    conntrack::flush().unwrap();
    // Half of the table may be evicted, then nothing in it.
    Settings { max: MAX, buckets: 1_024 }.write().unwrap();
    insert_assured(0..1_000);
    lost += missing(Flows::one_way(0, 1_500).send(topology).unwrap());
    Settings { max: 8_000, buckets: 1_024 }.write().unwrap();
    insert_assured(1_000..4_000);
    Settings { max: MAX, buckets: 1_024 }.write().unwrap();
    lost + missing(Flows::one_way(10_000, 3_000).send(topology).unwrap())
}

fn missing(delivered: Delivered) -> u64 {
    delivered.sent - delivered.arrived
}

const FIN: u8 = 1;
const SYN: u8 = 2;

/// A TCP header with a checksum of 0: the tracker looks at checksums only in packets that come in, the receiver drops it.
fn tcp(source: u16, destination: u16, flags: u8) -> Vec<u8> {
    let ports = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    [&ports[..], &[0, 0, 0, 1, 0, 0, 0, 0, 5 << 4, flags, 0x20, 0, 0, 0, 0, 0]].concat()
}

/// Two threads send the first segment of the same TCP connections until both see no entry once: the second to be
/// confirmed then loses, because for TCP there is nothing to resolve.
pub fn lose_a_clash(before: &Statistics) {
    let mut source = 1_000;
    eventually("a clash is lost", Duration::from_mins(1), || {
        source += 1;
        let start = Barrier::new(2);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let socket = raw(SockProtocol::Tcp);
                    start.wait();
                    for port in 20_000..24_000 {
                        // A packet that is dropped on its way out is an error to the sender.
                        let _ = send_to(&socket, Ipv4Addr::LOCALHOST, &tcp(source, port, SYN));
                    }
                });
            }
        });
        (Statistics::read().unwrap().drops_since(before).clash_lost > 0).then_some(())
    });
}

/// From the clients through this namespace to the servers.
pub fn send_from(topology: &Topology, protocol: SockProtocol, count: u64, packet: fn(u16) -> Vec<u8>) {
    let send = || {
        let socket = raw(protocol);
        for n in 0..u16::try_from(count).unwrap() {
            send_to(&socket, SERVER, &packet(n)).unwrap();
        }
    };
    topology.clients().run(send).unwrap();
}

fn raw(protocol: SockProtocol) -> std::os::fd::OwnedFd {
    socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol).unwrap()
}

fn send_to(socket: &std::os::fd::OwnedFd, to: Ipv4Addr, packet: &[u8]) -> nix::Result<usize> {
    sendto(socket.as_raw_fd(), packet, &SockaddrIn::from(SocketAddrV4::new(to, 0)), MsgFlags::empty())
}
