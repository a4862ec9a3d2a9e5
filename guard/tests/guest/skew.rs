//! An attack on the hash, made for real: flows whose tuples hash together.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bench::conntrack::{self, Settings};
use serde_json::Value;

use crate::kernel::{Guard, Table, run, told};

/// Tuples to choose from.
const CANDIDATES: usize = 28_672;
/// One in so many of them attacks.
const SHARE: usize = 16;
/// The buckets under attack: so small a table that a sixteenth of it gets 28 flows a bucket, well below the 50 from which
/// on kernels refuse them.
const BUCKETS: u64 = 1_024;
/// Within this an attack must show.
const LIMIT: Duration = Duration::from_secs(10);

#[test]
fn flows_that_hash_together_show_within_ten_seconds_and_as_many_even_ones_do_not() {
    let _table = Table::with(262_144, 262_144);
    // The hash is keyed, but a dump goes through the buckets in their order, which is that of the hash: the first of a
    // large table are those that fall into the first buckets of a small one.
    insert(0..CANDIDATES);
    let by_hash = dump();
    assert_eq!(by_hash.len(), CANDIDATES);
    let attack: Vec<usize> = by_hash[..CANDIDATES / SHARE].to_vec();
    let even: Vec<usize> = by_hash.iter().step_by(SHARE).copied().collect();
    assert_eq!(attack.len(), even.len());

    conntrack::flush().unwrap();
    Settings { max: 262_144, buckets: BUCKETS }.write().unwrap();
    let all = chains_during(&even, |_| false);
    assert!(all.iter().all(|chains| chains["skew"].is_null()), "{all:?}");
    let measured = all.last().unwrap()["measured"].as_u64().unwrap();
    assert!(measured >= 2 * (even.len() as u64 / 64), "{measured} chains were measured");

    conntrack::flush().unwrap();
    let all = chains_during(&attack, |chains| !chains["skew"].is_null());
    let chains = all.last().unwrap();
    println!("{chains}");
    assert_eq!((&chains["one_in"], &chains["skew"]), (&64.into(), &"long-chains".into()), "{all:?}");
    let figure = |place: &str| chains[place].as_f64().unwrap();
    assert!(figure("mean") > 2.0 * figure("expected_mean") && figure("p99") > 2.0 * figure("expected_p99"), "{chains}");
}

/// What a guard tells of the chains while these flows come in, until it is enough or the time is up.
fn chains_during(flows: &[usize], enough: impl Fn(&Value) -> bool) -> Vec<Value> {
    let _guard = Guard::start("mode = \"advise\"\n");
    let began = Instant::now();
    insert(flows.iter().copied());
    let mut all = Vec::new();
    while began.elapsed() < LIMIT {
        let chains = told()["chains"].clone();
        if !chains.is_null() {
            all.push(chains);
            if enough(&all[all.len() - 1]) {
                println!("after {:?}", began.elapsed());
                break;
            }
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(!all.is_empty(), "no chain was measured in {LIMIT:?}");
    all
}

/// Inserts flows by their numbers, through ctnetlink, whose inserts take the same way through the hash as packets'.
fn insert(numbers: impl IntoIterator<Item = usize>) {
    let mut load = Command::new("conntrack").args(["-R", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = load.stdin.take().unwrap();
    for n in numbers {
        let (client, server) = (format!("10.96.{}.{}", n / 250, n % 250 + 1), "10.95.0.1");
        writeln!(
            input,
            "-I -p udp -s {client} -d {server} --sport 1000 --dport 53 -r {server} -q {client} --reply-port-src 53 \
             --reply-port-dst 1000 -t 600"
        )
        .unwrap();
    }
    drop(input);
    assert!(load.wait().unwrap().success());
}

/// The numbers of the flows in the table, in the order of their buckets.
fn dump() -> Vec<usize> {
    let number = |line: &str| {
        let client = line.split_whitespace().find_map(|word| word.strip_prefix("src="))?;
        let mut bytes = client.strip_prefix("10.96.")?.split('.').map(|byte| byte.parse::<usize>().unwrap());
        Some(bytes.next()? * 250 + bytes.next()? - 1)
    };
    run("conntrack", &["-L", "-p", "udp"]).lines().filter_map(number).collect()
}
