//! What an operator would run, by name, and the values that each sets before the load. Pure.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use bench::conntrack::Settings;
use serde::{Serialize, Serializer};

use crate::scale::{CORES, Scale};

/// One way of running the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alternative {
    /// Room far beyond what any load needs, else the kernel as it is: what the load itself makes of this machine.
    Ample,
    /// The kernel as it is.
    Stock,
    /// The values that the usual DaemonSet writes once.
    Static,
    /// max and buckets fixed at the guard's own ceilings: the honest rival.
    StaticCeiling,
    /// What kube-proxy of Kubernetes 1.`minor` writes at its start.
    KubeProxy {
        /// The minor version.
        minor: u32,
    },
    /// A job each minute that doubles max when the table is more than four fifths full.
    Cron,
    /// Oracle's bpftune, which tunes other sysctls than conntrack's.
    Bpftune,
    /// This project's daemon.
    Guard,
    /// The same, which only says what it would do.
    GuardAdvise,
}

/// What an alternative writes before the load: a file of /proc/sys/net/netfilter and its value.
pub(crate) type Write = (&'static str, u64);

/// max of the DaemonSet at the gateway, and how many entries it reckons for a bucket.
const STATIC_MAX: u64 = 524_288;
const STATIC_ENTRIES_A_BUCKET: u64 = 4;
/// kube-proxy's defaults: `--conntrack-max-per-core`, `--conntrack-min`, `--conntrack-tcp-timeout-established` (24 h) and
/// `--conntrack-tcp-timeout-close-wait` (1 h).
const MAX_PER_CORE: u64 = 32_768;
const MIN: u64 = 131_072;
const ESTABLISHED: u64 = 86_400;
const CLOSE_WAIT: u64 = 3_600;
/// The newest version whose formula is known here, and the first that is of use.
const NEWEST: u32 = 36;
const OLDEST: u32 = 20;
/// From this version on kube-proxy writes what differs; before, it only raised.
const WRITES_LOWER: u32 = 29;
/// From this version on it caps max and leaves the hash table alone.
const CAPS: u32 = 36;
const CAP: u64 = 1_048_576;

/// sysctls in /proc/sys/net/netfilter.
pub(crate) const MAX: &str = "nf_conntrack_max";
const BUCKETS: &str = "nf_conntrack_buckets";
const TCP_ESTABLISHED: &str = "nf_conntrack_tcp_timeout_established";
const TCP_CLOSE_WAIT: &str = "nf_conntrack_tcp_timeout_close_wait";

impl Alternative {
    /// All, in the order in which they are shown; kube-proxy in its newest version.
    pub const ALL: [Self; 9] = [
        Self::Ample,
        Self::Stock,
        Self::Static,
        Self::StaticCeiling,
        Self::KubeProxy { minor: NEWEST },
        Self::Cron,
        Self::Bpftune,
        Self::Guard,
        Self::GuardAdvise,
    ];

    /// Whether it is a program of this project.
    pub fn is_own(self) -> bool {
        matches!(self, Self::Guard | Self::GuardAdvise)
    }

    /// What it writes once, before the load, where the kernel has stock settings of this scale; `read` answers what a
    /// file holds now.
    pub fn writes(self, scale: Scale, read: &dyn Fn(&str) -> Option<u64>) -> Vec<Write> {
        match self {
            Self::Static => static_values(scale),
            Self::Ample => {
                let Settings { max, buckets } = scale.ample();
                vec![(MAX, max), (BUCKETS, buckets)]
            }
            Self::StaticCeiling => {
                let Settings { max, buckets } = scale.ceilings();
                vec![(MAX, max), (BUCKETS, buckets)]
            }
            Self::KubeProxy { minor } => kube_proxy(minor, scale, read),
            Self::Stock | Self::Cron | Self::Bpftune | Self::Guard | Self::GuardAdvise => Vec::new(),
        }
    }

    /// What it is, for the report.
    pub fn words(self) -> String {
        match self {
            Self::Ample => "the yardstick: max and buckets four times the guard's ceilings, the kernel's \
                            timeouts"
                .to_owned(),
            Self::Stock => "the kernel's own values, nothing else".to_owned(),
            Self::Static => "fixed: max twice stock, a bucket for four entries, TCP timeouts of established 1800 s, \
                             syn_sent and syn_recv 10 s, fin_wait and time_wait 30 s, icmp 10 s"
                .to_owned(),
            Self::StaticCeiling => "fixed: max and buckets at the guard's ceilings, the kernel's timeouts".to_owned(),
            Self::KubeProxy { minor } => format!(
                "what kube-proxy 1.{minor} writes at its start on {CORES} cores: max {MAX_PER_CORE} a core and at least \
                 {MIN} (before scaling), established 24 h, close_wait 1 h{}{}",
                if minor < WRITES_LOWER { ", each only where it is higher than what is there" } else { "" },
                if minor < CAPS { ", buckets a quarter of max where they are fewer" } else { "" }
            ),
            Self::Cron => "a job each minute: max doubled where the table is more than 80 % full, up to the guard's \
                           ceiling; when in the minute it runs shifts with the round"
                .to_owned(),
            Self::Bpftune => "Oracle's bpftune from Debian, with all its tuners; it has none for conntrack".to_owned(),
            Self::Guard => "conntrack-guard, bounds from stock to the ceilings, else its defaults".to_owned(),
            Self::GuardAdvise => "conntrack-guard in mode \"advise\": it decides and changes nothing".to_owned(),
        }
    }

    /// A list as users write it: names with commas between. None twice.
    pub fn list(text: &str) -> Result<Vec<Self>, String> {
        let mut all: Vec<Self> = Vec::new();
        for name in text.split(',').map(str::trim) {
            let one = name.parse()?;
            if all.contains(&one) {
                return Err(format!("`{one}` is there twice"));
            }
            all.push(one);
        }
        Ok(all)
    }
}

fn static_values(scale: Scale) -> Vec<Write> {
    let max = scale.scaled(STATIC_MAX);
    vec![
        (MAX, max),
        (BUCKETS, max / STATIC_ENTRIES_A_BUCKET),
        (TCP_ESTABLISHED, 1_800),
        ("nf_conntrack_tcp_timeout_syn_sent", 10),
        ("nf_conntrack_tcp_timeout_syn_recv", 10),
        ("nf_conntrack_tcp_timeout_fin_wait", 30),
        ("nf_conntrack_tcp_timeout_time_wait", 30),
        ("nf_conntrack_icmp_timeout", 10),
    ]
}

/// `getConntrackMax` and `realConntracker.SetMax` in cmd/kube-proxy/app of Kubernetes.
fn kube_proxy(minor: u32, scale: Scale, read: &dyn Fn(&str) -> Option<u64>) -> Vec<Write> {
    let max = (MAX_PER_CORE * CORES).max(MIN);
    let max = scale.scaled(if minor >= CAPS { max.min(CAP) } else { max });
    let wanted = [(MAX, max), (TCP_ESTABLISHED, ESTABLISHED), (TCP_CLOSE_WAIT, CLOSE_WAIT)];
    let writes = |&(name, value): &Write| {
        let now = read(name);
        if minor >= WRITES_LOWER { now != Some(value) } else { now.is_none_or(|now| now < value) }
    };
    let mut all: Vec<Write> = wanted.into_iter().filter(writes).collect();
    if minor < CAPS && read(BUCKETS).is_some_and(|buckets| buckets < max / 4) {
        all.push((BUCKETS, max / 4));
    }
    all
}

impl Display for Alternative {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Ample => "ample",
            Self::Stock => "stock",
            Self::Static => "static",
            Self::StaticCeiling => "static-ceiling",
            Self::KubeProxy { minor: NEWEST } => "kube-proxy",
            Self::KubeProxy { minor } => return write!(formatter, "kube-proxy-1.{minor}"),
            Self::Cron => "cron",
            Self::Bpftune => "bpftune",
            Self::Guard => "guard",
            Self::GuardAdvise => "guard-advise",
        };
        formatter.pad(name)
    }
}

