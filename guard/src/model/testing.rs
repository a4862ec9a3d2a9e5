//! A table made of numbers, for tests: flows of several kinds come, stay open, and end after their timeouts.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Estimate, Model};
use crate::observe::{
    Census, Destroys, HookTotals, Sample, StatTotals, Statistics, TableFull, TableReading, Timeout, Timeouts,
};

/// One kind of flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    /// What ends it.
    pub(super) timeout: Timeout,
    /// New ones a second.
    pub(super) rate: f64,
    /// How long packets flow before the timeout begins to run, seconds.
    pub(super) open: u64,
}

/// A kind whose flows are over at once.
pub(super) fn kind(timeout: Timeout, rate: f64) -> Kind {
    Kind { timeout, rate, open: 0 }
}

/// The table and the model that watches it, one tick a second.
pub(super) struct Toy {
    pub(super) model: Model,
    pub(super) timeouts: Timeouts,
    pub(super) kinds: Vec<Kind>,
    pub(super) sample: Sample,
    pub(super) hooked: bool,
    pub(super) counts_destroys: bool,
    /// Seconds between the sweeps that free what has expired; 1 frees it at once.
    pub(super) swept: u64,
    second: u64,
    /// By the second at which something happens to them: flows that go quiet, entries that end.
    quiet: BTreeMap<u64, BTreeMap<Timeout, u64>>,
    ends: BTreeMap<u64, BTreeMap<Timeout, u64>>,
    fractions: Vec<f64>,
}

impl Toy {
    pub(super) fn new(kinds: &[Kind]) -> Self {
        Self {
            model: Model::new(Duration::from_secs(10)),
            timeouts: Timeout::ALL.iter().map(|timeout| (*timeout, timeout.kernel_default())).collect(),
            kinds: kinds.to_vec(),
            sample: Sample {
                table: TableReading { max: 1 << 22, buckets: 1 << 20, count: 0 },
                hooks: Some(HookTotals {
                    inserts: Some(0),
                    destroys: Some(Destroys::default()),
                    table_full: Some(TableFull::default()),
                    ..HookTotals::default()
                }),
                entry_bytes: 320,
                ..Sample::default()
            },
            hooked: true,
            counts_destroys: true,
            swept: 1,
            second: 1_000,
            quiet: BTreeMap::new(),
            ends: BTreeMap::new(),
            fractions: vec![0.0; 64],
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.sample.table.count
    }

    /// One second passes, unseen.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rates of tests are small and positive")]
    pub(super) fn pass(&mut self) {
        self.second += 1;
        for (index, kind) in self.kinds.iter().enumerate() {
            let came = kind.rate + self.fractions[index];
            self.fractions[index] = came.fract();
            let came = came as u64;
            *self.quiet.entry(self.second + kind.open).or_default().entry(kind.timeout).or_default() += came;
            self.sample.table.count += came;
            if let Some(inserts) = &mut self.sample.hooks.as_mut().unwrap().inserts {
                *inserts += came;
            }
        }
        for (timeout, flows) in self.quiet.remove(&self.second).unwrap_or_default() {
            *self.ends.entry(self.second + self.timeouts[&timeout]).or_default().entry(timeout).or_default() += flows;
        }
        if self.second.is_multiple_of(self.swept) {
            let later = self.ends.split_off(&(self.second + 1));
            for (timeout, flows) in std::mem::replace(&mut self.ends, later).into_values().flatten() {
                self.free(timeout, flows);
            }
        }
    }

    fn free(&mut self, timeout: Timeout, flows: u64) {
        let destroys = self.sample.hooks.as_mut().unwrap().destroys.as_mut().unwrap();
        let fate = match timeout {
            Timeout::TcpSynSent => &mut destroys.tcp[1][0],
            Timeout::TcpSynRecv => &mut destroys.tcp[2][0],
            Timeout::TcpEstablished => &mut destroys.tcp[3][1],
            Timeout::TcpTimeWait => &mut destroys.tcp[7][1],
            Timeout::TcpClose => &mut destroys.tcp[8][1],
            Timeout::Udp => &mut destroys.udp[0],
            Timeout::UdpStream => &mut destroys.udp[1],
            Timeout::Icmp => &mut destroys.icmp[0],
            _ => &mut destroys.other[0],
        };
        *fate += flows;
        self.sample.table.count -= flows;
    }

    /// `conntrack -F`.
    pub(super) fn flush(&mut self) {
        for flows in std::mem::take(&mut self.ends).into_values().chain(std::mem::take(&mut self.quiet).into_values()) {
            for (timeout, flows) in flows {
                self.free(timeout, flows);
            }
        }
    }

    /// `early_drop` evicts so many datagrams' entries, the oldest first.
    pub(super) fn evict(&mut self, mut evicted: u64) {
        let before = self.sample.stats.totals().map_or(0, |totals| totals.early_drop);
        self.sample.stats = Statistics::Proc(StatTotals { early_drop: before + evicted, ..StatTotals::default() });
        let mut gone = 0;
        for flows in self.ends.values_mut().flat_map(BTreeMap::values_mut) {
            let some = evicted.min(*flows);
            *flows -= some;
            evicted -= some;
            gone += some;
        }
        self.free(Timeout::Udp, gone);
    }

    /// What the model makes of it now.
    pub(super) fn look(&mut self) -> Estimate {
        let mut sample = self.sample.clone();
        sample.at = Duration::from_secs(self.second);
        sample.timeouts = self.timeouts.clone();
        if !self.hooked {
            sample.hooks = None;
        }
        if let Some(hooks) = sample.hooks.as_mut().filter(|_| !self.counts_destroys) {
            hooks.destroys = None;
        }
        self.model.observe(&sample)
    }

    /// So many seconds, each looked at.
    pub(super) fn run(&mut self, seconds: u64) -> Estimate {
        for _ in 0..seconds {
            self.pass();
            self.look();
        }
        self.pass();
        self.look()
    }

    /// From now on samples carry this census, made now.
    pub(super) fn census(&mut self, census: Census) {
        self.sample.census = Some(Census { at: Duration::from_secs(self.second), ..census });
    }

    /// The outlook after so many seconds now, and what came of it.
    pub(super) fn hold(&mut self, estimate: &Estimate, seconds: u64) -> (u64, u64) {
        let after = Duration::from_secs(seconds);
        let expected = estimate.outlook.count(after, &self.timeouts, self.sample.table.max);
        for _ in 0..seconds {
            self.pass();
            self.look();
        }
        (expected, self.count())
    }
}

/// |expected − real| / max(real, 1).
pub(super) fn error((expected, real): (u64, u64)) -> f64 {
    expected.abs_diff(real) as f64 / real.max(1) as f64
}
