//! What is tested on which kernel.

use std::time::Duration;

use crate::setup::Series;

/// The kernel on which everything runs, the daemon's tests too.
pub const WHOLE: Series = Series::V6_12;

/// The test program of the kernel half and the daemon.
pub const GUARD: Program = Program { package: "conntrack-guard", name: "guest" };
/// What the loads of the tests are made of.
pub const NAMESPACES: Program = Program { package: "conntrack-guard-bench", name: "namespaces" };

/// The comparison of the guard with its alternatives, small.
pub const CONTEST: Program = Program { package: "conntrack-guard-bench", name: "contest" };

/// A test program for guests. `test = false` in its manifest keeps it from running here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    /// The cargo package.
    pub package: &'static str,
    /// The test target.
    pub name: &'static str,
}

/// How much is tested on the kernels other than [`WHOLE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every signal attaches and counts; `cargo xtask test`.
    Subset,
    /// Every signal, by every back end, against the truths of its tests, and the self-test; `cargo xtask test --all`.
    All,
}

/// One boot of one kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The kernel.
    pub kernel: Series,
    /// What runs in it.
    pub program: Program,
    /// Only tests whose names hold one of these; none: all of them but those that run alone or take long.
    pub only: Vec<&'static str>,
    /// How often the leak test attaches and detaches, where it is among them.
    pub rounds: Option<u32>,
}

/// Tests that have a guest of their own: there is no way back from lockdown, and leaks are looked for where nothing
/// else has been.
const ALONE: [&str; 2] = [LOCKDOWN, LEAK];
const LOCKDOWN: &str = "lockdown::";
const LEAK: &str = "leak::";
/// Tests of minutes each, on [`WHOLE`] with `--all` only, each group in a guest of its own: CI has 45 minutes for everything.
pub const LONG: [&str; 4] = ["flood::", "scenarios::", "timeouts::", BALANCERS];
/// These are of [`NAMESPACES`], the others of [`GUARD`].
const BALANCERS: &str = "balancers::";
/// Tests of the kernel half.
const KERNEL_HALF: [&str; 9] = [
    "hooks::",
    "selftest::",
    "fallback::",
    "module::",
    "causes::",
    "statistics::",
    "skew::",
    "strayed::",
    "namespaces::",
];
/// Rounds of the leak test: of a second each on two idle cores, so only `--all` has time for many.
const FEW: u32 = 40;
const MANY: u32 = 1_000;

/// Every boot, in this order.
pub fn runs(scope: Scope) -> Vec<Run> {
    let run = |kernel, program, only| Run { kernel, program, only, rounds: None };
    let whole = [GUARD, NAMESPACES, CONTEST].map(|program| run(WHOLE, program, Vec::new()));
    let alone = |kernel| ALONE.map(|tests| run(kernel, GUARD, vec![tests]));
    let only = match scope {
        Scope::Subset => vec!["every_signal_is_on", "counting_starts_at_zero"],
        Scope::All => KERNEL_HALF.to_vec(),
    };
    let others = Series::all().iter().copied().filter(|series| *series != WHOLE);
    let others = others.flat_map(|kernel| {
        let alone = (scope == Scope::All).then(|| alone(kernel));
        [run(kernel, GUARD, only.clone())].into_iter().chain(alone.into_iter().flatten())
    });
    let long = LONG.into_iter().filter(|_| scope == Scope::All).map(|tests| {
        let program = if tests == BALANCERS { NAMESPACES } else { GUARD };
        run(WHOLE, program, vec![tests])
    });
    let mut runs: Vec<Run> = whole.into_iter().chain(long).chain(alone(WHOLE)).chain(others).collect();
    for run in runs.iter_mut().filter(|run| run.only == [LEAK]) {
        run.rounds = Some(if scope == Scope::All && run.kernel == WHOLE { MANY } else { FEW });
    }
    runs
}

/// A way of measuring that a kernel does not have. Named here and not found out: a back end that is lost on a kernel
/// which has it must be a failure.
#[derive(Debug, PartialEq, Eq)]
pub struct Lack {
    /// As `--backend` takes it.
    pub back_end: &'static str,
    /// As the guard's answers name it.
    pub shown: &'static str,
    /// Tests of it, by what their names begin with.
    pub tests: &'static [&'static str],
}

/// What Debian's kernel of this series lacks.
pub fn lack(series: Series) -> Option<&'static Lack> {
    /// Linux 5.11 is the first with BTF of modules.
    const TRACING: Lack = Lack {
        back_end: "tracing",
        shown: "fentry/fexit",
        tests: &["hooks::tracing", "fallback::tracing", "module::tracing", "namespaces::tracing"],
    };
    (series == Series::V5_10).then_some(&TRACING)
}

