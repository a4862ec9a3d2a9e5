//! What a valid policy does to the host that its author may not have meant.

use std::time::Duration;

use super::harms::{harm, harmless};
use super::policy::{MemoryLimit, Policy, Restore};
use crate::figures::time;
use crate::model::ResizeCost;
use crate::observe::Timeout;

/// Above this share of the host's memory, a full table leaves too little for what the host is there for.
const MUCH_MEMORY: f64 = 50.0;
/// Above this share of max, one burst between two looks fills the rest.
const HIGH_MARK: f64 = 0.95;
/// Below this, a raise comes hardly earlier than the level alone would bring it.
const SHORT_HORIZON: Duration = Duration::from_secs(2);
/// Above this, a resize is an outage: health checks and VRRP advertisements (1 s apart) go missing.
const LONG_STALL: Duration = Duration::from_millis(500);
/// Entries at max for each bucket at its ceiling; each flow sits in two chains, so this means chains of 16 on average.
const MANY_ENTRIES_PER_BUCKET: u64 = 8;

/// `struct nf_conn` is never smaller on 64 bits.
const SMALLEST_ENTRY: u64 = 256;
/// The ceiling of max where the policy sets none.
const DEFAULT_CEILING: u64 = 4_194_304;
/// Below this, loads that come in waves find everything taken back between two of them.
const SHORT_CALM: Duration = Duration::from_mins(3);

/// One line for each setting that is valid but does harm, as `key: message`.
pub fn warnings(policy: &Policy) -> Vec<String> {
    let mut lines = Vec::new();
    table(policy, &mut lines);
    hash(policy, &mut lines);
    timeouts(policy, &mut lines);
    the_rest(policy, &mut lines);
    lines
}

fn table(policy: &Policy, lines: &mut Vec<String>) {
    if let MemoryLimit::Percent(share) = policy.table.memory_limit
        && share > MUCH_MEMORY
    {
        lines.push(format!(
            "table.memory-limit: {share} % lets the table take more than half of the host's memory, which the kernel \
             never gives to anything else while entries live; 10 % is enough for most gateways"
        ));
    }
    if policy.table.high_water > HIGH_MARK {
        lines.push(format!(
            "table.high-water: {} leaves little room for a burst between two looks at the table; 0.80 is usual",
            policy.table.high_water
        ));
    }
    if policy.table.horizon < SHORT_HORIZON {
        lines.push("table.horizon: under 2 s the forecast sees growth hardly before the table is full".to_owned());
    }
    if let (MemoryLimit::Bytes(limit), Some(floor)) = (policy.table.memory_limit, policy.table.max.floor)
        && floor.saturating_mul(SMALLEST_ENTRY) > limit
    {
        lines.push(format!(
            "table.max.floor: {floor} entries take more than table.memory-limit, so max can never be raised; lower the \
             floor or raise the limit"
        ));
    }
}

fn hash(policy: &Policy, lines: &mut Vec<String>) {
    if policy.hash.max_stall > LONG_STALL {
        lines.push(
            "hash.max-stall: over 500 ms a resize holds up all conntrack packets long enough to fail health checks and \
             VRRP"
                .to_owned(),
        );
    }
    if let (Some(entries), Some(buckets)) = (policy.table.max.ceiling, policy.hash.buckets.ceiling)
        && entries / buckets.max(1) > MANY_ENTRIES_PER_BUCKET
    {
        lines.push(format!(
            "hash.buckets.ceiling: {buckets} buckets for {entries} entries make chains of more than 16 entries, which \
             every new flow has to walk twice; give at least a half of table.max.ceiling"
        ));
    }
    let ceiling = policy.table.max.ceiling.unwrap_or(DEFAULT_CEILING);
    let stall = ResizeCost::default().stall(ceiling);
    if policy.hash.resize_window.is_some() && stall > LONG_STALL {
        lines.push(format!(
            "hash.resize-window: a resize with {ceiling} entries, as max may become, stalls all conntrack packets for {}: \
             long enough to fail health checks and VRRP",
            time(stall)
        ));
    }
}

fn timeouts(policy: &Policy, lines: &mut Vec<String>) {
    if !policy.timeouts.shorten && !policy.timeouts.floors.is_empty() {
        lines.push("timeouts.shorten: off, so the floors of the timeouts have no effect".to_owned());
        return;
    }
    for timeout in Timeout::ALL {
        let (floor, harmless) = (policy.timeouts.floor(timeout), harmless(timeout));
        if floor < harmless {
            let name = timeout.name();
            lines.push(format!("timeouts.{name}.floor: {floor} s; below {harmless} s {}", harm(timeout)));
        }
    }
}

