//! Whether it may be done on this machine: in a guest always; on a host that is somebody's only where they have read what it
//! does to it and said yes.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bench::conntrack;
use bench::netns::{self, Tool};
use bench::scenario::Scenario;
use nix::fcntl::{Flock, FlockArg};

use super::alternative::Alternative;
use super::journal::Journal;
use super::limit;
use crate::scale::Scale;
use crate::sysctls::Sysctls;
use crate::table::grouped;
use crate::{NotHere, WrongUsage, afresh};

/// `cargo xtask vm` sets it for what it runs in a guest.
const GUEST: &str = "CONNTRACK_GUARD_OUT";
const MAX: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
const GUARDED: &str = "/sys/module/nf_conntrack/parameters/hashsize";
/// What bpftune is started with.
const UNSHARE: Tool = Tool { program: "unshare", package: "util-linux" };
/// How often a waiting question looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(100);

/// Where it is to be done.
#[derive(clap::Args)]
pub(super) struct Place {
    /// On this host itself and not in a guest: tells everything that it does to it, and asks
    #[arg(long)]
    pub here: bool,
    /// The answer to what --here asks
    #[arg(long, requires = "here")]
    pub yes: bool,
}

/// What is to be done.
pub(super) struct Plan<'a> {
    pub scenario: Scenario,
    pub against: &'a [Alternative],
    /// Of each table, one after the other.
    pub scales: Vec<Scale>,
    /// For how long at most; on a host it is stopped then.
    pub seconds: u64,
}

impl Place {
    /// Does `work` if it may be done here, and puts back everything at its end. `None` where the user said no.
    pub fn enter<T>(&self, plan: &Plan<'_>, stop: &AtomicBool, work: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
        self.check_meant()?;
        plan.check_possible()?;
        let (mut journal, leftovers) = Journal::open(check_no_guard)?;
        for line in &leftovers {
            eprintln!("{line}");
        }
        if !self.here {
            afresh::check_unused("the bench", "cargo xtask bench churn")?;
        } else if !plan.agreed(self.yes, stop)? {
            eprintln!("{}", if leftovers.is_empty() { "nothing was changed" } else { "nothing else was changed" });
            return Ok(None);
        }
        let found = Sysctls::read()?;
        journal.begin(&found)?;
        let limit = Duration::from_secs(plan.seconds);
        // A guest ends by its own limit, and its clock may leap.
        let outcome = if self.here { limit::within(limit, stop, work) } else { work() };
        // Each run did so already, unless it could not.
        let back = found.put_back().context("cannot put the settings back").and_then(|()| journal.close());
        first(outcome, back).map(Some)
    }

    /// Refuses a machine that is no guest, unless it is meant.
    fn check_meant(&self) -> Result<()> {
        if self.here || env::var_os(GUEST).is_some() {
            return Ok(());
        }
        let text = "this is no guest: the contest sets this kernel's own settings and empties its conntrack table. Run it in \
                    a guest, `cargo xtask bench churn`, or with --here, which tells what it would do and asks first";
        Err(NotHere(text.to_owned()).into())
    }
}

