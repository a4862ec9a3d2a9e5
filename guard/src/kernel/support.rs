//! What this host offers: each signal with its back end, each setting with whether it can be written, and why.

use std::path::Path;

use serde::Serialize;

use super::Programs;
use crate::observe::{memory, stats, table};

/// One row of `conntrack-guard support`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The signal or setting.
    pub name: &'static str,
    /// Where it comes from or goes to; `None`: it cannot be had here.
    pub back_end: Option<&'static str>,
    /// What is lost without it, or by taking the next best back end.
    pub lost: Option<String>,
    /// Why it is so, and what would mend it.
    pub why: Option<String>,
}

/// The whole answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Support {
    /// What can be measured.
    pub signals: Vec<Row>,
    /// What can be changed.
    pub settings: Vec<Row>,
}

/// Tries everything without changing anything: the programs are loaded, not attached.
pub fn probe(root: &Path) -> Support {
    Support { signals: signals(root), settings: settings(root) }
}

fn signals(root: &Path) -> Vec<Row> {
    let refused = Programs::load().err().map(|error| error.to_string());
    let hook = |name, back_end, lost| match &refused {
        None => Row::here(name, back_end),
        Some(why) => Row::off(name, lost, why.clone()),
    };
    let file = |name, file: &str, lost| match std::fs::read(root.join(file)) {
        Ok(_) => Row::here(name, "proc"),
        Err(why) => Row::off(name, lost, format!("/{file}: {why}")),
    };
    let mut growth = Row::here("growth", if refused.is_none() { "fexit, fentry" } else { "proc" });
    if refused.is_some() {
        growth.lost = Some("estimated from the count at each tick: a burst between two ticks is not seen".to_owned());
        growth.why.clone_from(&refused);
    }
    vec![
        hook("inserts", "fexit __nf_conntrack_hash_insert", "the rate of new entries is unknown; no statistic has it"),
        hook("destroys", "fentry nf_conntrack_free", "the rate at which entries go is unknown"),
        hook("chain lengths", "fexit __nf_conntrack_hash_insert", "chains are not measured; skew stays unseen"),
        hook("table full", "fexit early_drop", "seen only in the statistic \"drop\", together with lost clashes"),
        growth,
        file("entries", "proc/sys/net/netfilter/nf_conntrack_count", "the guard cannot run"),
        file("statistics", stats::FILE, "drops by cause are unknown (CONFIG_NF_CONNTRACK_PROCFS)"),
        file("entry size", memory::SLABINFO, "the usual 256 bytes are taken"),
    ]
}

fn settings(root: &Path) -> Vec<Row> {
    let setting = |name| {
        let path = root.join(table::DIRECTORY).join(name);
        match std::fs::OpenOptions::new().write(true).open(&path) {
            Ok(_) => Row::here(name, "sysctl"),
            Err(why) => Row::off(name, "stays as it is", format!("{}: {why}", path.display())),
        }
    };
    vec![setting("nf_conntrack_max"), setting("nf_conntrack_buckets")]
}

impl Row {
    fn here(name: &'static str, back_end: &'static str) -> Self {
        Self { name, back_end: Some(back_end), lost: None, why: None }
    }

    fn off(name: &'static str, lost: &str, why: String) -> Self {
        Self { name, back_end: None, lost: Some(lost.to_owned()), why: Some(why) }
    }
}
