//! Which signals the eBPF programs supply, told in the status and in the log.

use tracing::{info, warn};

use super::status::{BackEnd, SignalNow, StatisticsNow};
use crate::kernel::{self, Attached, Signal};

/// The growth's back end stands for the whole: it is what the decisions rest on.
pub(super) fn back_end(hooks: &Result<&[Attached], String>) -> BackEnd {
    let of = |wanted| hooks.as_ref().ok()?.iter().find(|row| row.signal == wanted)?.back_end;
    if let (Some(inserts), Some(_)) = (of(Signal::Inserts), of(Signal::Destroys)) {
        return BackEnd { name: inserts.name().into(), measured: true, reason: None };
    }
    let off = |rows: &[Attached]| {
        let rows = rows.iter().filter(|row| row.back_end.is_none());
        rows.map(|row| format!("{}: {}", row.signal.name(), row.why.join("; "))).collect::<Vec<_>>().join("; ")
    };
    let reason = hooks.as_ref().map_or_else(Clone::clone, |rows| off(rows));
    BackEnd { name: kernel::BackEnd::Proc.name().into(), measured: false, reason: Some(reason) }
}

/// A signal as the status tells it.
pub(super) fn now(row: &Attached) -> SignalNow {
    SignalNow {
        signal: row.signal.name().into(),
        back_end: row.back_end.map(|back_end| back_end.name().into()),
        why: row.why.clone(),
    }
}

/// Takes the chains out of the signals, once: walks that stray say that this kernel is not as its BTF says.
pub(super) fn strayed(signals: &mut [SignalNow], walks: u64) {
    let chains = signals.iter_mut().find(|row| row.signal == Signal::Chains.name() && row.back_end.is_some());
    if let (Some(row), 1..) = (chains, walks) {
        let reason = kernel::strayed(walks);
        warn!(reason, "{} off: {}", row.signal, Signal::Chains.lost());
        row.back_end = None;
        row.why.push(reason);
    }
}

/// Why signals that are on do not come by what would be best, each reason once with the names of its signals.
fn short_of_the_best(signals: &[Attached]) -> Vec<(String, String)> {
    let mut told: Vec<(String, String)> = Vec::new();
    for row in signals.iter().filter(|row| row.back_end.is_some() && !row.why.is_empty()) {
        let why: Vec<&str> = row.why.iter().filter_map(|why| why.lines().next()).collect();
        let (reason, name) = (why.join("; "), row.signal.name());
        match told.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, names)) => *names = format!("{names}, {name}"),
            None => told.push((reason, name.to_owned())),
        }
    }
    told
}

/// One line for all, one for each reason why some are not as they could be, and one for each that is off.
pub(super) fn log(signals: &[Attached]) {
    let on = signals.iter().filter_map(|row| Some(format!("{} ({})", row.signal.name(), row.back_end?.name())));
    info!("measured by eBPF programs: {}", on.collect::<Vec<_>>().join(", "));
    for (reason, names) in short_of_the_best(signals) {
        info!(reason, "measured, though not at the best: {names}");
    }
    for row in signals.iter().filter(|row| row.back_end.is_none()) {
        warn!(reason = row.why.join("; "), "{} off: {}", row.signal.name(), row.signal.lost());
    }
}

/// Through what the kernel's statistics are read, when that is not as it was.
pub(super) fn log_statistics(now: &StatisticsNow) {
    match (&now.source, &now.why) {
        (Some(source), None) => info!("the kernel's statistics come from {source}"),
        (Some(source), Some(reason)) => info!(reason, "the kernel's statistics come from {source}"),
        (None, reason) => warn!(reason, "no statistics of the kernel: drops that no hook counts are unknown"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_told_once_with_all_that_it_touches() {
        let row = |signal, on: bool, why: &[&str]| Attached {
            signal,
            back_end: on.then_some(kernel::BackEnd::Tracing),
            why: why.iter().map(|why| (*why).to_owned()).collect(),
        };
        let rows = [
            row(Signal::Inserts, true, &["no BTF\nof the module"]),
            row(Signal::Chains, true, &["every insert is walked: no address"]),
            row(Signal::Destroys, true, &["no BTF"]),
            row(Signal::TableFull, true, &[]),
            row(Signal::Clashes, false, &["no BTF"]),
        ];
        let told = short_of_the_best(&rows);
        let expected = [("no BTF", "inserts, destroys"), ("every insert is walked: no address", "chains")];
        assert_eq!(told, expected.map(|(reason, names)| (reason.to_owned(), names.to_owned())));
    }
}