impl Run {
    /// What is tested where, for people: `guest tests of conntrack-guard on 6.12: leak, 40 rounds`.
    pub fn name(&self) -> String {
        let Program { package, name } = self.program;
        let only: Vec<&str> = self.only.iter().map(|only| only.trim_end_matches(':')).collect();
        let only = if only.is_empty() { String::new() } else { format!(": {}", only.join(", ")) };
        let rounds = self.rounds.map(|rounds| format!(", {rounds} rounds")).unwrap_or_default();
        format!("{name} tests of {package} on {}{only}{rounds}", self.kernel.name())
    }

    /// Whether the guest's clock counts instructions: a load that keeps its times on any machine has no other excuse for a
    /// connection that failed.
    pub fn counts(&self) -> bool {
        self.program == CONTEST
    }

    /// After this the guest is killed: a test that hangs must not hang the caller.
    pub fn timeout(&self) -> Duration {
        Duration::from_mins(20) + Duration::from_secs(5) * self.rounds.unwrap_or(0)
    }

    /// What the names of tests that do not belong here begin with.
    pub fn skip(&self) -> impl Iterator<Item = &'static str> {
        ALONE.into_iter().chain(LONG).filter(|tests| !self.only.contains(tests))
    }

    /// The tests of `listed` that run, and those that cannot be there.
    pub fn split<'a>(&self, listed: &'a [String]) -> (Vec<&'a str>, Vec<&'a str>) {
        let wanted = |name: &&str| {
            !self.skip().any(|alone| name.starts_with(alone))
                && (self.only.is_empty() || self.only.iter().any(|only| name.contains(only)))
        };
        let there =
            |name: &&str| !lack(self.kernel).is_some_and(|lack| lack.tests.iter().any(|tests| name.starts_with(tests)));
        listed.iter().map(String::as_str).filter(wanted).partition(there)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_is_booted_and_one_of_them_runs_everything() {
        for scope in [Scope::Subset, Scope::All] {
            let runs = runs(scope);
            for series in Series::all() {
                assert!(runs.iter().any(|run| run.kernel == *series && run.program == GUARD), "{series:?}");
            }
            let whole: Vec<&Run> = runs.iter().filter(|run| (run.kernel, run.program) == (WHOLE, GUARD)).collect();
            assert!(whole[0].only.is_empty());
            let long: Vec<&str> = LONG.into_iter().filter(|tests| scope == Scope::All && *tests != BALANCERS).collect();
            let balancers = runs.iter().any(|run| run.program == NAMESPACES && run.only == [BALANCERS]);
            assert_eq!(balancers, scope == Scope::All);
            assert_eq!(
                whole[1..].iter().flat_map(|run| &run.only).copied().collect::<Vec<_>>(),
                [&long[..], &ALONE].concat()
            );
            let rounds = runs.iter().filter_map(|run| run.rounds).collect::<Vec<_>>();
            assert_eq!(rounds, if scope == Scope::All { vec![MANY, FEW, FEW, FEW] } else { vec![FEW] });
        }
    }

    #[test]
    fn what_a_kernel_lacks_is_told_apart() {
        let listed = [
            "hooks::kprobe::every_signal_is_on",
            "hooks::tracing_every::x",
            "hooks::kprobe::x",
            "module::tracing_x",
            "daemon::x",
            "lockdown::x",
            "leak::x",
            "flood::x",
        ];
        let listed = listed.map(str::to_owned);
        let split = |kernel, scope| {
            let run = runs(scope).into_iter().find(|run| run.kernel == kernel).unwrap();
            let (there, lacking) = run.split(&listed);
            (there.len(), lacking.len())
        };
        assert_eq!(split(Series::V5_10, Scope::All), (2, 2));
        assert_eq!(split(Series::V6_1, Scope::All), (4, 0));
        assert_eq!(split(Series::V7_2, Scope::Subset), (1, 0));
        assert_eq!(split(WHOLE, Scope::Subset), (5, 0));
        let names: Vec<String> = runs(Scope::Subset).iter().map(Run::name).collect();
        assert_eq!(names[0], "guest tests of conntrack-guard on 6.12");
        assert!(names.contains(&"guest tests of conntrack-guard on 6.12: leak, 40 rounds".to_owned()), "{names:?}");
        let alone = runs(Scope::Subset).into_iter().find(|run| run.only == [LEAK]).unwrap();
        assert_eq!(alone.split(&listed).0, ["leak::x"]);
    }
}
