//! What the programs counted.

use std::fmt;

use super::screen::{figures, marked, ms, right_figures};
use super::table::{Align, Table};
use crate::figures::{grouped, percent, time};
use crate::model::ChainStats;
use crate::report::{Counted, End, Resize, Status};

/// Namespaces, ends and origins shown; `--json` has more.
const SHOWN: usize = 5;
/// Resizes shown.
const RESIZES: usize = 3;

/// Measured beside expected.
pub(super) fn chains(status: &Status) -> String {
    let mut rows = Table::new(2, &[(Align::Left, 10), (Align::Right, 10), (Align::Right, 10)]);
    let Some(ChainStats { one_in, measured, mean, p50, p99, max, expected_mean, expected_p99, skew: _ }) =
        status.chains
    else {
        let why = match status.counted.as_ref().and_then(|counted| counted.one_in) {
            Some(one_in) => format!("no insert measured in 10 s (one in {one_in})"),
            None => "not measured".into(),
        };
        return format!("Chains at insert\n  {why}\n");
    };
    let figure = |place: &str, figure: String| marked(status, place, &figure);
    rows.row(["", "measured", "even hash"]);
    rows.row(["mean", &figure("chains.mean", format!("{mean:.2}")), &format!("{expected_mean:.2}")]);
    rows.row(["p50", &figure("chains.p50", grouped(p50))]);
    rows.row(["p99", &figure("chains.p99", grouped(p99)), &grouped(expected_p99)]);
    rows.row(["longest", &figure("chains.max", grouped(max))]);
    let which = if one_in == 1 { "of every insert".into() } else { format!("of one insert in {one_in}") };
    format!("Chains at insert, last 10 s\n{rows}  {} {which}\n", grouped(measured))
}

/// What is wrong with the chains.
pub(super) fn skew(status: &Status, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if let Some(skew) = status.chains.and_then(|chains| chains.skew) {
        writeln!(f, "SKEWED CHAINS: {}\n", skew.words())?;
    }
    Ok(())
}

/// Drops and their kin: what hooks count first, then what only the kernel's statistics tell.
pub(super) fn lost(status: &Status) -> String {
    let drops = &status.drops;
    let counted = status.counted.as_ref();
    let figure = |figure: Option<u64>| figure.map_or_else(|| "?".into(), grouped);
    let mut rows = right_figures();
    rows.row(["table full", &marked(status, "drops.table_full", &figure(drops.table_full)), "refused"]);
    rows.row(["made room", &figure(counted.and_then(|counted| counted.made_room)), "flows"]);
    rows.row(["clashes lost", &marked(status, "drops.clash_lost", &figure(drops.clash_lost)), "packets"]);
    let clashes = counted.and_then(|counted| counted.clashes);
    let resolved = clashes.map(|clashes| clashes.resolved).or(drops.clash_resolved);
    rows.row(["resolved", &figure(resolved), "packets"]);
    rows.row(["reply-only", &figure(clashes.and_then(|clashes| clashes.reply_only)), "of them"]);
    let mut statistics = right_figures();
    statistics.row(["evicted", &figure(drops.early_drop), "entries"]);
    statistics.row(["chain too long", &figure(drops.chain_too_long), "refused"]);
    statistics.row(["invalid", &figure(drops.invalid), "packets"]);
    statistics.row(["ICMP errors", &figure(drops.icmp_error), "packets"]);
    statistics.row(["drop", &figure(drops.drop), "packets"]);
    statistics.row(["insert failed", &figure(drops.insert_failed), "packets"]);
    let source = status.statistics.source.as_deref().unwrap_or("not to be had");
    format!("Drops and clashes since the start\n{rows}From the kernel's statistics ({source})\n{statistics}")
}

