//! Did the demo show what it is there to show? Pure.

use std::process::ExitStatus;

use bench::conntrack::Settings;

use crate::scale::Scale;
use crate::status::BackEnd;
use crate::table::grouped;
use crate::watch::Observed;

/// What the run with the guard left behind, beside its load.
#[derive(Clone, Debug)]
pub(super) struct Guarded<'a> {
    /// What its load did to the table.
    pub load: &'a Observed,
    /// What the guard's figures came from.
    pub back_end: &'a BackEnd,
    /// How the guard ended.
    pub exit: ExitStatus,
    /// The settings after its end.
    pub after: Settings,
    /// Bytes that one entry takes, at least.
    pub entry_bytes: u64,
    /// Bytes that entries at max and buckets may take together.
    pub memory_limit: u64,
}

/// Everything that is wrong; nothing, if the demo showed what it should.
pub(super) fn problems(stock: &Observed, guarded: &Guarded<'_>) -> Vec<String> {
    let (mut all, floor, ceilings) = (Vec::new(), Scale::DEMO.stock(), Scale::DEMO.ceilings());
    let mut check = |fine: bool, problem: &dyn Fn() -> String| {
        if !fine {
            all.push(problem());
        }
    };
    let load = guarded.load;
    check(stock.drops.new_flows() > 0, &|| "the stock kernel dropped nothing: the demo showed nothing".to_owned());
    check(load.drops.new_flows() == 0, &|| {
        format!("{} new flows were dropped with the guard", grouped(load.drops.new_flows()))
    });
    check(load.outcome.failures() == 0, &|| {
        format!("{} connections failed with the guard", grouped(load.outcome.failures()))
    });
    check(load.peak_entries > floor.max, &|| {
        format!("{} entries at most: the stock table would have held them", grouped(load.peak_entries))
    });
    for (name, lowest, highest, floor, ceiling) in [
        ("nf_conntrack_max", load.lowest.max, load.highest.max, floor.max, ceilings.max),
        ("nf_conntrack_buckets", load.lowest.buckets, load.highest.buckets, floor.buckets, ceilings.buckets),
    ] {
        check(lowest >= floor && highest <= ceiling, &|| {
            let [lowest, highest, floor, ceiling] = [lowest, highest, floor, ceiling].map(grouped);
            format!("{name} went from {lowest} to {highest}: the policy allows {floor} to {ceiling}")
        });
    }
    let bytes = load.highest.max * guarded.entry_bytes + load.highest.buckets * 8;
    check(bytes <= guarded.memory_limit, &|| {
        let [bytes, limit] = [bytes, guarded.memory_limit].map(grouped);
        format!("a full table would take {bytes} bytes: the policy allows {limit}")
    });
    check(guarded.back_end.measured, &|| {
        let reason = guarded.back_end.reason.as_deref().unwrap_or("no reason given");
        format!("the guard ran without its eBPF programs: {reason}")
    });
    check(guarded.exit.success(), &|| format!("the guard ended with {}", guarded.exit));
    check(guarded.after == floor, &|| {
        let [max, buckets] = [guarded.after.max, guarded.after.buckets].map(grouped);
        format!("the guard's stop left max {max} and buckets {buckets}, found were {} each", grouped(floor.max))
    });
    all
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::time::Duration;

    use bench::churn::{Failure, Outcome};
    use bench::conntrack::Drops;

    use super::*;

    const FLOOR: Settings = Settings { max: 8_192, buckets: 8_192 };

    fn observed(dropped: u64, peak_entries: u64, highest: Settings) -> Observed {
        let outcome =
            Outcome { started: 17_500, made: 17_500, elapsed: Duration::from_secs(35), ..Outcome::new().unwrap() };
        let drops = Drops { table_full: dropped, ..Drops::default() };
        Observed { outcome, drops, peak_entries, lowest: FLOOR, highest, at_end: highest }
    }

    fn back_end() -> BackEnd {
        BackEnd { name: "fentry".to_owned(), measured: true, reason: None }
    }

    const RAISED: Settings = Settings { max: 32_768, buckets: 65_536 };

    fn guarded<'a>(load: &'a Observed, back_end: &'a BackEnd) -> Guarded<'a> {
        let (exit, after) = (ExitStatus::from_raw(0), FLOOR);
        Guarded { load, back_end, exit, after, entry_bytes: 256, memory_limit: 48 << 20 }
    }

    #[test]
    fn a_demo_that_showed_what_it_should_has_no_problems() {
        let (stock, load, back_end) = (observed(900, 8_192, FLOOR), observed(0, 17_500, RAISED), back_end());
        assert_eq!(problems(&stock, &guarded(&load, &back_end)), [""; 0]);
    }

    #[test]
    fn everything_that_went_wrong_is_told_at_once() {
        let stock = observed(0, 8_192, FLOOR);
        let mut load = observed(3, 8_192, Settings { max: 262_144, buckets: 65_536 });
        load.lowest.buckets = 512;
        load.outcome.failed.insert(Failure::ConnectTimeout, 2);
        let back_end = BackEnd { name: "proc".into(), measured: false, reason: Some("refused".into()) };
        let guarded = Guarded { exit: ExitStatus::from_raw(1 << 8), after: RAISED, ..guarded(&load, &back_end) };
        assert_eq!(
            problems(&stock, &guarded),
            [
                "the stock kernel dropped nothing: the demo showed nothing",
                "3 new flows were dropped with the guard",
                "2 connections failed with the guard",
                "8,192 entries at most: the stock table would have held them",
                "nf_conntrack_max went from 8,192 to 262,144: the policy allows 8,192 to 131,072",
                "nf_conntrack_buckets went from 512 to 65,536: the policy allows 8,192 to 131,072",
                "a full table would take 67,633,152 bytes: the policy allows 50,331,648",
                "the guard ran without its eBPF programs: refused",
                "the guard ended with exit status: 1",
                "the guard's stop left max 32,768 and buckets 65,536, found were 8,192 each",
            ]
        );
    }
}