fn the_rest(policy: &Policy, lines: &mut Vec<String>) {
    if policy.relax.after < SHORT_CALM {
        lines.push(
            "relax.after: under 3 min, loads that come in waves have every change taken back and made again".to_owned(),
        );
    }
    if !policy.flood.detect {
        lines.push(
            "flood.detect: off, so a flood raises max like any growth, up to the ceiling and the memory limit"
                .to_owned(),
        );
    }
    if policy.stop.restore == Restore::Now {
        lines.push(
            "stop.restore: \"now\" resizes the hash table at a stop whatever that stalls; \"when-safe\" leaves it to \
             `conntrack-guard restore`"
                .to_owned(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Bounds, Window, parse};

    #[test]
    fn the_default_policy_warns_of_nothing() {
        assert_eq!(warnings(&Policy::default()), Vec::<String>::new());
    }

    #[test]
    fn each_harm_is_named_with_its_key() {
        let mut policy = Policy::default();
        policy.table.memory_limit = MemoryLimit::Percent(60.0);
        policy.table.high_water = 0.97;
        policy.table.horizon = Duration::from_secs(1);
        policy.table.max = Bounds { floor: None, ceiling: Some(1_000_000) };
        policy.hash.max_stall = Duration::from_secs(1);
        policy.hash.buckets = Bounds { floor: None, ceiling: Some(65_536) };
        let keys = warnings(&policy).iter().map(|line| line.split(':').next().unwrap().to_owned()).collect::<Vec<_>>();
        assert_eq!(
            keys,
            ["table.memory-limit", "table.high-water", "table.horizon", "hash.max-stall", "hash.buckets.ceiling"]
        );
    }

    /// The only warning of a file.
    fn warning(text: &str) -> String {
        let lines = warnings(&parse("p.toml", text).unwrap());
        assert_eq!(lines.len(), 1, "{text}: {lines:?}");
        lines[0].clone()
    }

    #[test]
    fn timeouts_below_what_the_rfcs_ask_for_are_named() {
        assert_eq!(
            warning("timeouts.tcp-established.floor = \"1h\""),
            "timeouts.tcp-established.floor: 3600 s; below 7440 s silent connections break: RFC 5382 asks for 7440 s, and \
             Linux's keepalive needs up to 7875 s"
        );
        assert_eq!(
            warning("timeouts.udp-stream.floor = \"119s\""),
            "timeouts.udp-stream.floor: 119 s; below 120 s silent streams lose their NAT mapping: RFC 4787 asks for 120 s"
        );
        assert!(warning("timeouts.tcp-close-wait.floor = \"59s\"").contains("behind SNAT"));
        for timeout in Timeout::ALL {
            let floor = harmless(timeout);
            let at = |floor: u64| format!("timeouts.{}.floor = \"{floor}s\"", timeout.name());
            assert_eq!(warnings(&parse("p.toml", &at(floor)).unwrap()), Vec::<String>::new());
            assert!(warning(&at(floor - 1)).starts_with(&format!("timeouts.{}.floor: ", timeout.name())));
        }
    }

    #[test]
    fn what_undoes_itself_or_harms_a_stop_is_named() {
        assert!(warning("relax.after = \"1m\"").starts_with("relax.after: under 3 min"));
        assert!(warning("flood.detect = false").starts_with("flood.detect: off"));
        assert!(warning("stop.restore = \"now\"").starts_with("stop.restore: \"now\" resizes"));
        assert!(warning("timeouts = { shorten = false, udp.floor = \"1s\" }").starts_with("timeouts.shorten: off"));
        let low = "table = { memory-limit = \"1MiB\", max.floor = 4097 }";
        assert!(warning(low).starts_with("table.max.floor: 4097 entries take more than table.memory-limit"));
    }

    #[test]
    fn a_window_is_named_where_the_table_may_become_large() {
        let window = "hash.resize-window = \"02:00-04:00\"";
        assert!(warning(window).starts_with("hash.resize-window: a resize with 4194304 entries"));
        let mut small = parse("p.toml", window).unwrap();
        assert!(small.hash.resize_window.is_some_and(|Window { from, .. }| from == Duration::from_hours(2)));
        small.table.max.ceiling = Some(500_000);
        assert_eq!(warnings(&small), Vec::<String>::new());
    }
}
