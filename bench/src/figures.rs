//! The figures of loads, side by side: one column a load.

use bench::load::{Failure, Outcome, UnderFlood};

use crate::table::{Table, grouped, short};
use crate::watch::Observed;

/// Causes of failed connections, in the order in which they are shown; one that never came has no row.
const FAILURES: [Failure; 12] = [
    Failure::ConnectTimeout,
    Failure::ConnectFailed,
    Failure::Refused,
    Failure::Reset,
    Failure::Unreachable,
    Failure::RequestTimeout,
    Failure::ErrorStatus,
    Failure::ShortReply,
    Failure::Unanswered,
    Failure::TooMany,
    Failure::TooLate,
    Failure::Local,
];

/// The table, under the given heads.
pub(crate) fn table(loads: &[(&str, &Observed)]) -> String {
    let mut table = Table::default();
    if loads.iter().any(|(head, _)| !head.is_empty()) {
        table.row("", loads.iter().map(|(head, _)| (*head).to_owned()));
    }
    let mut row = |name: &str, cell: &dyn Fn(&Observed) -> String| {
        table.row(name, loads.iter().map(|(_, observed)| cell(observed)));
    };
    row("connections made", &|load| grouped(load.outcome.made));
    row("connections failed", &|load| grouped(load.outcome.failures()));
    failures(&mut table, &loads.iter().map(|(_, load)| &load.outcome).collect::<Vec<_>>());
    let mut row = |name: &str, cell: &dyn Fn(&Observed) -> String| {
        table.row(name, loads.iter().map(|(_, observed)| cell(observed)));
    };
    row("connect latency (if connected), p50", &|load| short(load.outcome.connect.at(0.5)));
    row("connect latency (if connected), p99", &|load| short(load.outcome.connect.at(0.99)));
    row("connect latency (if connected), longest", &|load| short(load.outcome.connect.max()));
    kernel(&mut table, &loads.iter().map(|(_, load)| *load).collect::<Vec<_>>());
    table.row("started later than scheduled, p99", loads.iter().map(|(_, load)| short(load.outcome.lateness.at(0.99))));
    table.render()
}

/// A row for each cause that came at all.
pub(crate) fn failures(table: &mut Table, outcomes: &[&Outcome]) {
    for failure in FAILURES {
        let counts = || outcomes.iter().map(|outcome| outcome.failed.get(&failure).copied().unwrap_or(0));
        if counts().any(|count| count > 0) {
            table.row(&format!("  {}", failure.words()), counts().map(grouped));
        }
    }
}

/// A figure of what was done under the flood.
pub(crate) type Under = fn(&UnderFlood) -> u64;

/// What was wanted under the flood and what came of it, in words; the second of a pair belongs to the first.
const UNDER_FLOOD: [[(&str, Under); 2]; 2] = [
    [("started under the flood", |counts| counts.started), ("  made of these", |counts| counts.made)],
    [("further requests under the flood", |counts| counts.asked), ("  answered of these", |counts| counts.answered)],
];

/// The rows of what any of these wanted under the flood.
pub(crate) fn under_flood<'a>(
    counts: impl Iterator<Item = &'a UnderFlood> + Clone,
) -> impl Iterator<Item = (&'static str, Under)> {
    let wanted = move |[(_, wanted), _]: &[(&str, Under); 2]| counts.clone().any(|counts| wanted(counts) > 0);
    UNDER_FLOOD.into_iter().filter(wanted).flatten()
}

/// What the kernel says.
pub(crate) fn kernel<O>(table: &mut Table, loads: &[&Observed<O>]) {
    let mut row = |name: &str, cell: &dyn Fn(&Observed<O>) -> String| {
        table.row(name, loads.iter().map(|observed| cell(observed)));
    };
    row("new flows dropped (a retry counts again)", &|load| grouped(load.drops.new_flows()));
    row("  table full", &|load| grouped(load.drops.table_full));
    row("  chain too long", &|load| grouped(load.drops.chain_too_long));
    row("  clash lost", &|load| grouped(load.drops.clash_lost));
    row("entries evicted (early_drop)", &|load| grouped(load.drops.evicted));
    row("peak entries", &|load| grouped(load.peak_entries));
    row("nf_conntrack_max at the end", &|load| grouped(load.at_end.max));
    row("nf_conntrack_buckets at the end", &|load| grouped(load.at_end.buckets));
}
