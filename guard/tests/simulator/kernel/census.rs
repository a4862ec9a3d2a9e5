//! A look at some of the entries, with the chance that there is in looking at some only.

use std::time::Duration;

use conntrack_guard::observe::{Census, InState, Timeout};

use super::Kernel;

impl Kernel {
    /// Looks at as many entries as a census may.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts are small and positive")]
    pub fn census(&mut self, at: Duration) -> Census {
        let live = self.entries.live();
        let whole = live <= self.machine.census;
        let part = if whole { 1.0 } else { self.machine.census / live };
        let left = self.entries.seconds_left(|left| left);
        let squares = self.entries.seconds_left(|left| left * left);
        let mut census = Census { at, whole, ..Census::default() };
        let mut sources = vec![0.0; self.entries.flows.len()];
        for (class, (left, square)) in self.entries.classes.iter().zip(left.into_iter().zip(squares)) {
            let seen = if whole { class.live.round() } else { self.noise.poisson(class.live * part) };
            if seen < 1.0 {
                continue;
            }
            let count = seen as u64;
            let there: &mut InState = census.by.entry(class.phase.state).or_default();
            there.entries += count;
            there.assured += if class.phase.assured { count } else { 0 };
            if !class.phase.replied {
                there.unreplied += count;
            }
            if !class.phase.replied || class.phase.state == Timeout::TcpSynRecv {
                sources[class.flow] += seen;
            }
            // The mean of so many scatters as they do, by the root of their number; ctnetlink tells whole seconds.
            let scatter = (square - left * left).max(0.0).sqrt() / seen.sqrt();
            let mean = left + scatter * self.noise.normal() - 0.5;
            there.seconds_left += (mean.max(0.0) * seen) as u64;
            census.entries += count;
        }
        // So many different addresses does one meet who takes `seen` of them at random.
        let met = sources.iter().zip(&self.entries.flows).map(|(seen, flow)| {
            let all = flow.sources.max(1.0);
            (-all * (-seen / all).exp_m1()).ceil()
        });
        census.unreplied_sources = met.sum::<f64>() as u64;
        census
    }
}