/// Who opens flows.
pub(super) fn namespaces(counted: &Counted) -> String {
    let Some(found) = &counted.namespaces else { return String::new() };
    let all = found.namespaces.iter().fold(found.other, |sum, namespace| sum.saturating_add(namespace.inserts));
    let share = |inserts: u64| percent(inserts as f64 / all.max(1) as f64);
    let mut rows = figures();
    rows.row(["namespace", "inserts"]);
    let (shown, rest) = found.namespaces.split_at(found.namespaces.len().min(SHOWN));
    for namespace in shown {
        rows.row([namespace.inode.to_string(), grouped(namespace.inserts), share(namespace.inserts)]);
    }
    let other = rest.iter().fold(found.other, |sum, namespace| sum.saturating_add(namespace.inserts));
    if other > 0 {
        rows.row(["other".into(), grouped(other), share(other)]);
    }
    format!("Inserted since the start\n{rows}")
}

/// How entries ended.
pub(super) fn ends(counted: &Counted) -> String {
    let Some(ends) = &counted.ends else { return String::new() };
    let share = |assured: u64, destroys: u64| percent(assured as f64 / destroys.max(1) as f64);
    let mut rows = right_figures();
    rows.row(["last state", "destroys", "ASSURED"]);
    let (shown, rest) = ends.split_at(ends.len().min(SHOWN));
    for End { protocol, last_state, destroys, assured } in shown {
        let protocol = if protocol == "other" { protocol.clone() } else { protocol.to_uppercase() };
        let name = last_state.as_ref().map_or_else(|| protocol.clone(), |state| format!("{protocol} {state}"));
        rows.row([name, grouped(*destroys), share(*assured, *destroys)]);
    }
    if !rest.is_empty() {
        let sum = |of: fn(&End) -> u64| rest.iter().fold(0_u64, |sum, end| sum.saturating_add(of(end)));
        let (destroys, assured) = (sum(|end| end.destroys), sum(|end| end.assured));
        rows.row(["the rest".into(), grouped(destroys), share(assured, destroys)]);
    }
    if let Some(reply_only @ 1..) = counted.reply_only_destroys {
        rows.row(["reply-only", &grouped(reply_only)]);
    }
    format!("Destroyed since the start\n{rows}")
}

/// Whose flows a full table refused.
pub(super) fn refused(status: &Status, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Some(counted) = status.counted.as_ref().filter(|counted| !counted.refused.is_empty()) else { return Ok(()) };
    let mut rows = Table::new(2, &[(Align::Left, 10), (Align::Right, 10), (Align::Left, 0)]);
    for origin in counted.refused.iter().take(SHOWN) {
        let to = match origin.protocol {
            6 => format!("TCP port {}", origin.destination_port),
            17 => format!("UDP port {}", origin.destination_port),
            protocol => format!("protocol {protocol}"),
        };
        let flows = marked(status, "counted.refused", &grouped(origin.flows));
        rows.row([origin.namespace.to_string(), flows, format!("from {} to {to}", origin.source)]);
    }
    writeln!(f, "Refused lately for a full table, by samples\n{rows}")
}

/// The last resizes, whoever asked for them.
pub(super) fn resizes(status: &Status, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if status.resizes.is_empty() {
        return Ok(());
    }
    writeln!(f, "Resizes")?;
    for resize in status.resizes.iter().rev().take(RESIZES) {
        let Resize { at_ms, took_us, own, pid, comm, cgroup, from, to, entries, error } = resize;
        let ago = ms(status.at_ms.saturating_sub(*at_ms));
        let [from, to] = [from, to].map(|buckets| buckets.map_or_else(|| "?".into(), grouped));
        let took = time(std::time::Duration::from_micros(*took_us));
        let entries = marked(status, "resizes.*.entries", &grouped(*entries));
        let moved = || format!("{entries} entries in {took}");
        let result = error.as_ref().map_or_else(moved, |error| format!("failed: {error}"));
        let who = if *own { "by the guard".into() } else { format!("by {comm} (process {pid}, cgroup {cgroup})") };
        writeln!(f, "  {ago} ago  {from} -> {to}  {result}  {who}")?;
    }
    writeln!(f)
}