impl Plan<'_> {
    /// Whether this kernel, this user and what is installed permit it. Changes nothing.
    fn check_possible(&self) -> Result<()> {
        netns::check_permission()?;
        if !Path::new(MAX).exists() {
            let text =
                "this kernel tracks no connections: the module nf_conntrack is not loaded. `modprobe nf_conntrack`";
            return Err(NotHere(text.to_owned()).into());
        }
        let folders = env::var_os("PATH").unwrap_or_default();
        let there = |tool: &Tool| env::split_paths(&folders).any(|folder| folder.join(tool.program).is_file());
        let missing: Vec<Tool> = self.tools().into_iter().filter(|tool| !there(tool)).collect();
        if missing.is_empty() { Ok(()) } else { Err(NotHere(absent(&missing)).into()) }
    }

    fn tools(&self) -> Vec<Tool> {
        let mut tools = self.scenario.tools();
        if self.against.contains(&Alternative::Bpftune) {
            tools.push(UNSHARE);
        }
        tools
    }

    /// Tells what would be done and asks. `yes`: it was said already. False where the answer was another.
    fn agreed(&self, yes: bool, stop: &AtomicBool) -> Result<bool> {
        eprint!("{}", self.warning(conntrack::count()?));
        if yes {
            return Ok(true);
        }
        if !io::stdin().is_terminal() {
            let text = "nobody can be asked, since the input is no terminal: add --yes if all of this may be done";
            return Err(WrongUsage(text.to_owned()).into());
        }
        eprint!("Type yes to go on: ");
        io::stderr().flush().context("the question")?;
        let (answer, answered) = mpsc::channel();
        // A thread of its own: a read would go on after Ctrl-C.
        thread::spawn(move || {
            let mut line = String::new();
            let read = io::stdin().lock().read_line(&mut line);
            // Nobody waits for it any more only after Ctrl-C.
            let _ = answer.send(read.map(|_| line));
        });
        loop {
            match answered.recv_timeout(LOOK) {
                Ok(line) => return Ok(line.context("the answer")?.trim() == "yes"),
                Err(RecvTimeoutError::Timeout) if stop.load(Ordering::Relaxed) => return Ok(false),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("the answer was lost"),
            }
        }
    }

    /// Everything that it does to the machine; `entries` are in the table now.
    fn warning(&self, entries: u64) -> String {
        let Self { scenario, against, scales, seconds } = self;
        let mut text = format!(
            "This runs on this host itself, not in a guest, for {seconds} s at most: what is not done by then is stopped as by \
             Ctrl-C. Until its end it\n\
             - deletes all entries of this kernel's conntrack table, again and again; {} are in it now. Connections that this \
             host translates (NAT) break, others go on as if they were new;\n\
             - sets in /proc/sys/net/netfilter, where a table that is full drops this host's own new connections too:\n",
            grouped(entries),
        );
        for (name, (lowest, highest)) in writes(against, scales) {
            let values = if lowest == highest { lowest.to_string() } else { format!("{lowest} to {highest}") };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "    {name}: {values}");
        }
        let own = against.iter().any(|one| matches!(one, Alternative::Guard | Alternative::Cron));
        if own {
            let _ =
                writeln!(text, "    what guard and cron choose: sizes within these, and the guard's shorter timeouts");
        }
        if against.contains(&Alternative::Bpftune) {
            let _ = writeln!(text, "- lets bpftune set whatever it tunes below /proc/sys;");
        }
        for path in scenario.shape.sets() {
            let _ = writeln!(text, "- sets {path};");
        }
        let programs: Vec<&str> = self.tools().iter().map(|tool| tool.program).collect();
        let _ = writeln!(
            text,
            "- makes network namespaces, links, addresses of 198.18.0.0/15 or 2001:2::/48 and an nftables table, all called \
             cgb…;\n\
             - runs {}, and what it is compared with; modules of the kernel that these load stay, but for ip_vs;\n\
             - loads eBPF programs: conntrack-guard's, which count beside each alternative{}.\n\
             All else is put back at its end, after Ctrl-C, and after a kill by the next run.",
            programs.join(", "),
            if against.contains(&Alternative::Bpftune) { ", and bpftune's" } else { "" }
        );
        text
    }
}

/// The first error, with what went wrong in the cleaning up after it as well.
pub(super) fn first<T>(outcome: Result<T>, after: Result<()>) -> Result<T> {
    match (outcome, after) {
        (Err(error), Err(also)) => Err(error.context(format!("the clean-up failed too ({also:#})"))),
        (Ok(_), Err(error)) | (Err(error), Ok(())) => Err(error),
        (Ok(done), Ok(())) => Ok(done),
    }
}

