//! The status as one screen.

use std::fmt;
use std::time::Duration;

use super::table::{Align, Table};
use crate::actuate::Effect;
use crate::figures::{bytes, grouped, per_second, percent, time};
use crate::kernel::Support;
use crate::kernel::support::Row;
use crate::model::ChainStats;
use crate::observe::TableReading;
use crate::policy::{Change, Held, Range};
use crate::report::{ChangeMade, HeldNow, Status};

/// Decisions shown; `--json` has more.
const DECISIONS: usize = 8;
/// One width for all sections, so that their columns line up.
const LABEL: (Align, usize) = (Align::Left, 14);
const FIGURE: (Align, usize) = (Align::Right, 10);
const NOTE: (Align, usize) = (Align::Left, 0);

/// What `conntrack-guard status` prints.
#[derive(Debug)]
pub struct StatusScreen<'a>(pub &'a Status);

impl fmt::Display for StatusScreen<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Status { guard, mode, pid, uptime_ms, .. } = self.0;
        writeln!(f, "conntrack-guard {guard}  {mode}  up {}  process {pid}", ms(*uptime_ms))?;
        if let Some(trouble) = &self.0.trouble {
            writeln!(f, "\nTROUBLE: {trouble}\nthe figures below are those of the last good reading")?;
        }
        writeln!(f, "\nTable\n{}", size(self.0))?;
        writeln!(f, "Forecast\n{}", forecast(self.0))?;
        writeln!(f, "Hash chains at insert, other entries in each\n{}", chains(self.0))?;
        writeln!(f, "Lost since the start\n{}", drops(self.0))?;
        writeln!(f, "Measured by\n{}", back_end(self.0))?;
        writeln!(f, "Bounds\n{}", bounds(self.0))?;
        decisions(self.0, f)
    }
}

/// What is known of the table without a guard.
pub fn unguarded(table: &TableReading) -> String {
    let mut rows = figures();
    rows.row(["nf_conntrack_count", &grouped(table.count)]);
    rows.row(["nf_conntrack_max", &grouped(table.max), &limit(table.max)]);
    rows.row(["nf_conntrack_buckets", &grouped(table.buckets)]);
    if table.max > 0 {
        rows.row(["fill", &percent(table.count as f64 / table.max as f64)]);
    }
    rows.to_string()
}

/// What `conntrack-guard support` prints: each reason once, below.
#[derive(Debug)]
pub struct SupportScreen<'a>(pub &'a Support);

impl fmt::Display for SupportScreen<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut reasons: Vec<&str> = Vec::new();
        writeln!(f, "What can be measured here, and through what\n{}", rows_of(&self.0.signals, &mut reasons))?;
        write!(f, "What can be changed here, and through what\n{}", rows_of(&self.0.settings, &mut reasons))?;
        if !reasons.is_empty() {
            writeln!(f)?;
        }
        for (number, reason) in reasons.iter().enumerate() {
            writeln!(f, "[{}] {reason}", number + 1)?;
        }
        Ok(())
    }
}

/// One row for each thing, with the number of its reason; reasons not given yet are added.
fn rows_of<'a>(part: &'a [Row], reasons: &mut Vec<&'a str>) -> Table {
    let mut rows = Table::new(2, &[(Align::Left, 20), (Align::Left, 6)]);
    for row in part {
        let why = row.why.as_deref().map_or_else(String::new, |why| {
            let number = reasons.iter().position(|known| *known == why).unwrap_or_else(|| {
                reasons.push(why);
                reasons.len() - 1
            });
            format!(" [{}]", number + 1)
        });
        let lost = row.lost.as_deref().unwrap_or_default();
        rows.row([row.name, row.back_end.unwrap_or("-"), &format!("{lost}{why}")]);
    }
    rows
}

fn figures() -> Table {
    Table::new(2, &[LABEL, FIGURE, NOTE])
}

