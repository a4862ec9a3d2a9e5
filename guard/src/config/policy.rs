//! The operator's policy, as the rest of the guard sees it: typed, complete, valid.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::observe::Timeout;

/// What the guard may do, and within which bounds. `Policy::default()` is the policy of a host without a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Whether plans are carried out.
    pub mode: Mode,
    /// `[table]`: the table's size.
    pub table: Table,
    /// `[hash]`: the hash table's buckets.
    pub hash: Hash,
    /// `[timeouts]`: how far timeouts may be shortened.
    pub timeouts: Timeouts,
    /// `[relax]`: when changes are taken back.
    pub relax: Relax,
    /// `[flood]`: what passes for a flood.
    pub flood: Flood,
    /// `[stop]`: what a stop puts back.
    pub stop: Stop,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            mode: Mode::Enforce,
            table: Table {
                max: Bounds::default(),
                memory_limit: MemoryLimit::Percent(10.0),
                high_water: 0.80,
                horizon: Duration::from_secs(10),
            },
            hash: Hash { buckets: Bounds::default(), max_stall: Duration::from_millis(20), resize_window: None },
            timeouts: Timeouts { shorten: true, floors: BTreeMap::new() },
            relax: Relax { after: Duration::from_mins(10) },
            flood: Flood { detect: true, unreplied: 0.5 },
            stop: Stop { restore: Restore::WhenSafe },
        }
    }
}

/// `mode`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Decide and act.
    Enforce,
    /// Decide and report, change nothing.
    Advise,
    /// Observe and report only.
    Off,
}

impl Mode {
    /// As written in a file.
    pub(super) const WORDS: [(&'static str, Self); 3] =
        [("enforce", Self::Enforce), ("advise", Self::Advise), ("off", Self::Off)];

    /// As written in a file.
    pub fn name(self) -> &'static str {
        name(&self, &Self::WORDS)
    }
}

fn name<T: PartialEq>(value: &T, words: &[(&'static str, T)]) -> &'static str {
    words.iter().find(|(_, meaning)| meaning == value).map_or("", |(word, _)| word)
}

/// `[table]`
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// `max`: what `nf_conntrack_max` may be set to, entries, 1 to 2147483647. No floor: the value found at start. No
    /// ceiling: 4194304, or the floor or the value found at start if that is larger.
    pub max: Bounds,
    /// `memory-limit`: what entries at max and buckets may take together.
    pub memory_limit: MemoryLimit,
    /// `high-water`: the share of max that the forecast may reach, 0.1 to 0.99.
    pub high_water: f64,
    /// `horizon`: how far ahead the forecast looks, 1 s to 10 min.
    pub horizon: Duration,
}

/// `[hash]`
#[derive(Clone, Debug, PartialEq)]
pub struct Hash {
    /// `buckets`: what `nf_conntrack_buckets` may be set to, 1 to 536870911. No floor: the value found at start. No
    /// ceiling: 4194304, or the floor or the value found at start if that is larger.
    pub buckets: Bounds,
    /// `max-stall`: the longest estimated stall of a resize, at start too, 0 to 10 s.
    pub max_stall: Duration,
    /// `resize-window`: hours of the day (UTC) in which a resize may stall longer than `max-stall`, when the chains cost
    /// more than it does. None: never.
    pub resize_window: Option<Window>,
}

/// Hours of the day, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Since midnight.
    pub from: Duration,
    /// Since midnight; before `from` means on the next day.
    pub to: Duration,
}

impl Window {
    /// Whether this time since midnight is inside.
    pub fn contains(&self, time_of_day: Duration) -> bool {
        if self.from <= self.to {
            (self.from..self.to).contains(&time_of_day)
        } else {
            time_of_day >= self.from || time_of_day < self.to
        }
    }
}

/// `[timeouts]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// `shorten`: whether timeouts may be shortened at all.
    pub shorten: bool,
    /// `[timeouts.NAME] floor`: the shortest the guard may choose, seconds, 1 to 2073600; of those that are not as they
    /// would be without a word from the operator.
    pub floors: BTreeMap<Timeout, u64>,
}

impl Timeouts {
    /// The shortest that this timeout may be set to, seconds: the operator's, or one that does the least harm.
    pub fn floor(&self, timeout: Timeout) -> u64 {
        self.floors.get(&timeout).copied().unwrap_or_else(|| Self::default_floor(timeout))
    }

    /// Sets the floor, seconds.
    pub fn set_floor(&mut self, timeout: Timeout, floor: u64) {
        if floor == Self::default_floor(timeout) {
            self.floors.remove(&timeout);
        } else {
            self.floors.insert(timeout, floor);
        }
    }

    /// The floor without a word from the operator, seconds. Where it is what the kernel starts with, the timeout is left
    /// alone.
    pub fn default_floor(timeout: Timeout) -> u64 {
        match timeout {
            // Not ASSURED: early_drop evicts them anyway. SYNs are retransmitted after 1, 3, 7 and 15 s.
            // A NATed port may be used again while the far end still is in TIME_WAIT.
            Timeout::TcpSynSent | Timeout::TcpTimeWait => 30,
            Timeout::TcpSynRecv => 20,
            // RFC 5382 asks for 2 h 4 min; the longest of Linux's keepalive is 2 h and 9 × 75 s.
            Timeout::TcpEstablished => 7_875,
            Timeout::TcpFinWait => 45,
            // DNS clients try again after 5 s and give up after 15.
            Timeout::TcpLastAck | Timeout::Udp => 15,
            Timeout::TcpClose => 5,
            Timeout::TcpMaxRetrans | Timeout::TcpUnacknowledged => 120,
            Timeout::Icmp | Timeout::Icmpv6 => 10,
            // An early end breaks the FIN of SNATed flows; RFC 4787 asks for 2 min; tunnels have no end to see.
            Timeout::TcpCloseWait | Timeout::UdpStream | Timeout::Generic | Timeout::Gre | Timeout::GreStream => {
                timeout.kernel_default()
            }
        }
    }
}

/// `[relax]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relax {
    /// `after`: how long it must have been calm before a step back, 1 min to 7 days.
    pub after: Duration,
}

/// `[flood]`
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Flood {
    /// `detect`: whether a flood is told from growth, and max does not rise for it. Without it every load is growth.
    pub detect: bool,
    /// `unreplied`: the share without a reply, of what comes on top of calm, from which on a surge may be a flood, 0.5 to 1.
    pub unreplied: f64,
}

/// `[stop]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// `restore`: what is put back when the guard stops.
    pub restore: Restore,
}

/// `stop.restore`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restore {
    /// What can come back without a flow refused or a stall beyond `hash.max-stall`; `conntrack-guard restore` or the next
    /// start does the rest.
    WhenSafe,
    /// Nothing: the next guard takes over. For rolling updates.
    Keep,
    /// Everything at once, whatever it costs but a flow: max never goes below what is in use.
    Now,
}

impl Restore {
    /// As written in a file.
    pub(super) const WORDS: [(&'static str, Self); 3] =
        [("when-safe", Self::WhenSafe), ("keep", Self::Keep), ("now", Self::Now)];

    /// As written in a file.
    pub fn name(self) -> &'static str {
        name(&self, &Self::WORDS)
    }
}

/// Bounds of a setting; `None` where the operator set none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Lowest value the guard may choose.
    pub floor: Option<u64>,
    /// Highest value the guard may choose.
    pub ceiling: Option<u64>,
}

/// `table.memory-limit`
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MemoryLimit {
    /// A share of the host's memory, 0.1 to 90 %.
    Percent(f64),
    /// Bytes, 1 MiB to 1 PiB.
    Bytes(u64),
}
