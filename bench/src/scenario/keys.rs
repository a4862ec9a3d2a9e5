//! Every key of a scenario file: its range, default and meaning in one place. The parser and docs/bench.md are made from this
//! table.

use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::netns::MAX_SOURCES;

/// Most that a load may start a second, whatever it sends.
pub(super) const HIGHEST_RATE: f64 = 50_000.0;
const RATE: RangeInclusive<f64> = 0.0..=HIGHEST_RATE;
const DURATION: RangeInclusive<Duration> = Duration::from_millis(100)..=LONGEST;
const TIME: RangeInclusive<Duration> = Duration::ZERO..=LONGEST;
const LONGEST: Duration = Duration::from_hours(24);

/// Entries before the load; each takes some 400 bytes of the kernel's memory.
const MOST_ENTRIES: u64 = 4_000_000;

/// A key and its value.
#[derive(Debug)]
pub(super) struct Key {
    /// With the tables it stands in, such as `load.rate.peak`.
    pub name: &'static str,
    /// The kinds of load, or of topology, that have it; all where empty.
    pub kinds: &'static [&'static str],
    /// What it may be.
    pub value: Value,
    /// As TOML; empty where there is none.
    pub default: &'static str,
    /// What holds where the file does not say and `default` is empty; empty as well: it must be there.
    pub open: &'static str,
    /// What it does, as one line of Markdown.
    pub meaning: &'static str,
}

/// The type of a value, with its range.
#[derive(Debug)]
pub(super) enum Value {
    /// Up to so many characters.
    Text(usize),
    Integer(RangeInclusive<u64>),
    Number(RangeInclusive<f64>),
    Time(RangeInclusive<Duration>),
    Switch,
    Word(&'static [&'static str]),
    Rate,
    Points(RangeInclusive<usize>),
}

impl Value {
    /// The values that are taken, for people.
    pub fn range(&self) -> String {
        let time = |time: &Duration| humantime::format_duration(*time).to_string();
        match self {
            Self::Text(longest) => format!("up to {longest} characters"),
            Self::Integer(range) => format!("integer, {} to {}", range.start(), range.end()),
            Self::Number(range) => format!("number, {} to {}", range.start(), range.end()),
            Self::Time(range) => format!("time, {} to {}", time(range.start()), time(range.end())),
            Self::Switch => "true or false".to_owned(),
            Self::Word(words) => words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", "),
            Self::Rate => format!("number above 0 and up to {HIGHEST_RATE}, or a table"),
            Self::Points(range) => format!("{} to {} pairs of a time and a rate", range.start(), range.end()),
        }
    }

    /// What to give instead of a value that was refused.
    pub fn wanted(&self) -> String {
        let range = self.range();
        match self {
            Self::Text(_) => format!("give a text, {range}"),
            Self::Integer(_) | Self::Number(_) => {
                format!("give a{} {range}", if range.starts_with('i') { "n" } else { "" })
            }
            Self::Time(_) => format!("give a {range}, with its unit, such as \"30s\""),
            Self::Switch => format!("give {range}"),
            Self::Word(_) => format!("give one of {range}"),
            Self::Rate => "give a number of new ones a second above 0 and up to 50000, or a table such as \
                           { base = 200, peak = 2000, after = \"20s\", for = \"10s\" }"
                .to_owned(),
            Self::Points(_) => format!("give {range}, such as [[\"0s\", 100], [\"30s\", 800]]"),
        }
    }
}

/// All keys as a table in Markdown, for docs/bench.md.
pub fn reference() -> String {
    let mut text = "| key | of kinds | value | default | what it does |\n|---|---|---|---|---|\n".to_owned();
    for key in KEYS {
        // What stands in the table `rate` goes with it.
        let kinds = if key.name.starts_with("load.rate.") { OWN } else { key.kinds };
        let kinds = if key.name.starts_with("load.") && kinds.is_empty() { "all".to_owned() } else { kinds.join(", ") };
        let default = match (key.default, key.open) {
            ("", "") => "must be there".to_owned(),
            ("", open) => open.to_owned(),
            (default, _) => format!("`{default}`"),
        };
        let range = key.value.range().replace('"', "`");
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| `{}` | {kinds} | {range} | {default} | {} |", key.name, key.meaning);
    }
    text
}

