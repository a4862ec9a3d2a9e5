//! What this host offers: each signal with its back end, each setting with whether it can be written, and why.

use std::path::Path;

use serde::Serialize;

use super::{Attached, Hooks, Options, Signal};
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

/// Tries everything and leaves nothing: the programs are attached for a moment.
pub fn probe(root: &Path, options: Options) -> Support {
    Support { signals: signals(root, options), settings: settings(root) }
}

fn signals(root: &Path, options: Options) -> Vec<Row> {
    let attached = Hooks::attach(options);
    let hook = |signal: Signal| match &attached {
        Err(error) => Row::off(signal.name(), signal.lost(), error.to_string()),
        Ok(hooks) => match hooks.signals().iter().find(|row| row.signal == signal) {
            Some(Attached { back_end: Some(back_end), why, .. }) => {
                // What this one cannot do as well as a better one is little: it costs more.
                let why = (!why.is_empty()).then(|| why.join("; "));
                Row { why, ..Row::here(signal.name(), back_end.name()) }
            }
            row => Row::off(signal.name(), signal.lost(), row.map(|row| row.why.join("; ")).unwrap_or_default()),
        },
    };
    let file = |name, file: &str, lost| match std::fs::read(root.join(file)) {
        Ok(_) => Row::here(name, "proc"),
        Err(why) => Row::off(name, lost, format!("/{file}: {why}")),
    };
    let mut rows: Vec<Row> = Signal::ALL.into_iter().map(hook).collect();
    let on = |signal: Signal| rows.iter().any(|row| row.name == signal.name() && row.back_end.is_some());
    let measured = on(Signal::Inserts) && on(Signal::Destroys);
    let mut growth = Row::here("growth", if measured { "inserts - destroys" } else { "proc" });
    if !measured {
        growth.lost = Some("estimated from the count at each tick: a burst between two ticks is not seen".to_owned());
    }
    rows.extend([
        growth,
        file("entries", "proc/sys/net/netfilter/nf_conntrack_count", "the guard cannot run"),
        file("statistics", stats::FILE, "drops by cause are unknown (CONFIG_NF_CONNTRACK_PROCFS)"),
        file("entry size", memory::SLABINFO, "the usual size of an entry is taken"),
    ]);
    rows
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