impl Serialize for Alternative {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for Alternative {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        if let Some(one) = Self::ALL.into_iter().find(|one| one.to_string() == name) {
            return Ok(one);
        }
        if let Some(version) = name.strip_prefix("kube-proxy-1.") {
            let minor = version.parse().ok().filter(|minor| (OLDEST..=NEWEST).contains(minor));
            return minor.map(|minor| Self::KubeProxy { minor }).ok_or_else(|| {
                format!("`{name}`: the formula is known for kube-proxy-1.{OLDEST} to kube-proxy-1.{NEWEST}")
            });
        }
        let all: Vec<String> = Self::ALL.iter().map(ToString::to_string).collect();
        Err(format!(
            "there is no alternative `{name}`; there are {}, and kube-proxy-1.N for an older version",
            all.join(", ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stock(name: &str) -> Option<u64> {
        match name {
            MAX | BUCKETS => Some(8_192),
            TCP_ESTABLISHED => Some(432_000),
            TCP_CLOSE_WAIT => Some(60),
            _ => None,
        }
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for one in Alternative::ALL {
            assert_eq!(one.to_string().parse(), Ok(one));
        }
        assert_eq!("kube-proxy-1.28".parse(), Ok(Alternative::KubeProxy { minor: 28 }));
        assert_eq!("kube-proxy-1.36".parse(), Ok(Alternative::KubeProxy { minor: NEWEST }));
        assert_eq!(Alternative::list("stock, guard"), Ok(vec![Alternative::Stock, Alternative::Guard]));
    }

    #[test]
    fn a_bad_name_is_told_with_the_good_ones() {
        let refusal = Alternative::list("stock,gaurd").unwrap_err();
        assert!(refusal.contains("`gaurd`") && refusal.contains("static-ceiling"), "{refusal}");
        assert_eq!(Alternative::list("stock,stock").unwrap_err(), "`stock` is there twice");
        assert_eq!(Alternative::list("kube-proxy,kube-proxy-1.36").unwrap_err(), "`kube-proxy` is there twice");
        for bad in ["", "kube-proxy-1.37", "kube-proxy-1.x"] {
            assert!(Alternative::list(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn kube_proxy_raises_only_before_1_29_and_lowers_from_then_on() {
        let writes = |minor| Alternative::KubeProxy { minor }.writes(Scale::DEMO, &stock);
        // 8 cores of 32,768 each are what stock has on such a gateway.
        assert_eq!(writes(28), [(TCP_CLOSE_WAIT, 3_600)]);
        assert_eq!(writes(36), [(TCP_ESTABLISHED, 86_400), (TCP_CLOSE_WAIT, 3_600)]);
        let small = |name: &str| if name == BUCKETS { Some(1_024) } else { stock(name) };
        let writes = |minor| Alternative::KubeProxy { minor }.writes(Scale::DEMO, &small);
        assert!(writes(35).contains(&(BUCKETS, 2_048)));
        assert!(!writes(36).iter().any(|(name, _)| *name == BUCKETS));
        let large = |name: &str| if name == MAX { Some(65_536) } else { stock(name) };
        let lowers = |minor| Alternative::KubeProxy { minor }.writes(Scale::DEMO, &large).contains(&(MAX, 8_192));
        assert!(lowers(29) && !lowers(28));
    }

    #[test]
    fn fixed_values_follow_the_scale() {
        let value = |one: Alternative, name| {
            one.writes(Scale::DEMO, &stock).iter().find(|(of, _)| *of == name).map(|(_, value)| *value)
        };
        assert_eq!(value(Alternative::Static, MAX), Some(16_384));
        assert_eq!(value(Alternative::Static, BUCKETS), Some(4_096));
        assert_eq!(value(Alternative::Static, "nf_conntrack_tcp_timeout_time_wait"), Some(30));
        assert_eq!(value(Alternative::StaticCeiling, MAX), Some(131_072));
        assert_eq!(value(Alternative::Guard, MAX), None);
    }
}
