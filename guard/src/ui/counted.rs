//! What the programs counted.

use std::fmt;

use super::screen::{ago, marked, right_figures};
use super::table::{Align, Table};
use crate::figures::{grouped, percent, time};
use crate::model::ChainStats;
use crate::report::{Resize, Status};

/// Namespaces and origins shown; `--json` has more.
const SHOWN: usize = 3;
/// Resizes shown, if they are of the last hour.
const RESIZES: usize = 2;
const LATELY_MS: u64 = 3_600_000;

/// Measured beside expected.
pub(super) fn chains(status: &Status) -> String {
    let Some(ChainStats { one_in, measured, mean, p50, p99, max, expected_mean, expected_p99, skew: _ }) =
        status.chains
    else {
        return match status.counted.as_ref().and_then(|counted| counted.one_in) {
            Some(one_in) => format!("no insert measured in 10 s (one in {one_in})"),
            None => "not measured".into(),
        };
    };
    let figure = |place: &str, figure: String| marked(status, place, &figure);
    let mean = figure("chains.mean", format!("{mean:.2}"));
    let p50 = figure("chains.p50", grouped(p50));
    let p99 = figure("chains.p99", grouped(p99));
    let longest = figure("chains.max", grouped(max));
    let which = if one_in == 1 { "of every insert".into() } else { format!("of one insert in {one_in}") };
    let even = grouped(expected_p99);
    let measured = grouped(measured);
    format!(
        "mean {mean} (even hash {expected_mean:.2}), p50 {p50}, p99 {p99} ({even}), longest {longest}; {measured} {which}"
    )
}

/// What is wrong with the chains.
pub(super) fn skew(status: &Status, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if let Some(skew) = status.chains.and_then(|chains| chains.skew) {
        writeln!(f, "SKEWED CHAINS: {}", skew.words())?;
    }
    Ok(())
}

/// Drops and their kin, by cause: those that there were, and the table's always. The statistics that are sums of causes are in
/// the JSON.
pub(super) fn lost(status: &Status) -> String {
    let drops = &status.drops;
    let counted = status.counted.as_ref();
    let clashes = counted.and_then(|counted| counted.clashes);
    let mut rows = right_figures();
    let table_full = drops.table_full.map_or_else(|| "?".into(), grouped);
    rows.row(["table full", &marked(status, "drops.table_full", &table_full), "flows refused"]);
    let some = |figure: Option<u64>| figure.filter(|figure| *figure > 0).map(grouped);
    let made_room = counted.and_then(|counted| counted.made_room);
    let evicted = some(made_room).map_or_else(|| "entries".into(), |flows| format!("for {flows} flows"));
    let resolved = some(clashes.and_then(|clashes| clashes.reply_only))
        .map_or_else(|| "packets".into(), |packets| format!("packets, {packets} reply-only"));
    for (cause, place, figure, of) in [
        ("evicted", "", drops.early_drop, evicted),
        ("made room", "", made_room.filter(|_| drops.early_drop.is_none()), "flows".into()),
        ("clashes lost", "drops.clash_lost", drops.clash_lost, "packets".into()),
        ("resolved", "", clashes.map(|clashes| clashes.resolved).or(drops.clash_resolved), resolved),
        ("chain too long", "", drops.chain_too_long, "flows refused".into()),
        ("invalid", "", drops.invalid, "packets".into()),
        ("ICMP errors", "", drops.icmp_error, "packets".into()),
    ] {
        if let Some(figure @ 1..) = figure {
            rows.row([cause, &marked(status, place, &grouped(figure)), &of]);
        }
    }
    format!("Drops and clashes since the start\n{rows}")
}

/// Who opens flows, if it is not one namespace alone.
pub(super) fn opened(status: &Status) -> String {
    let found = status.counted.as_ref().and_then(|counted| counted.namespaces.as_ref());
    let Some(found) = found.filter(|found| found.namespaces.len() > 1) else { return String::new() };
    let all = found.namespaces.iter().fold(found.other, |sum, namespace| sum.saturating_add(namespace.inserts));
    let share = |inserts: u64| percent(inserts as f64 / all.max(1) as f64);
    let (shown, rest) = found.namespaces.split_at(found.namespaces.len().min(SHOWN));
    let mut parts: Vec<String> =
        shown.iter().map(|namespace| format!("{} ({})", namespace.inode, share(namespace.inserts))).collect();
    let other = rest.iter().fold(found.other, |sum, namespace| sum.saturating_add(namespace.inserts));
    if other > 0 {
        parts.push(format!("others ({})", share(other)));
    }
    format!("in namespaces {}", parts.join(", "))
}

/// Whose flows a full table refused.
pub(super) fn refused(status: &Status) -> String {
    let Some(counted) = &status.counted else { return String::new() };
    let mut rows = Table::new(0, &[(Align::Right, 0), (Align::Left, 0)]);
    for origin in counted.refused.iter().take(SHOWN) {
        let to = match origin.protocol {
            6 => format!("TCP port {}", origin.destination_port),
            17 => format!("UDP port {}", origin.destination_port),
            protocol => format!("protocol {protocol}"),
        };
        let flows = marked(status, "counted.refused", &grouped(origin.flows));
        rows.row([flows, format!("from {} to {to} in namespace {}", origin.source, origin.namespace)]);
    }
    rows.to_string()
}

/// The last resizes, whoever asked for them.
pub(super) fn resized(status: &Status) -> String {
    let mut rows = Table::new(0, &[(Align::Right, 0), (Align::Left, 0), (Align::Left, 0)]);
    let lately = |resize: &&Resize| status.at_ms.saturating_sub(resize.at_ms) <= LATELY_MS;
    for resize in status.resizes.iter().rev().filter(lately).take(RESIZES) {
        let Resize { at_ms, took_us, own, pid, comm, cgroup, from, to, entries, error } = resize;
        let [from, to] = [from, to].map(|buckets| buckets.map_or_else(|| "?".into(), grouped));
        let took = time(std::time::Duration::from_micros(*took_us));
        let entries = marked(status, "resizes.*.entries", &grouped(*entries));
        let moved = || format!("{entries} entries in {took}");
        let result = error.as_ref().map_or_else(moved, |error| format!("failed: {error}"));
        let who = if *own { "by the guard".into() } else { format!("by {comm} (pid {pid}, cgroup {cgroup})") };
        rows.row([format!("{} ago", ago(status.at_ms, *at_ms)), format!("{from} -> {to}"), format!("{result} {who}")]);
    }
    rows.to_string()
}
