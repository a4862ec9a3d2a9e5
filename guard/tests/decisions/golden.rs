//! Whole plans, word for word, over short histories. `GOLDEN=write` writes the files anew: read the difference.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use conntrack_guard::config::{Policy, parse};
use conntrack_guard::observe::TableReading;
use conntrack_guard::policy::Plan;

use crate::table::Simulation;

/// A history: for so many seconds, so many new flows a second.
fn check(name: &str, policy: &str, table: TableReading, history: &[(u64, f64)]) {
    let policy: Policy = parse(name, policy).unwrap();
    let mut simulation = Simulation::new(policy, table, true);
    let mut told: Vec<Plan> = Vec::new();
    for (seconds, rate) in history {
        for plan in simulation.run(*rate, Duration::from_secs(*seconds)) {
            let news = !plan.changes.is_empty()
                || !plan.settled.is_empty()
                || told.last().is_none_or(|last| last.held != plan.held);
            if news {
                told.push(plan);
            }
        }
    }
    let found = serde_json::to_string_pretty(&told).unwrap() + "\n";
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.json"));
    if std::env::var_os("GOLDEN").is_some_and(|value| value == "write") {
        fs::write(&path, &found).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap();
    assert!(found == expected, "{} differs; the plans now are:\n{found}", path.display());
}

#[test]
fn a_surge_on_a_host_with_room() {
    let table = TableReading { max: 65_536, buckets: 16_384, count: 300 };
    check("surge", "", table, &[(5, 0.0), (20, 12_000.0), (60, 0.0)]);
}

#[test]
fn a_surge_under_a_low_ceiling() {
    let policy = "table.max.ceiling = 20000\nhash.buckets.ceiling = 20000";
    let table = TableReading { max: 8_192, buckets: 8_192, count: 10 };
    check("low-ceiling", policy, table, &[(3, 0.0), (20, 1_500.0)]);
}

#[test]
fn a_surge_on_little_memory() {
    let table = TableReading { max: 32_768, buckets: 8_192, count: 10 };
    check("little-memory", "table.memory-limit = \"24MiB\"", table, &[(3, 0.0), (20, 4_000.0)]);
}

#[test]
fn a_start_on_a_busy_table() {
    let table = TableReading { max: 262_144, buckets: 65_536, count: 200_000 };
    check("busy-start", "", table, &[(30, 0.0)]);
}

#[test]
fn a_host_set_beyond_its_policy() {
    let policy = "table.max = { floor = 1000, ceiling = 100000 }\nhash.buckets.ceiling = 16384";
    let table = TableReading { max: 262_144, buckets: 65_536, count: 90_000 };
    check("found-out-of-bounds", policy, table, &[(10, 20_000.0)]);
}
