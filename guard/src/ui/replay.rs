//! What a policy would have decided over a recording.

use std::fmt;
use std::time::Duration;

use super::table::{Align, Table};
use crate::figures::{grouped, time};
use crate::replay::Step;

/// What `conntrack-guard replay` prints.
#[derive(Debug)]
pub struct ReplayScreen<'a>(pub &'a [Step]);

impl fmt::Display for ReplayScreen<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Some(first), Some(last)) = (self.0.first(), self.0.last()) else {
            return writeln!(f, "the recording holds no sample");
        };
        let since = |at: Duration| time(at.saturating_sub(first.at));
        writeln!(f, "{} samples over {}", grouped(self.0.len() as u64), since(last.at))?;

        let mut figures = Table::new(2, &[(Align::Left, 0), (Align::Right, 0), (Align::Left, 0)]);
        let fullest = self.0.iter().max_by_key(|step| step.count).unwrap_or(first);
        figures.row(["entries at most", &grouped(fullest.count), &format!("after {}", since(fullest.at))]);
        figures.row(["max at the end", &grouped(last.max), &format!("{} as recorded", grouped(last.recorded_max))]);
        match self.0.iter().max_by_key(|step| step.over()).filter(|step| step.over() > 0) {
            None => figures.row(["entries over max", "0", "nothing would have been refused"]),
            Some(worst) => {
                let when = format!("after {}: this policy would have refused flows", since(worst.at));
                figures.row(["entries over max", &grouped(worst.over()), &when])
            }
        };
        write!(f, "{figures}")?;

        let all = || self.0.iter().flat_map(|step| step.changes.iter().map(move |change| (step.at, change)));
        writeln!(f, "Decisions ({})", grouped(all().count() as u64))?;
        for (at, change) in all() {
            let (name, rule) = (change.setting.sysctl(), change.rule.name());
            writeln!(f, "  after {}  {name} {} -> {}  {rule}", since(at), grouped(change.old), grouped(change.new))?;
            writeln!(f, "      why     {}\n      expect  {}", change.evidence, change.predicted)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Change, Rule, Setting};

    #[test]
    fn a_replay_tells_what_and_why_and_what_would_have_been_refused() {
        let change = Change {
            setting: Setting::Max,
            old: 8_192,
            new: 16_384,
            rule: Rule::RaiseMax,
            evidence: "forecast 9,120 entries in 10 s passes 80 % of 8,192; growth 812/s".into(),
            predicted: "the forecast fills 55.7 % of 16,384".into(),
            expectation: None,
        };
        let step = |second, count, changes| Step {
            at: Duration::from_secs(second),
            count,
            max: 16_384,
            recorded_max: 32_768,
            changes,
            look_within: None,
        };
        let steps = [step(100, 1_000, vec![change]), step(160, 20_000, vec![]), step(220, 12_000, vec![])];
        assert_eq!(ReplayScreen(&steps).to_string(), include_str!("golden/replay.txt"));
        assert_eq!(ReplayScreen(&[]).to_string(), "the recording holds no sample\n");
    }
}
