//! What a census tells of the entries that come: which timeouts they will end by, before the first of them has ended.

use super::{ALL, Cohorts};
use crate::model::reaping::planned_by;
use crate::model::states::all;
use crate::observe::{Census, Timeout};

/// Fewer entries of a kind than this in a census may be chance.
const FEWEST: u64 = 4;
/// Entries of a kind that are younger than this on average, seconds, may only be passing through their state: a handshake
/// or a close under way. What waits there for its end is older soon.
const YOUNGEST: f64 = 2.0;
/// Seconds that ctnetlink leaves off an entry's time, on average: it tells whole ones.
const PART_OF_A_SECOND: f64 = 0.5;
/// They are older than what came if they have so much less of their time left.
const OLDER: f64 = 0.1;
/// So many times what came may be found by chance.
const SLACK: f64 = 2.0;
/// As far as it is believed that the entries have other times left than the cohorts.
const LONGER: (f64, f64) = (0.5, 2.0);
/// So many times the rate at a look are others than were looked at, and so many a second are worth another look.
const OTHERS: f64 = 1.25;
const MANY: f64 = 50.0;

impl Cohorts {
    /// Takes in the last census of a table with so many entries, where there is a fresh one.
    pub(in crate::model) fn look(&mut self, census: Option<&Census>, count: u64) {
        let at = census.map(|census| census.at);
        if at == self.census_at {
            return;
        }
        self.census_at = at;
        self.looked_at = self.pace.rate();
        (self.found, self.passing) = ([0.0; ALL], [false; ALL]);
        self.left_longer = 1.0;
        let Some(census) = census else { return };
        if self.ahead.would_plan > 0.0 && census.by.values().any(|state| state.seconds_left > 0) {
            self.left_longer = (planned_by(census, count) / self.ahead.would_plan).clamp(LONGER.0, LONGER.1);
        }
        let each_stands_for = (count as f64 - self.ahead.dead).max(0.0) / (all(census) as f64).max(1.0);
        let mut seen = Vec::new();
        for (timeout, state) in census.by.iter().filter(|(_, state)| state.entries >= FEWEST) {
            let seconds_left = state.seconds_left as f64 / state.entries as f64 + PART_OF_A_SECOND;
            if self.eras.in_force()[*timeout as usize] - seconds_left < YOUNGEST {
                self.passing[*timeout as usize] = true;
                continue;
            }
            let shares = self.shares(*timeout, state.entries as f64 * each_stands_for, seconds_left);
            seen.extend(certainty(*timeout).zip(shares).map(|(certain, shares)| (*timeout, certain, shares)));
        }
        // Of what only waits it is certain how it ends; live flows may be among the others.
        let mut known: f64 = 0.0;
        for certain in [true, false] {
            for (timeout, _, (least, _)) in seen.iter().filter(|(_, other, _)| *other == certain) {
                let share = if certain { *least } else { least.min((1.0 - known).max(0.0)) };
                self.found[*timeout as usize] = share;
                known += share;
            }
        }
        if known > 1.0 {
            self.found.iter_mut().for_each(|found| *found /= known);
        }
        // What is missing came lately: it is of the kinds of which there are more than would be if they came evenly.
        let more =
            |(timeout, _, (_, most)): &(Timeout, bool, (f64, f64))| (most - self.found[*timeout as usize]).max(0.0);
        let all: f64 = seen.iter().map(more).sum();
        let part = ((1.0 - known).max(0.0) / all.max(1e-9)).min(1.0);
        let grow: Vec<_> = seen.iter().map(|one| (one.0, part * more(one))).collect();
        for (timeout, more) in grow {
            self.found[timeout as usize] += more;
        }
    }

    /// The share of what comes now that waits for this timeout, from how many a census found and the time that they have left
    /// on average: if they came evenly, and if they came as everything did.
    fn shares(&self, timeout: Timeout, there: f64, seconds_left: f64) -> Option<(f64, f64)> {
        let in_force = self.eras.in_force()[timeout as usize];
        let (changed, longest) = self.eras.last_change(timeout);
        let one_era = self.now - changed >= longest;
        let (mut came, mut left, mut since) = (0.0, 0.0, self.now);
        for cohort in self.arrivals.cohorts().rev() {
            let at = f64::midpoint(cohort.from, cohort.to);
            // Of what came under a shorter timeout, some is gone.
            let left_then = at + self.eras.stays(at, timeout) - self.now;
            if at < self.now - longest {
                break;
            }
            since = cohort.from;
            if left_then > 0.0 {
                came += cohort.came;
                left += cohort.came * left_then;
            }
            if one_era && self.now - since >= YOUNGEST && left <= seconds_left * came {
                break;
            }
        }
        let known_for = self.now - since;
        if known_for <= 0.0 || came <= 0.0 {
            return None;
        }
        // What came before all that is known may all be of this kind.
        let unknown = self.arrivals.since().is_none_or(|first| first >= since && self.now - first < longest);
        let before = if unknown { self.before.unwrap_or_default() } else { 0.0 };
        let as_all = ((there - before).max(0.0) / came).min(1.0);
        if !one_era {
            return (there <= SLACK * came + before).then_some((as_all, as_all));
        }
        // What comes evenly came within twice its mean age.
        let span = (2.0 * (in_force - seconds_left)).clamp(YOUNGEST, in_force.max(YOUNGEST));
        let (evenly, rate) = (there / span, self.pace.rate().max(1.0));
        // More than came: packets keep them alive, and when they will end is not known.
        let most = self.came_since(self.now - span).max(rate * YOUNGEST) / span.min(self.now).max(YOUNGEST);
        let evenly = (evenly <= SLACK * most || unknown).then_some(evenly.min(most) / rate)?;
        // Those that are older than what came lately did not come with it.
        let older = left / came - seconds_left > OLDER * in_force;
        Some((evenly, if older { evenly } else { as_all.max(evenly) }))
    }

    /// Entries that came since then.
    fn came_since(&self, since: f64) -> f64 {
        self.arrivals.cohorts().rev().take_while(|cohort| cohort.to > since).map(|cohort| cohort.came).sum()
    }

    /// Whether so many more come than at the last look at the entries that it says little of what comes now.
    pub(in crate::model) fn wants_look(&self) -> bool {
        self.census_at.is_some() && self.pace.rate() > OTHERS * self.looked_at.max(MANY)
    }
}

/// Whether it is certain that entries in this state only wait for its end: hardly one leaves it but by its timeout. `None`
/// where they are open connections, or no hook tells how they end.
fn certainty(timeout: Timeout) -> Option<bool> {
    use Timeout::{
        Generic, Gre, GreStream, Icmp, Icmpv6, TcpClose, TcpCloseWait, TcpEstablished, TcpFinWait, TcpLastAck,
        TcpMaxRetrans, TcpSynRecv, TcpSynSent, TcpTimeWait, TcpUnacknowledged, Udp, UdpStream,
    };
    match timeout {
        TcpSynSent | TcpSynRecv | TcpTimeWait | TcpClose | Udp | Icmp | Icmpv6 => Some(true),
        TcpFinWait | TcpCloseWait | TcpLastAck | UdpStream | Generic => Some(false),
        TcpEstablished | TcpMaxRetrans | TcpUnacknowledged | Gre | GreStream => None,
    }
}
