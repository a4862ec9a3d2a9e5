//! What this host offers: each signal with its back end, each setting with whether it can be written, and why.

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde::Serialize;

use super::ctnetlink::{Socket, told};
use super::symbols::Symbols;
use super::{Attached, BackEnd, Hooks, Options, Signal};
use crate::observe::{Statistics, memory, stats, table};

/// One row of `conntrack-guard support`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The signal or setting.
    pub name: &'static str,
    /// Where it comes from or goes to; `None`: it cannot be had here.
    pub back_end: Option<&'static str>,
    /// Each back end that could supply the signal, the best first. Empty for settings.
    pub back_ends: Vec<Tried>,
    /// What is lost without it, or by taking the next best back end.
    pub lost: Option<String>,
    /// Why it is so, and what would mend it.
    pub why: Option<String>,
}

/// One back end of one signal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tried {
    /// The back end.
    pub back_end: &'static str,
    /// What came of it.
    pub verdict: Verdict,
    /// Why it does not work, or what it does not do as well.
    pub why: Option<String>,
}

/// What came of trying a back end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It works, and the guard takes it.
    Taken,
    /// It works; a better one is taken.
    Works,
    /// It gives an estimate, taken where nothing measures.
    Estimates,
    /// It does not work here.
    No,
}

/// The whole answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Support {
    /// What can be measured.
    pub signals: Vec<Row>,
    /// What can be changed.
    pub settings: Vec<Row>,
}

/// Tries everything and leaves nothing: the programs are attached for a moment, by each back end.
pub fn probe(root: &Path, options: Options) -> Support {
    Support { signals: signals(root, options), settings: settings(root) }
}

fn signals(root: &Path, options: Options) -> Vec<Row> {
    let statistics = stats::Stats::default().read(root);
    let programs = Programs::attach(options);
    let mut rows: Vec<Row> = Signal::ALL.into_iter().map(|signal| programs.row(signal, &statistics)).collect();
    let on = |signal: Signal| rows.iter().any(|row| row.name == signal.name() && row.back_end.is_some());
    let measured = on(Signal::Inserts) && on(Signal::Destroys);
    let mut growth = Row::by("growth", if measured { "inserts - destroys" } else { "proc" });
    if !measured {
        growth.lost = Some("estimated from the count at each tick: a burst between two ticks is not seen".to_owned());
    }
    let file = |name, file: &str, lost| match fs::read(root.join(file)) {
        Ok(_) => Row::by(name, "proc"),
        Err(why) => Row::off(name, lost, format!("/{file}: {why} ({})", way_out(&why))),
    };
    rows.extend(BY_STATISTICS.map(|(name, lost)| by_statistics(name, lost, &statistics)));
    rows.extend([
        growth,
        file("entries", "proc/sys/net/netfilter/nf_conntrack_count", "the guard cannot run"),
        file("entry size", memory::SLABINFO, "the usual size of an entry is taken"),
        census(root),
    ]);
    rows
}

/// What only the statistics tell, and what is lost without them. A hook on the functions would tax each packet or each
/// flow: `nf_conntrack_in` for the last two, `__nf_conntrack_confirm` for the chains.
const BY_STATISTICS: [(&str, &str); 4] = [
    ("evictions", "entries evicted for a full table are unknown"),
    ("chain too long", "flows refused for a long chain are unknown"),
    ("invalid", "packets that no tracker accepts are unknown"),
    ("ICMP errors", "ICMP messages that cannot be used are unknown"),
];

fn by_statistics(name: &'static str, lost: &str, statistics: &Statistics) -> Row {
    let why = statistics.why().map(str::to_owned);
    let tried = |back_end, verdict, why| Tried { back_end, verdict, why };
    // The source that comes first needs no reason; why the first does not do is the second one's.
    if let Some(source) = statistics.source() {
        let mut back_ends = vec![tried(source, Verdict::Taken, None)];
        if why.is_some() {
            back_ends.insert(0, tried("proc", Verdict::No, why.clone()));
        }
        return Row { back_ends, why, ..Row::by(name, source) };
    }
    let back_ends = vec![tried("statistics", Verdict::No, why.clone())];
    Row { back_ends, ..Row::off(name, lost, why.unwrap_or_default()) }
}

/// What each back end with programs came to: as the guard takes them, and alone.
struct Programs {
    chosen: Result<Vec<Attached>, String>,
    alone: Vec<(BackEnd, Result<Vec<Attached>, String>)>,
}

impl Programs {
    fn attach(options: Options) -> Self {
        let attach = |options| {
            let hooks = Hooks::attach(options);
            hooks.map(|hooks| hooks.signals().to_vec()).map_err(|error| error.to_string())
        };
        let chosen = attach(options);
        let wanted =
            BackEnd::WITH_PROGRAMS.into_iter().filter(|only| options.back_end.is_none_or(|wanted| wanted == *only));
        let alone = |only| match options.back_end {
            Some(_) => chosen.clone(),
            None => attach(Options { back_end: Some(only), ..options }),
        };
        let alone = wanted.map(|only| (only, alone(only))).collect();
        Self { chosen, alone }
    }

