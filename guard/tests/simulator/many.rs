//! Many histories, on all CPUs that this process may use, and what they came to.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use conntrack_guard::policy::Rule;
use nix::time::{ClockId, clock_gettime};

use crate::outcome::Outcome;
use crate::random::Kind;

/// Between two lines on how far it is.
const PROGRESS: Duration = Duration::from_secs(30);

/// A number from the environment.
pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

/// The histories from this number on.
#[derive(Clone, Copy, Debug)]
pub struct Many {
    pub first: u64,
    pub count: u64,
}

/// What they came to.
#[derive(Debug, Default)]
struct Sum {
    /// For each kind: histories, CPU time and looks that the guard took.
    kinds: BTreeMap<Kind, (u64, Duration, u64)>,
    /// Histories in which flows were dropped.
    dropped: u64,
    /// Changes by each rule.
    made: BTreeMap<&'static str, u64>,
    wrong: Vec<String>,
}

impl Many {
    /// Runs them all, tells how far it is and each failure at once, and fails if there was any.
    pub fn run(self, judge: impl Fn(u64) -> Result<(Kind, Outcome), String> + Sync) {
        let Self { first, count } = self;
        let (next, sum, begin) = (AtomicU64::new(first), Mutex::new(Sum::default()), Instant::now());
        let work = || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= first + count {
                    return;
                }
                let before = cpu_time();
                let judged = judge(seed);
                let took = cpu_time().saturating_sub(before);
                sum.lock().unwrap().add(judged, took);
            }
        };
        let cores = thread::available_parallelism().unwrap().get();
        thread::scope(|scope| {
            let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
            let mut told = begin;
            while workers.iter().any(|worker| !worker.is_finished()) {
                thread::sleep(Duration::from_millis(20));
                if told.elapsed() >= PROGRESS {
                    told = Instant::now();
                    // Those under way may be cut short.
                    let done = (next.load(Ordering::Relaxed) - first).saturating_sub(cores as u64).min(count);
                    self.tell(done, begin.elapsed().as_secs_f64());
                }
            }
        });
        let sum = sum.into_inner().unwrap();
        println!("{count} histories from {first} on, {:.0} s on {cores} CPUs\n{sum}", begin.elapsed().as_secs_f64());
        assert!(sum.wrong.is_empty(), "{} of them went wrong, see above", sum.wrong.len());
        sum.says_something(count);
    }

    fn tell(self, done: u64, seconds: f64) {
        let Self { first, count } = self;
        let rate = done as f64 / seconds;
        let to_go = (count - done) as f64 / rate.max(1e-9);
        println!(
            "{done} of {count} histories, {rate:.0} a second, {:.0} min to go; all below {} are done",
            (to_go / 60.0).ceil(),
            first + done
        );
    }
}

impl Sum {
    fn add(&mut self, judged: Result<(Kind, Outcome), String>, took: Duration) {
        match judged {
            Ok((kind, outcome)) => {
                let (histories, time, looks) = self.kinds.entry(kind).or_default();
                *histories += 1;
                *time += took;
                *looks += outcome.ticks;
                self.dropped += u64::from(outcome.dropped() >= 1.0);
                for made in outcome.changes {
                    *self.made.entry(made.change.rule.name()).or_default() += 1;
                }
            }
            Err(what) => {
                println!("{what}");
                self.wrong.push(what);
            }
        }
    }

    /// Fails where what holds in all of them was hardly put to the test.
    fn says_something(&self, count: u64) {
        assert!(self.dropped > count / 100, "histories without a drop say nothing about drops");
        let all = [Rule::RaiseMax, Rule::PresizeBuckets, Rule::ShortenTimeout, Rule::RelaxTimeout, Rule::RelaxMax];
        for rule in all.map(Rule::name) {
            assert!(self.made.get(rule).is_some_and(|times| *times > count / 100), "{rule} has hardly been seen");
        }
    }
}

impl std::fmt::Display for Sum {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (kind, (histories, time, looks)) in &self.kinds {
            let each = 1e3 * time.as_secs_f64() / *histories as f64;
            let looks = *looks as f64 / *histories as f64;
            writeln!(to, "  {kind:?}: {histories}, {each:.2} ms of CPU and {looks:.0} looks each")?;
        }
        write!(to, "  flows were dropped in {}; changes: {:?}", self.dropped, self.made)
    }
}

/// Of this thread: what others do on the machine does not count.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}
