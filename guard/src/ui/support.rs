//! What this host offers.

use std::fmt;

use super::table::{Align, Table};
use crate::kernel::Support;
use crate::kernel::support::Row;

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

#[cfg(test)]
mod tests {
    use super::*;

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
