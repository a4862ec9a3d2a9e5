//! What each kind of change was expected to do, held against what came of it.
//!
//! Judged is what a reader of `status` and of the audit log sees: the count (or the stall) that a change foretold for the end
//! of its horizon, moved by what changes decided after it and due before were foretold to add or to take, beside what was
//! there then. Where readings were missing, or another program wrote the setting, there is nothing to judge.

mod loads;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use conntrack_guard::observe::Timeout;
use conntrack_guard::policy::{Rule, Setting, Settled};

use crate::closed_loop::run;
use crate::foresight::weighed_quantile;
use crate::kernel::noise::Noise;
use crate::many::number;
use crate::scenario::Scenario;

/// Decisions of each kind that are judged each time, and in the long run.
const SHARE: usize = 20;
const LEAST: usize = 100;
/// The median error of each kind is this at most.
const MOST: f64 = 0.15;
/// No part takes so many histories.
const HISTORIES: u64 = 400;
/// The timeouts that are ever shortened. How entries of the others end no hook tells: the retransmission timeouts shorten a
/// connection's time in any state, and GRE is counted with protocols that have no tracker.
const CUT: [Timeout; 13] = [
    Timeout::TcpSynSent,
    Timeout::TcpSynRecv,
    Timeout::TcpEstablished,
    Timeout::TcpFinWait,
    Timeout::TcpCloseWait,
    Timeout::TcpLastAck,
    Timeout::TcpTimeWait,
    Timeout::TcpClose,
    Timeout::Udp,
    Timeout::UdpStream,
    Timeout::Icmp,
    Timeout::Icmpv6,
    Timeout::Generic,
];

/// The kinds of change, each of them judged by itself.
const RULES: [Rule; 6] =
    [Rule::RaiseMax, Rule::RelaxMax, Rule::PresizeBuckets, Rule::GrowBuckets, Rule::ShortenTimeout, Rule::RelaxTimeout];

/// A kind of change, and of those that change timeouts the timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Part {
    rule: Rule,
    timeout: Option<Timeout>,
}

impl Part {
    /// Those of a kind, which weigh the same in its figures.
    fn of(rule: Rule) -> Vec<Self> {
        let timeouts = CUT.into_iter().filter(|timeout| match rule {
            Rule::ShortenTimeout => true,
            // It would be given back days later.
            Rule::RelaxTimeout => *timeout != Timeout::TcpEstablished,
            _ => false,
        });
        let parts: Vec<_> = timeouts.map(|timeout| Self { rule, timeout: Some(timeout) }).collect();
        if parts.is_empty() { vec![Self { rule, timeout: None }] } else { parts }
    }

    fn made(settled: &Settled) -> Self {
        let timeout = match settled.setting {
            Setting::Timeout(timeout) => Some(timeout),
            Setting::Max | Setting::Buckets => None,
        };
        Self { rule: settled.rule, timeout }
    }

    fn name(self) -> String {
        let timeout = self.timeout.map(|timeout| format!(" {}", timeout.name()));
        self.rule.name().to_owned() + &timeout.unwrap_or_default()
    }

    /// A history in which such a change is made.
    fn history(self, seed: u64) -> Scenario {
        let mut noise = Noise::new(seed);
        let mut scenario = match (self.rule, self.timeout) {
            (Rule::GrowBuckets, _) => loads::long_chains(&mut noise),
            (_, Some(timeout)) => loads::under_a_ceiling(timeout, &mut noise),
            (_, None) => loads::growth(&mut noise),
        };
        scenario.name = format!("{} {seed}", self.name());
        scenario.seed = noise.bits();
        scenario.machine.resize_nanos = noise.between(300.0, 1_500.0);
        scenario
    }

    /// Histories until so many changes of this part were judged: all their errors, and how many histories it took.
    fn errors(self, place: usize, least: usize, first: u64) -> (Vec<(Self, f64)>, u64) {
        let mut errors = Vec::new();
        let mut own = 0;
        for seed in 0..HISTORIES {
            if own >= least {
                return (errors, seed);
            }
            let outcome = run(&self.history(first + 1_000_000 * (place as u64 + 1) + seed));
            for settled in &outcome.settled {
                own += usize::from(Self::made(settled) == self);
                errors.push((Self::made(settled), settled.error));
            }
        }
        (errors, HISTORIES)
    }
}

#[test]
fn what_changes_do_is_foreseen() {
    judge(SHARE, 0);
}

#[test]
#[ignore = "takes minutes in a debug build: see docs/simulator.md"]
fn what_a_hundred_changes_of_each_kind_do_is_foreseen() {
    judge(LEAST, number("FROM").unwrap_or(0));
}

/// All errors, and how many histories they took.
#[derive(Debug, Default)]
struct Judged {
    errors: BTreeMap<Part, Vec<f64>>,
    histories: u64,
}

/// Collects so many decisions of each kind (or of the one that `KIND` names), prints how far they were off, and holds the
/// medians down.
fn judge(least: usize, first: u64) {
    let begin = Instant::now();
    let only = std::env::var("KIND").ok();
    let wanted = |part: &Part| only.as_ref().is_none_or(|only| part.name().starts_with(only.as_str()));
    let each = |rule| least.div_ceil(Part::of(rule).len());
    let (next, judged) = (AtomicUsize::new(0), Mutex::new(Judged::default()));
    let work = || {
        let all: Vec<Part> = RULES.into_iter().flat_map(Part::of).collect();
        while let place = next.fetch_add(1, Ordering::Relaxed)
            && let Some(part) = all.get(place)
        {
            if wanted(part) {
                let (errors, histories) = part.errors(place, each(part.rule), first);
                let mut judged = judged.lock().unwrap();
                judged.histories += histories;
                for (part, error) in errors {
                    judged.errors.entry(part).or_default().push(error);
                }
            }
        }
    };
    thread::scope(|scope| (0..thread::available_parallelism().unwrap().get()).for_each(|_| drop(scope.spawn(work))));
    let Judged { errors, histories } = judged.into_inner().unwrap();
    println!(
        "{histories} histories in {:.0} s; error of what was expected, of what came or of 1 % of max if that is more:",
        begin.elapsed().as_secs_f64()
    );
    println!("{:<36} {:>9} {:>8} {:>8}", "kind of change", "decisions", "median", "p90");
    let mut wrong = Vec::new();
    for rule in RULES {
        let mut of_rule = Vec::new();
        for part in Part::of(rule).into_iter().filter(wanted) {
            let errors = errors.get(&part).map_or(&[][..], Vec::as_slice);
            let weighed: Vec<_> = errors.iter().map(|error| (*error, 1.0 / errors.len() as f64)).collect();
            if errors.len() < each(rule) {
                wrong.push(format!("{}: {}", part.name(), errors.len()));
            }
            if part.timeout.is_some() {
                tell(&format!("  {}", part.name()), &weighed);
            }
            of_rule.extend(weighed);
        }
        if !of_rule.is_empty() && tell(rule.name(), &of_rule) > MOST {
            wrong.push(rule.name().to_owned());
        }
    }
    assert!(wrong.is_empty(), "too few or not foreseen: {wrong:?}");
}

/// Prints the errors, each with its weight. Answers with their median.
fn tell(name: &str, errors: &[(f64, f64)]) -> f64 {
    let (median, most) = (weighed_quantile(errors, 0.5), weighed_quantile(errors, 0.9));
    println!("{name:<36} {:>9} {:>6.1} % {:>6.1} %", errors.len(), 100.0 * median, 100.0 * most);
    median
}
