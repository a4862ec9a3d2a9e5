//! The figures of loads, side by side: one column a load.

use bench::churn::Failure;

use crate::table::{Table, grouped, short};
use crate::watch::Observed;

/// Causes of failed connections, in the order in which they are shown; one that never came has no row.
const FAILURES: [Failure; 8] = [
    Failure::ConnectTimeout,
    Failure::Refused,
    Failure::Reset,
    Failure::Unreachable,
    Failure::RequestTimeout,
    Failure::ShortReply,
    Failure::TooMany,
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
    for failure in FAILURES {
        let count = |load: &Observed| load.outcome.failed.get(&failure).copied().unwrap_or(0);
        if loads.iter().any(|(_, load)| count(load) > 0) {
            row(&format!("  {}", failure.words()), &|load| grouped(count(load)));
        }
    }
    row("connect latency (if connected), p50", &|load| short(load.outcome.connect.p50));
    row("connect latency (if connected), p99", &|load| short(load.outcome.connect.p99));
    row("connect latency (if connected), longest", &|load| short(load.outcome.connect.max));
    row("new flows dropped (a retry counts again)", &|load| grouped(load.drops.new_flows()));
    row("  table full", &|load| grouped(load.drops.table_full));
    row("  chain too long", &|load| grouped(load.drops.chain_too_long));
    row("  clash lost", &|load| grouped(load.drops.clash_lost));
    row("entries evicted (early_drop)", &|load| grouped(load.drops.evicted));
    row("peak entries", &|load| grouped(load.peak_entries));
    row("nf_conntrack_max at the end", &|load| grouped(load.at_end.max));
    row("nf_conntrack_buckets at the end", &|load| grouped(load.at_end.buckets));
    row("started later than scheduled, p99", &|load| short(load.outcome.lateness.p99));
    table.render()
}
