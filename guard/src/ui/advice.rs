//! What to set, and why.

use std::fmt;

use super::table::{Align, Table};
use crate::advise::{Advice, Advised};
use crate::figures::grouped;

/// What `conntrack-guard advise` prints.
#[derive(Debug)]
pub struct AdviceScreen<'a>(pub &'a Advice);

impl fmt::Display for AdviceScreen<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let advice = self.0;
        writeln!(f, "{}; at most {} entries", advice.basis(), grouped(advice.entries))?;
        let mut rows = Table::new(2, &[(Align::Left, 0), (Align::Right, 0), (Align::Left, 0), (Align::Right, 0)]);
        let mut row = |name: &str, advised: &Advised| {
            let keep = advised.found == advised.advised;
            let arrow = if keep { "keep" } else { "->" };
            let new = if keep { String::new() } else { grouped(advised.advised) };
            rows.row([name, &grouped(advised.found), arrow, &new, &advised.why]);
        };
        row("nf_conntrack_max", &advice.max);
        row("nf_conntrack_buckets", &advice.buckets);
        for (timeout, advised) in &advice.timeouts {
            row(timeout.sysctl(), advised);
        }
        write!(f, "{rows}")?;
        writeln!(f, "Memory: {}", advice.formula())
    }
}
