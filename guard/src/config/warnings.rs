//! What a valid policy does to the host that its author may not have meant.

use std::time::Duration;

use super::policy::{MemoryLimit, Policy};

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

/// One line for each setting that is valid but does harm, as `key: message`.
pub fn warnings(policy: &Policy) -> Vec<String> {
    let mut lines = Vec::new();
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
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Bounds;

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
}
