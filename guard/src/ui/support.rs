//! What this host offers.

use std::fmt;

use super::table::{Align, Table};
use crate::kernel::Support;
use crate::kernel::support::{Row, Tried, Verdict};

/// The back ends that have a column of their own; all others are readings.
const HOOKS: [&str; 2] = ["fentry/fexit", "kprobe"];

/// What `conntrack-guard support` prints: signal by back end, and each reason once, below.
#[derive(Debug)]
pub struct SupportScreen<'a>(pub &'a Support);

impl fmt::Display for SupportScreen<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut reasons = Reasons::default();
        let mut signals = Table::new(2, &[(Align::Left, 15), (Align::Left, 12), (Align::Left, 9), (Align::Left, 13)]);
        signals.row(["", HOOKS[0], HOOKS[1], "readings"]);
        for row in &self.0.signals {
            let [tracing, kprobe] = HOOKS.map(|hook| reasons.cell(row, |tried| tried.back_end == hook));
            let mut readings = reasons.cell(row, |tried| !HOOKS.contains(&tried.back_end));
            if row.back_ends.is_empty() {
                // Nothing was tried but the one way that there is.
                readings =
                    row.back_end.map_or_else(|| format!("no{}", reasons.mark(row.why.as_deref())), str::to_owned);
            }
            let lost = row.lost.as_deref().unwrap_or_default();
            signals.row([row.name, &tracing, &kprobe, &readings, lost]);
        }
        writeln!(f, "What can be measured here, and through what\n{signals}")?;
        let mut settings = Table::new(2, &[(Align::Left, 20), (Align::Left, 6)]);
        for row in &self.0.settings {
            let lost = row.lost.as_deref().unwrap_or_default();
            let lost = format!("{lost}{}", reasons.mark(row.why.as_deref()));
            settings.row([row.name, row.back_end.unwrap_or("-"), lost.trim_start()]);
        }
        write!(f, "What can be changed here, and through what\n{settings}")?;
        if !reasons.0.is_empty() {
            writeln!(f)?;
        }
        for (number, reason) in reasons.0.iter().enumerate() {
            writeln!(f, "[{}] {reason}", number + 1)?;
        }
        Ok(())
    }
}

/// Reasons, each told once.
#[derive(Default)]
struct Reasons<'a>(Vec<&'a str>);

impl<'a> Reasons<'a> {
    /// What came of the back ends that are wanted, with the numbers of their reasons.
    fn cell(&mut self, row: &'a Row, wanted: impl Fn(&Tried) -> bool) -> String {
        let mut words = Vec::new();
        for tried in row.back_ends.iter().filter(|tried| wanted(tried)) {
            // A reading that works is told by its name; hooks have theirs above the column.
            let word = match tried.verdict {
                Verdict::Taken if HOOKS.contains(&tried.back_end) => "taken",
                Verdict::Taken => tried.back_end,
                Verdict::Works => "works",
                Verdict::Estimates => "estimate",
                Verdict::No => "no",
            };
            words.push(format!("{word}{}", self.mark(tried.why.as_deref())));
        }
        words.join(", ")
    }

    /// ` [n]`, or nothing without a reason.
    fn mark(&mut self, reason: Option<&'a str>) -> String {
        reason.map_or_else(String::new, |reason| {
            let number = self.0.iter().position(|known| *known == reason).unwrap_or_else(|| {
                self.0.push(reason);
                self.0.len() - 1
            });
            format!(" [{}]", number + 1)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &'static str, back_end: Option<&'static str>, lost: Option<&str>, why: Option<&str>) -> Row {
        Row { name, back_end, back_ends: Vec::new(), lost: lost.map(Into::into), why: why.map(Into::into) }
    }

    fn tried(back_end: &'static str, verdict: Verdict, why: Option<&str>) -> Tried {
        Tried { back_end, verdict, why: why.map(Into::into) }
    }

    #[test]
    fn support_is_told_by_signal_and_back_end_and_each_reason_once() {
        let (no_btf, unknown) = (Some("no BTF of the module"), Some("something is unknown"));
        let not_permitted = Some("not permitted");
        let of = |row: Row, back_ends: &[Tried]| Row { back_ends: back_ends.to_vec(), ..row };
        let support = Support {
            signals: vec![
                of(
                    row("inserts", Some("kprobe"), None, no_btf),
                    &[tried("fentry/fexit", Verdict::No, no_btf), tried("kprobe", Verdict::Taken, None)],
                ),
                of(
                    row("table full", Some("fentry/fexit"), None, None),
                    &[
                        tried("fentry/fexit", Verdict::Taken, None),
                        tried("kprobe", Verdict::Works, None),
                        tried("proc", Verdict::Estimates, Some("\"drop\" less the lost clashes")),
                    ],
                ),
                of(
                    row("resizes", None, unknown, no_btf),
                    &[tried("fentry/fexit", Verdict::No, no_btf), tried("kprobe", Verdict::No, not_permitted)],
                ),
                of(
                    row("invalid", Some("ctnetlink"), None, Some("no file")),
                    &[tried("proc", Verdict::No, Some("no file")), tried("ctnetlink", Verdict::Taken, None)],
                ),
                row("entries", Some("proc"), None, None),
                row("entry size", None, Some("the usual size is taken"), not_permitted),
            ],
            settings: vec![
                row("nf_conntrack_max", Some("sysctl"), None, None),
                row("nf_conntrack_buckets", None, Some("stays as it is"), Some("read-only")),
            ],
        };
        assert_eq!(SupportScreen(&support).to_string(), include_str!("golden/support.txt"));
    }
}