    fn row(&self, signal: Signal, statistics: &Statistics) -> Row {
        let of = |rows: &[Attached]| rows.iter().find(|row| row.signal == signal).cloned();
        let (taken, why) = match &self.chosen {
            Err(error) => (None, vec![error.clone()]),
            Ok(rows) => of(rows).map_or((None, Vec::new()), |row| (row.back_end, row.why)),
        };
        let mut back_ends: Vec<Tried> = self
            .alone
            .iter()
            .map(|(back_end, rows)| {
                let (works, why) = match rows {
                    Err(error) => (false, vec![error.clone()]),
                    Ok(rows) => of(rows).map_or((false, Vec::new()), |row| (row.back_end.is_some(), row.why)),
                };
                let verdict = match works {
                    true if taken == Some(*back_end) => Verdict::Taken,
                    true => Verdict::Works,
                    false => Verdict::No,
                };
                let prefix = format!("{}: ", back_end.name());
                let why = why.join("; ");
                let why = why.strip_prefix(&prefix).unwrap_or(&why).to_owned();
                Tried { back_end: back_end.name(), verdict, why: (!why.is_empty()).then_some(why) }
            })
            .collect();
        if let (Some(how), Some(source)) = (signal.estimated(), statistics.source()) {
            back_ends.push(Tried { back_end: source, verdict: Verdict::Estimates, why: Some(how.to_owned()) });
        }
        let why = (!why.is_empty()).then(|| why.join("; "));
        match taken {
            // What this one cannot do as well as a better one is little: it costs more.
            Some(back_end) => Row { back_ends, why, ..Row::by(signal.name(), back_end.name()) },
            None => Row { back_ends, ..Row::off(signal.name(), signal.lost(), why.unwrap_or_default()) },
        }
    }
}

/// What the entries are: read through ctnetlink.
fn census(root: &Path) -> Row {
    const NAME: &str = "census";
    let answer = match Symbols::read(root).no_ctnetlink(root) {
        Some(why) => Err(why),
        // One entry is enough to know.
        None => Socket::open()
            .and_then(|socket| socket.entries(|_| ControlFlow::Break(())))
            .map_err(|error| format!("a dump of the entries: {}", told(error))),
    };
    let lost = "a flood is told from growth by how entries end, later and less surely";
    answer.map_or_else(|why| Row::off(NAME, lost, why), |_| Row::by(NAME, "ctnetlink"))
}

/// What would mend a file of the kernel's that cannot be had.
fn way_out(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "`modprobe nf_conntrack`; in a container, give it the host's network and /proc",
        io::ErrorKind::PermissionDenied => "run it as root, without a profile that forbids it",
        io::ErrorKind::ReadOnlyFilesystem => {
            "it is mounted read-only here: mount it for writing, or run it on the host"
        }
        _ => "what the kernel answers",
    }
}

fn settings(root: &Path) -> Vec<Row> {
    let setting = |name| {
        let path = root.join(table::DIRECTORY).join(name);
        match fs::OpenOptions::new().write(true).open(&path) {
            Ok(_) => Row::by(name, "sysctl"),
            Err(why) => {
                // The kernel takes the write bits away in every other namespace (nf_conntrack_standalone_init_sysctl).
                let elsewhere = fs::metadata(&path).is_ok_and(|meta| meta.permissions().mode() & 0o222 == 0);
                let way_out = if elsewhere {
                    "this is not the host's network namespace: run it there (nsenter --net=/proc/1/ns/net; Kubernetes: \
                     hostNetwork: true; containers: --network host)"
                } else {
                    way_out(&why)
                };
                Row::off(name, "stays as it is", format!("{}: {why} ({way_out})", path.display()))
            }
        }
    };
    vec![setting("nf_conntrack_max"), setting("nf_conntrack_buckets")]
}

impl Row {
    fn by(name: &'static str, back_end: &'static str) -> Self {
        Self { name, back_end: Some(back_end), back_ends: Vec::new(), lost: None, why: None }
    }

    fn off(name: &'static str, lost: &str, why: String) -> Self {
        Self { name, back_end: None, back_ends: Vec::new(), lost: Some(lost.to_owned()), why: Some(why) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_cannot_be_written_names_the_way_out() {
        let root = tempfile::tempdir().unwrap();
        let why = |row: &Row| row.why.clone().unwrap();
        assert!(settings(root.path()).iter().all(|row| why(row).contains("modprobe nf_conntrack")));
        assert!(why(&census(root.path())).contains("modprobe nf_conntrack_netlink"));
        assert!(way_out(&io::ErrorKind::PermissionDenied.into()).contains("as root"));
    }
}
