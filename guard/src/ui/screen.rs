//! The status as one screen.

use std::time::Duration;

use super::table::{Align, Table};
use crate::actuate::Effect;
use crate::kernel::Support;
use crate::observe::TableReading;
use crate::policy::figures::{bytes, grouped, per_second, percent, time};
use crate::report::{Chains, ChangeMade, Status};

/// Decisions shown; `--json` has more.
const DECISIONS: usize = 8;

/// What `conntrack-guard status` prints.
pub fn status(status: &Status) -> String {
    let mut text = format!(
        "conntrack-guard {}  {}  up {}  process {}\n",
        status.guard,
        status.mode,
        ms(status.uptime_ms),
        status.pid
    );
    if let Some(trouble) = &status.trouble {
        text += &format!("\nTROUBLE: {trouble}\nthe figures below are those of the last good reading\n");
    }
    section(&mut text, "Table", &size(status));
    section(&mut text, "Forecast", &forecast(status));
    let (title, chains) = chains(status);
    section(&mut text, title, &chains);
    section(&mut text, "Lost since the start", &drops(status));
    section(&mut text, "Measured by", &back_end(status));
    section(&mut text, "Bounds", &bounds(status));
    text += &decisions(status);
    text
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

/// What `conntrack-guard support` prints.
pub fn support(support: &Support) -> String {
    let mut rows = Table::new(2, &[Align::Left, Align::Left]);
    let mut reasons: Vec<&str> = Vec::new();
    for row in support.signals.iter().chain(&support.settings) {
        let why = row.why.as_deref().map_or_else(String::new, |why| {
            let number = reasons.iter().position(|known| *known == why).unwrap_or_else(|| {
                reasons.push(why);
                reasons.len() - 1
            });
            format!(" [{}]", number + 1)
        });
        rows.row([row.name, row.back_end.unwrap_or("-"), &format!("{}{why}", row.lost.as_deref().unwrap_or_default())]);
    }
    let mut text = rows.to_string();
    for (number, reason) in reasons.iter().enumerate() {
        text += &format!("\n[{}] {reason}\n", number + 1);
    }
    text
}

fn figures() -> Table {
    Table::new(2, &[Align::Left, Align::Right, Align::Left])
}

fn section(text: &mut String, title: &str, rows: &Table) {
    *text += &format!("\n{title}\n{rows}");
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

fn chains(status: &Status) -> (&'static str, Table) {
    let mut rows = figures();
    match &status.chains {
        Some(Chains { measured, mean, p50, p99, max, expected_mean }) => {
            rows.row(["mean", &format!("{mean:.2}"), &format!("{expected_mean:.2} expected of an even hash")]);
            rows.row(["p50", &grouped(*p50)]);
            rows.row(["p99", &grouped(*p99)]);
            rows.row(["longest", &grouped(*max)]);
            rows.row(["measured", &grouped(*measured)]);
        }
        None if status.back_end.measured => {
            rows.row(["no inserts yet"]);
        }
        None => {
            rows.row(["not measured"]);
        }
    }
    ("Chains met by inserts (other entries in them)", rows)
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
    let mut rows = Table::new(2, &[Align::Left, Align::Left]);
    match &status.back_end.reason {
        None if status.back_end.measured => rows.row([status.back_end.name.as_str(), "eBPF programs in the kernel"]),
        None => rows.row([status.back_end.name.as_str(), "readings only"]),
        Some(reason) => rows.row([status.back_end.name.as_str(), &format!("readings only: {reason}")]),
    };
    rows
}

fn bounds(status: &Status) -> Table {
    let bounds = &status.bounds;
    let mut rows = Table::new(2, &[Align::Left, Align::Right, Align::Left, Align::Right, Align::Left]);
    let mut range = |name: &str, range: crate::report::Range| {
        rows.row([name, &grouped(range.floor), "to", &grouped(range.ceiling)]);
    };
    range("max", bounds.max);
    range("buckets", bounds.buckets);
    let memory = format!("in use, {} if full", bytes(bounds.memory_at_max));
    rows.row(["memory", &bytes(bounds.memory_in_use), "of", &bytes(bounds.memory_limit), &memory]);
    rows.row(["stall of a resize", "", "to", &ms(bounds.max_stall_ms)]);
    rows
}

fn decisions(status: &Status) -> String {
    let mut text = format!("\nDecisions ({} in all)\n", grouped(status.changes_made));
    for change in status.changes.iter().rev().take(DECISIONS) {
        text += &decision(change, status.at_ms);
    }
    if status.changes.is_empty() {
        text += "  none yet\n";
    }
    for held in &status.held {
        let since = ms(status.at_ms.saturating_sub(held.since_ms));
        text += &format!("  held for {since}  {} stays  {}\n", held.setting.sysctl(), held.rule.name());
        text += &format!("      why    {}\n", held.reason);
    }
    text
}

fn decision(change: &ChangeMade, now_ms: u64) -> String {
    let ChangeMade { at_ms, setting, old, new, rule, evidence, predicted, result } = change;
    let ago = ms(now_ms.saturating_sub(*at_ms));
    let came = match result {
        Effect::Applied { read_back, took } if read_back == new => format!("applied in {}", time(*took)),
        Effect::Applied { read_back, took } => format!("applied in {}, reads {}", time(*took), grouped(*read_back)),
        Effect::NoEffect { read_back, .. } => format!("no effect: it still reads {}", grouped(*read_back)),
        Effect::Refused { error, way_out } => format!("refused: {error}; {way_out}"),
        Effect::Advised => "advised only".into(),
    };
    format!(
        "  {ago} ago  {} {} -> {}  {}\n      why    {evidence}\n      then   {predicted}\n      came   {came}\n",
        setting.sysctl(),
        grouped(*old),
        grouped(*new),
        rule.name()
    )
}

fn ms(value: u64) -> String {
    time(Duration::from_millis(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::status as sample;

    #[test]
    fn a_guard_on_proc_readings() {
        let golden = "\
conntrack-guard 0.1.0  enforce  up 1.1 min  process 4711
";
        assert_eq!(status(&sample()), golden);
    }
}
