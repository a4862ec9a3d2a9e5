//! What the hooks and the kernel's statistics count.

use conntrack_guard::observe::{CHAIN_LENGTHS, Chains, Clashes, Destroys, HookTotals, StatTotals, TableFull, Timeout};

use super::cohorts::Freed;

/// One insert in so many has its chains measured.
const WALKED: f64 = 64.0;

/// Sums since the beginning. Real numbers, read as whole ones.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Entries put into the table.
    pub inserts: f64,
    /// New flows refused for a full table.
    pub refused: f64,
    /// New flows refused for want of memory.
    pub no_memory: f64,
    /// New flows refused for a chain that was too long.
    pub too_long: f64,
    /// Entries evicted.
    pub evicted: f64,
    /// Entries that expired although their flow had more packets to send.
    pub broken: f64,
    made_room: f64,
    clashes_lost: f64,
    clashes_resolved: f64,
    tcp: [[f64; 2]; 16],
    udp: [f64; 2],
    icmp: [f64; 2],
    other: [f64; 2],
    chains: Vec<f64>,
}

impl Counters {
    /// Every new flow that was dropped, whatever for.
    pub fn dropped(&self) -> f64 {
        self.refused + self.no_memory + self.too_long
    }

    pub fn inserted(&mut self, count: f64) {
        self.inserts += count;
    }

    pub fn evicted(&mut self, entries: Freed, calls: f64) {
        self.evicted += entries.iter().map(|(_, _, count)| count).sum::<f64>();
        self.made_room += calls;
        self.destroyed(entries);
    }

    /// Every other clash is lost.
    pub fn clashed(&mut self, clashes: f64) {
        self.clashes_lost += clashes / 2.0;
        self.clashes_resolved += clashes / 2.0;
    }

    pub fn destroyed(&mut self, entries: Freed) {
        for (state, assured, count) in entries {
            self.place(state)[usize::from(assured)] += count;
        }
    }

    /// By `enum tcp_conntrack`.
    fn place(&mut self, state: Timeout) -> &mut [f64; 2] {
        match state {
            Timeout::TcpSynSent => &mut self.tcp[1],
            Timeout::TcpSynRecv => &mut self.tcp[2],
            Timeout::TcpEstablished | Timeout::TcpMaxRetrans | Timeout::TcpUnacknowledged => &mut self.tcp[3],
            Timeout::TcpFinWait => &mut self.tcp[4],
            Timeout::TcpCloseWait => &mut self.tcp[5],
            Timeout::TcpLastAck => &mut self.tcp[6],
            Timeout::TcpTimeWait => &mut self.tcp[7],
            Timeout::TcpClose => &mut self.tcp[8],
            Timeout::Udp | Timeout::UdpStream => &mut self.udp,
            Timeout::Icmp | Timeout::Icmpv6 => &mut self.icmp,
            Timeout::Generic | Timeout::Gre | Timeout::GreStream => &mut self.other,
        }
    }

    /// So many inserts met chains of this mean length: Poisson, as an even hash makes them.
    pub fn chained(&mut self, inserts: f64, mean: f64) {
        self.chains.resize(CHAIN_LENGTHS, 0.0);
        let (mut chance, mut rest) = ((-mean).exp(), inserts / WALKED);
        for (length, chains) in self.chains.iter_mut().enumerate() {
            let here = (inserts / WALKED * chance).min(rest);
            *chains += here;
            rest -= here;
            if rest < 1e-12 {
                return;
            }
            chance *= mean / (length + 1) as f64;
        }
        self.chains[CHAIN_LENGTHS - 1] += rest;
    }

    /// As the programs would have it.
    pub fn hooks(&self) -> HookTotals {
        let chains: Vec<u64> = self.chains.iter().copied().map(whole).collect();
        HookTotals {
            inserts: Some(whole(self.inserts)),
            destroys: Some(Destroys {
                tcp: self.tcp.map(|state| state.map(whole)),
                udp: self.udp.map(whole),
                icmp: self.icmp.map(whole),
                other: self.other.map(whole),
                reply_only: 0,
            }),
            table_full: Some(TableFull { refused: whole(self.refused), made_room: whole(self.made_room) }),
            clashes: Some(Clashes {
                lost: whole(self.clashes_lost),
                resolved: whole(self.clashes_resolved),
                reply_only: Some(0),
            }),
            chains: Some(Chains { one_in: 64, original: chains.clone(), reply: chains }),
            ..HookTotals::default()
        }
    }

    /// As the kernel counts: a clash lost is a drop and a failed insert, a chain too long only the latter.
    pub fn stats(&self) -> StatTotals {
        StatTotals {
            drop: whole(self.refused + self.no_memory + self.clashes_lost),
            early_drop: whole(self.evicted),
            insert_failed: whole(self.clashes_lost + self.too_long),
            chain_too_long: whole(self.too_long),
            ..StatTotals::default()
        }
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts are positive, and `as` saturates")]
fn whole(count: f64) -> u64 {
    count as u64
}