fn size(status: &Status) -> Table {
    let table = &status.table;
    let mut rows = figures();
    rows.row(["entries", &grouped(table.count), &format!("{} of max", percent(table.fill))]);
    rows.row(["peak", &grouped(table.peak_count), "since the start"]);
    rows.row(["max", &grouped(table.max), &limit(table.max)]);
    let load = if table.buckets == 0 { 0.0 } else { 2.0 * table.count as f64 / table.buckets as f64 };
    rows.row(["buckets", &grouped(table.buckets), &format!("{load:.2} tuples a bucket")]);
    rows
}

fn limit(max: u64) -> String {
    // Kernels before 6.19.
    if max == 0 { "no limit".into() } else { String::new() }
}

fn forecast(status: &Status) -> Table {
    let forecast = &status.forecast;
    let rate = |rate: Option<f64>| rate.map_or_else(unmeasured, per_second);
    let mut rows = figures();
    rows.row(["inserts", &rate(forecast.inserts_per_s)]);
    rows.row(["destroys", &rate(forecast.destroys_per_s)]);
    rows.row(["growth", &per_second(forecast.growth_per_s)]);
    rows.row(["expected", &grouped(forecast.count), &format!("entries in {}", ms(forecast.horizon_ms))]);
    rows.row(["time to full", &forecast.time_to_full_ms.map_or_else(|| "-".into(), ms)]);
    rows
}

fn unmeasured() -> String {
    "?".into()
}

fn chains(status: &Status) -> Table {
    let mut rows = figures();
    match &status.chains {
        Some(ChainStats { one_in, measured, mean, p50, p99, max, expected_mean }) => {
            rows.row(["mean", &format!("{mean:.2}"), &format!("{expected_mean:.2} expected of an even hash")]);
            rows.row(["p50", &grouped(*p50)]);
            rows.row(["p99", &grouped(*p99)]);
            rows.row(["longest", &grouped(*max)]);
            let which = if *one_in == 1 { "of every insert".into() } else { format!("of one insert in {one_in}") };
            rows.row(["measured", &grouped(*measured), &which]);
        }
        None if status.back_end.measured => {
            rows.row(["no inserts yet"]);
        }
        None => {
            rows.row(["not measured"]);
        }
    }
    rows
}

fn drops(status: &Status) -> Table {
    let drops = &status.drops;
    let mut rows = figures();
    rows.row(["table full", &drops.table_full.map_or_else(unmeasured, grouped), "new flows refused"]);
    rows.row(["evicted", &grouped(drops.early_drop), "entries, to make room (early_drop)"]);
    rows.row(["drop", &grouped(drops.drop), "statistic: table full, no memory or lost clash"]);
    rows.row(["insert failed", &grouped(drops.insert_failed), "lost clash or chain too long"]);
    rows.row(["chain too long", &grouped(drops.chain_too_long)]);
    rows.row(["invalid", &grouped(drops.invalid), "packets no tracker accepted"]);
    rows
}

fn back_end(status: &Status) -> Table {
    let mut rows = Table::new(2, &[LABEL, NOTE]);
    match &status.back_end.reason {
        None if status.back_end.measured => rows.row([status.back_end.name.as_str(), "eBPF programs in the kernel"]),
        None => rows.row([status.back_end.name.as_str(), "readings only"]),
        Some(reason) => rows.row([status.back_end.name.as_str(), &format!("readings only: {reason}")]),
    };
    for signal in status.signals.iter().filter(|signal| signal.back_end.as_ref() != Some(&status.back_end.name)) {
        let back_end = signal.back_end.as_deref().unwrap_or("off");
        rows.row([back_end, &format!("{}: {}", signal.signal, signal.why.join("; "))]);
    }
    rows
}

fn bounds(status: &Status) -> Table {
    let bounds = &status.bounds;
    let mut rows = Table::new(2, &[LABEL, FIGURE, NOTE, (Align::Right, 10), NOTE]);
    let mut range = |name: &str, range: Range| {
        rows.row([name, &grouped(range.floor), "to", &grouped(range.ceiling)]);
    };
    range("max", bounds.max);
    range("buckets", bounds.buckets);
    let memory = format!("in use, {} if full", bytes(bounds.memory_at_max));
    rows.row(["memory", &bytes(bounds.memory_in_use), "of", &bytes(bounds.memory_limit), &memory]);
    rows.row(["resize stall", "", "to", &ms(bounds.max_stall_ms)]);
    rows
}