/// The key of this name.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

const PACED: &[&str] = &["tcp"];
const CLIENTS: &[&str] = &["tcp", "wrk"];
/// All whose traffic this program makes itself.
const OWN: &[&str] = &["tcp", "udp", "dns", "syn", "scan"];

/// In the order in which a file is best written.
pub(super) const KEYS: &[Key] = &[
    Key {
        name: "name",
        kinds: &[],
        value: Value::Text(60),
        default: "",
        open: "the file's name",
        meaning: "What the scenario is called in results.",
    },
    Key {
        name: "about",
        kinds: &[],
        value: Value::Text(300),
        default: "\"\"",
        open: "",
        meaning: "What it is for, for people.",
    },
    Key {
        name: "seed",
        kinds: &[],
        value: Value::Integer(0..=i64::MAX as u64),
        default: "1",
        open: "",
        meaning: "The same seed gives the same times and addresses. Each load has its own sequence, made from it.",
    },
    Key {
        name: "duration",
        kinds: &[],
        value: Value::Time(DURATION),
        default: "",
        open: "",
        meaning: "For how long loads start anything. What is open then still ends by itself, 8 s later at most.",
    },
    Key {
        name: "topology.ip",
        kinds: &[],
        value: Value::Word(&["ipv4", "ipv6"]),
        default: "\"ipv4\"",
        open: "",
        meaning: "Which IP all loads speak.",
    },
    Key {
        name: "topology.kind",
        kinds: &[],
        value: Value::Word(&["gateway", "host", "ipvs", "haproxy"]),
        default: "\"gateway\"",
        open: "",
        meaning: "How what clients send reaches the servers; see below.",
    },
    Key {
        name: "topology.nat",
        kinds: &["gateway"],
        value: Value::Switch,
        default: "false",
        open: "",
        meaning: "Whether the gateway translates addresses: clients send to one address of the service, which nftables turns \
                  into one of 16 servers (DNAT), and servers see the gateway's address alone (masquerade).",
    },
    Key {
        name: "topology.conntrack",
        kinds: &["ipvs"],
        value: Value::Switch,
        default: "false",
        open: "",
        meaning: "The sysctl `net.ipv4.vs.conntrack`: whether conntrack keeps entries of what IPVS balances.",
    },
    Key {
        name: "table.entries",
        kinds: &[],
        value: Value::Integer(0..=MOST_ENTRIES),
        default: "0",
        open: "",
        meaning: "Established TCP entries (IPv4) that stand in the gateway's table before the load begins and stay: max must be \
                  higher. They are removed at the end; those of a killed run go after a day.",
    },
    Key {
        name: "load.kind",
        kinds: &[],
        value: Value::Word(&["tcp", "udp", "dns", "syn", "scan", "wrk"]),
        default: "",
        open: "",
        meaning: "What the load sends; see below.",
    },
    Key {
        name: "load.name",
        kinds: &[],
        value: Value::Text(60),
        default: "",
        open: "its kind",
        meaning: "What the load is called in results.",
    },
    Key {
        name: "load.start",
        kinds: &[],
        value: Value::Time(TIME),
        default: "\"0s\"",
        open: "",
        meaning: "When it starts, after the start of the scenario.",
    },
    Key {
        name: "load.duration",
        kinds: &[],
        value: Value::Time(DURATION),
        default: "",
        open: "to the end of the scenario",
        meaning: "For how long it goes on.",
    },
    Key {
        name: "load.sources",
        kinds: OWN,
        value: Value::Integer(1..=MAX_SOURCES as u64),
        default: "4096",
        open: "",
        meaning: "Client addresses that it uses.",
    },
    Key {
        name: "load.rate",
        kinds: OWN,
        value: Value::Rate,
        default: "",
        open: "",
        meaning: "New connections, flows or packets a second, on average: they come as those of many who know nothing of \
                  each other (a Poisson process), whatever becomes of earlier ones (open loop). A table for a rate that \
                  changes: with `from` and `to` it is a ramp, with `base` a burst, with `points` a wave.",
    },
    Key {
        name: "load.rate.from",
        kinds: &[],
        value: Value::Number(RATE),
        default: "",
        open: "",
        meaning: "Of a ramp: where it begins.",
    },
    Key {
        name: "load.rate.to",
        kinds: &[],
        value: Value::Number(RATE),
        default: "",
        open: "",
        meaning: "Of a ramp: where it is when the load ends.",
    },
    Key {
        name: "load.rate.base",
        kinds: &[],
        value: Value::Number(RATE),
        default: "0",
        open: "",
        meaning: "Of a burst: the rate before and after it.",
    },
    Key {
        name: "load.rate.peak",
        kinds: &[],
        value: Value::Number(RATE),
        default: "",
        open: "",
        meaning: "Of a burst: the rate while it lasts.",
    },
    Key {
        name: "load.rate.after",
        kinds: &[],
        value: Value::Time(TIME),
        default: "",
        open: "",
        meaning: "Of a burst: when it begins, after the load's start.",
    },
    Key {
        name: "load.rate.for",
        kinds: &[],
        value: Value::Time(DURATION),
        default: "",
        open: "",
        meaning: "Of a burst: how long it lasts.",
    },
    Key {
        name: "load.rate.points",
        kinds: &[],
        value: Value::Points(2..=1_000),
        default: "",
        open: "",
        meaning: "Of a wave: times after the load's start, none before the one in front of it, and the rates at them. Between two points \
                  the rate follows a straight line; two points at one time are a step.",
    },
    Key {
        name: "load.clients",
        kinds: CLIENTS,
        value: Value::Integer(1..=10_000),
        default: "",
        open: "`rate` is there",
        meaning: "In place of `rate`, and always with wrk: so many clients, each starting its next connection when its last \
                  has ended (closed loop).",
    },
    Key {
        name: "load.end",
        kinds: PACED,
        value: Value::Word(&["close", "reset", "half-closed"]),
        default: "\"close\"",
        open: "",
        meaning: "How connections end: `close` with a FIN from both sides (entries in TIME_WAIT); `reset` by the client's \
                  RST (CLOSE); `half-closed` with the client's FIN right after the reply and the server's not before `hold` \
                  is over (CLOSE_WAIT until then).",
    },
    Key {
        name: "load.hold",
        kinds: PACED,
        value: Value::Time(TIME),
        default: "\"0s\"",
        open: "",
        meaning: "How long a connection is kept open after its reply, idle; at most to the end of the load.",
    },
    Key {
        name: "load.every",
        kinds: PACED,
        value: Value::Time(DURATION),
        default: "",
        open: "idle while held",
        meaning: "A connection that is held sends a further request each so often, counted from its first reply; needs a longer \
                  `hold`. It is made once all of them are answered, and fails with the first that is not within 5 s.",
    },
    Key {
        name: "load.most",
        kinds: PACED,
        value: Value::Integer(1..=100_000),
        default: "8192",
        open: "",
        meaning: "Connections that may be open at a time. One that comes beyond is not tried and counts as failed (`too many \
                  open`). Each takes two files and some 10 kB of this machine.",
    },
    Key {
        name: "load.answered",
        kinds: &["udp", "syn"],
        value: Value::Switch,
        default: "true",
        open: "",
        meaning: "Whether the servers answer: datagrams with another, which makes an entry replied; SYNs with a SYN-ACK that \
                  nobody takes (SYN_RECV, else SYN_SENT).",
    },
    Key {
        name: "load.sockets",
        kinds: &["dns"],
        value: Value::Integer(1..=2_000),
        default: "64",
        open: "",
        meaning: "Source ports that the questions come from, taken at random. An address with a port is an entry; those that ask \
                  again in time keep it.",
    },
    Key {
        name: "load.protocol",
        kinds: &["scan"],
        value: Value::Word(&["tcp", "udp"]),
        default: "\"tcp\"",
        open: "",
        meaning: "What a scan sends: SYNs, whose resets end their entries at once, or datagrams, whose entries stay.",
    },
];