/// One that runs already answers every setting of the contest with its own. It holds a lock on this file while it lives.
fn check_no_guard() -> Result<()> {
    // Without the file no guard can hold it.
    let Ok(file) = File::open(GUARDED) else { return Ok(()) };
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Err((_, nix::Error::EWOULDBLOCK)) => {
            let text = "a conntrack-guard is at work on this kernel and would answer every setting: stop it first, \
                        `systemctl stop conntrack-guard`";
            Err(NotHere(text.to_owned()).into())
        }
        Err((_, errno)) => Err(errno).context(GUARDED),
        Ok(_) => Ok(()),
    }
}

/// Lowest and highest value of each setting that is written once.
fn writes(against: &[Alternative], scales: &[Scale]) -> BTreeMap<&'static str, (u64, u64)> {
    let mut ranges = BTreeMap::new();
    for &scale in scales {
        let stock = scale.stock();
        let mut all = vec![("nf_conntrack_max", stock.max), ("nf_conntrack_buckets", stock.buckets)];
        all.extend(against.iter().flat_map(|one| one.writes(scale, &|_| None)));
        if against.iter().any(|one| matches!(one, Alternative::Guard | Alternative::Cron)) {
            all.extend(Alternative::StaticCeiling.writes(scale, &|_| None));
        }
        for (name, value) in all {
            let (lowest, highest) = ranges.entry(name).or_insert((value, value));
            (*lowest, *highest) = (value.min(*lowest), value.max(*highest));
        }
    }
    ranges
}

/// What is missing and how to get it.
fn absent(missing: &[Tool]) -> String {
    let each: Vec<String> = missing.iter().map(|tool| format!("{} (package {})", tool.program, tool.package)).collect();
    let mut packages: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
    packages.dedup();
    format!("not in PATH: {}. On Debian: `apt-get install {}`", each.join(", "), packages.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_warning_names_every_setting_with_its_values() {
        let scenario = Scenario::find("haproxy").unwrap();
        let plan = |against: &'static [Alternative]| {
            Plan { scenario: scenario.clone(), against, scales: vec![Scale::DEMO], seconds: 120 }.warning(57)
        };
        let text = plan(&[Alternative::Stock, Alternative::Static, Alternative::Guard]);
        for part in [
            "120 s at most",
            "57 are in it now",
            "    nf_conntrack_max: 8192 to 131072\n",
            "    nf_conntrack_buckets: 4096 to 131072\n",
            "    nf_conntrack_icmp_timeout: 10\n",
            "- sets /proc/sys/net/ipv4/tcp_max_tw_buckets;\n",
            "- runs ip, nft, haproxy, wrk,",
            "- loads eBPF programs",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("ip_forward") && !text.contains("bpftune"), "{text}");
        let text = plan(&[Alternative::Stock]);
        assert!(text.contains("    nf_conntrack_max: 8192\n") && !text.contains("guard and cron"), "{text}");
    }

    #[test]
    fn a_clean_up_that_fails_hides_no_error() {
        let failed = |text: &'static str| Err(anyhow::Error::from(WrongUsage(text.to_owned())));
        let told = |outcome: Result<u8>| format!("{:#}", outcome.unwrap_err());
        assert_eq!(told(first(Ok(1), failed("b"))), "b");
        assert_eq!(told(first(failed("a").map(|()| 1), Ok(()))), "a");
        let both = first(failed("a").map(|()| 1), failed("b"));
        assert!(both.as_ref().unwrap_err().is::<WrongUsage>(), "its exit code");
        assert_eq!(told(both), "the clean-up failed too (b): a");
        assert_eq!(first(Ok(1), Ok(())).unwrap(), 1);
    }

    #[test]
    fn what_is_missing_is_told_with_its_package_once() {
        let tools = [Tool { program: "modprobe", package: "kmod" }, Tool { program: "rmmod", package: "kmod" }];
        let expected = "not in PATH: modprobe (package kmod), rmmod (package kmod). On Debian: `apt-get install kmod`";
        assert_eq!(absent(&tools), expected);
    }
}