fn decisions(status: &Status, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "Decisions ({} in all)", grouped(status.changes_made))?;
    if status.changes.is_empty() {
        writeln!(f, "  none yet")?;
    }
    for made in status.changes.iter().rev().take(DECISIONS) {
        decision(made, status.at_ms, f)?;
    }
    for HeldNow { held: Held { setting, rule, reason }, since_ms } in &status.held {
        let since = ms(status.at_ms.saturating_sub(*since_ms));
        writeln!(f, "  held for {since}  {} stays  {}\n      why     {reason}", setting.sysctl(), rule.name())?;
    }
    Ok(())
}

fn decision(ChangeMade { at_ms, change, result }: &ChangeMade, now_ms: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Change { setting, old, new, rule, evidence, predicted } = change;
    let ago = ms(now_ms.saturating_sub(*at_ms));
    let (name, rule) = (setting.sysctl(), rule.name());
    writeln!(f, "  {ago} ago  {name} {} -> {}  {rule}", grouped(*old), grouped(*new))?;
    writeln!(f, "      why     {evidence}\n      expect  {predicted}")?;
    let result = match result {
        Effect::Applied { read_back, took } if read_back == new => format!("applied in {}", time(*took)),
        Effect::Applied { read_back, took } => format!("applied in {}, reads {}", time(*took), grouped(*read_back)),
        Effect::NoEffect { read_back, .. } => format!("no effect: it still reads {}", grouped(*read_back)),
        Effect::Refused { error, way_out } => format!("refused: {error}; {way_out}"),
        Effect::Advised => "advised only".into(),
    };
    writeln!(f, "      result  {result}")
}

fn ms(value: u64) -> String {
    time(Duration::from_millis(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::BackEnd;
    use crate::report::tests::status as sample;

    #[test]
    fn a_guard_on_proc_readings() {
        assert_eq!(StatusScreen(&sample()).to_string(), include_str!("golden/proc.txt"));
    }

    #[test]
    fn a_guard_with_programs_and_trouble() {
        let mut measured = sample();
        measured.back_end = BackEnd { name: "fentry/fexit".into(), measured: true, reason: None };
        measured.forecast.inserts_per_s = Some(12_345.6);
        measured.forecast.destroys_per_s = Some(9.0);
        measured.forecast.time_to_full_ms = None;
        measured.drops.table_full = Some(1_234_567);
        measured.chains = Some(ChainStats {
            one_in: 64,
            measured: 24_690,
            mean: 8.81,
            p50: 9,
            p99: 22,
            max: 31,
            expected_mean: 8.79,
        });
        measured.trouble = Some("cannot read the table: /proc/meminfo: gone".into());
        let refused = Effect::Refused { error: "cannot write x: No".into(), way_out: "run it as root".into() };
        measured.changes[0].result = refused;
        measured.held.clear();
        assert_eq!(StatusScreen(&measured).to_string(), include_str!("golden/measured.txt"));
    }

    #[test]
    fn a_table_without_a_guard() {
        let text = unguarded(&TableReading { max: 65_536, buckets: 16_384, count: 60_000 });
        assert_eq!(text, include_str!("golden/unguarded.txt"));
        let text = unguarded(&TableReading { max: 0, buckets: 16_384, count: 60_000 });
        assert!(text.contains("no limit") && !text.contains("fill"), "{text}");
    }

    #[test]
    fn support_names_each_reason_once() {
        let row = |name, back_end, why: Option<&str>| Row {
            name,
            back_end,
            lost: why.map(|_| "something is unknown".into()),
            why: why.map(Into::into),
        };
        let support = Support {
            signals: vec![row("inserts", None, Some("not permitted")), row("entries", Some("proc"), None)],
            settings: vec![
                row("nf_conntrack_max", Some("sysctl"), Some("not permitted")),
                row("nf_conntrack_buckets", None, Some("read-only")),
            ],
        };
        assert_eq!(SupportScreen(&support).to_string(), include_str!("golden/support.txt"));
    }
}
