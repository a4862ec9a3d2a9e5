//! Entries that ended, by the timeout that ended them.

use crate::observe::{Census, Destroys, Timeout};

/// One figure for each timeout, in the order of [`Timeout::ALL`].
pub(super) type PerTimeout = [f64; Timeout::ALL.len()];

/// Entries that ended between two samples because their timeout ran out.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Ends {
    /// Not ASSURED.
    pub(super) unassured: PerTimeout,
    /// ASSURED.
    pub(super) assured: PerTimeout,
}

/// The share of ICMPv6 in what the hook counts as ICMP, 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Icmp {
    v6: f64,
}

impl Icmp {
    /// As the census has it; without one all is ICMP, whose timeout is the same as found.
    pub(super) fn of(census: Option<&Census>) -> Self {
        let entries = |timeout| census.and_then(|census| census.by.get(&timeout)).map_or(0, |state| state.entries);
        let (v4, v6) = (entries(Timeout::Icmp) as f64, entries(Timeout::Icmpv6) as f64);
        Self { v6: if v6 > 0.0 { v6 / (v4 + v6) } else { 0.0 } }
    }
}

impl Ends {
    /// What was freed in between; `None` when a counter went backwards.
    ///
    /// The last state tells the timeout: an entry that ends had no packet since it entered that state or was last
    /// refreshed in it. Not told apart are the retransmission timeouts, which shorten a connection's time in whatever
    /// state it is, and GRE, which is counted with the protocols that have no tracker.
    pub(super) fn between(before: &Destroys, after: &Destroys, icmp: Icmp) -> Option<Self> {
        let mut ends = Self::default();
        for (state, (before, after)) in before.tcp.iter().zip(&after.tcp).enumerate() {
            let freed = difference(before, after)?;
            if let Some(timeout) = tcp_timeout(state) {
                ends.add(timeout, freed, 1.0);
            }
        }
        // Since Linux 5.0 a UDP flow becomes ASSURED when it becomes a stream.
        let [once, stream] = difference(&before.udp, &after.udp)?;
        ends.add(Timeout::Udp, [once, 0.0], 1.0);
        ends.add(Timeout::UdpStream, [0.0, stream], 1.0);
        let freed = difference(&before.icmp, &after.icmp)?;
        ends.add(Timeout::Icmp, freed, 1.0 - icmp.v6);
        ends.add(Timeout::Icmpv6, freed, icmp.v6);
        ends.add(Timeout::Generic, difference(&before.other, &after.other)?, 1.0);
        Some(ends)
    }

    /// Takes off what `early_drop` evicted: it evicts what is not ASSURED, in whatever state.
    pub(super) fn less_evicted(mut self, evicted: f64) -> Self {
        let all: f64 = self.unassured.iter().sum();
        if all > 0.0 {
            let left = (1.0 - evicted / all).max(0.0);
            for ends in &mut self.unassured {
                *ends *= left;
            }
        }
        self
    }

    /// ASSURED or not.
    pub(super) fn of(&self, timeout: Timeout) -> f64 {
        self.unassured[timeout as usize] + self.assured[timeout as usize]
    }

    fn add(&mut self, timeout: Timeout, [unassured, assured]: [f64; 2], share: f64) {
        self.unassured[timeout as usize] += unassured * share;
        self.assured[timeout as usize] += assured * share;
    }
}

fn difference(before: &[u64; 2], after: &[u64; 2]) -> Option<[f64; 2]> {
    Some([after[0].checked_sub(before[0])? as f64, after[1].checked_sub(before[1])? as f64])
}

/// `enum tcp_conntrack` (nf_conntrack_tcp.h). `None`: no packet set the state (ctnetlink made the entry without one).
fn tcp_timeout(state: usize) -> Option<Timeout> {
    Some(match state {
        // SYN_SENT2, a simultaneous open, has no sysctl; its two minutes are those of SYN_SENT.
        1 | 9 => Timeout::TcpSynSent,
        2 => Timeout::TcpSynRecv,
        3 => Timeout::TcpEstablished,
        4 => Timeout::TcpFinWait,
        5 => Timeout::TcpCloseWait,
        6 => Timeout::TcpLastAck,
        7 => Timeout::TcpTimeWait,
        8 => Timeout::TcpClose,
        _ => return None,
    })
}
