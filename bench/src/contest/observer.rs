//! What no file of the kernel's tells: the entries that are inserted, the chains that they meet, and who resizes the table. The
//! guard's programs count it, in a run of its own for each alternative: they cost something, and no figure of a round may hold
//! that.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use flate2::read::GzDecoder;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::beside::{LOOK, PATIENCE, Places};
use super::decision::now_ms;
use super::figure::Figures;
use super::run::Stall;
use crate::guard::Guard;
use crate::status::Status;

/// The guard's samples, in its folder.
const RECORDING: &str = "observed.json.gz";
/// How often it is asked, at most, whether it has read what the programs counted.
const LOOKS: u32 = 600;

/// A guard that decides nothing, and takes no time: it is halted while its programs count.
pub(super) struct Observer {
    guard: Guard,
    files: PathBuf,
}

/// What was seen of a run, from the alternative's start to its load's end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Observed {
    /// Entries put into the table (`__nf_conntrack_hash_insert`), in all network namespaces; `null` where no program is on it.
    pub inserts: Option<u64>,
    /// One insert in so many had its chains measured: every one, or with kprobes one in 64. `null` where none could be.
    pub one_in: Option<u64>,
    /// Entries that the two chains of each of these held before it: pairs of a length and of how many chains had it. 127 is 127 or
    /// more.
    pub chains: Vec<(u64, u64)>,
    /// Runs of the programs that the kernel skipped: by so much may counts be too low. `null` where it does not count them.
    pub missed: Option<u64>,
    /// Resizes of the hash table, with who asked for them. What an alternative that is no program writes, the bench writes.
    pub resizes: Vec<Stall>,
}

/// What a guard is started with that is to tell everything afterwards; `folder` gets its recording.
pub(super) fn arguments(folder: &Path) -> [OsString; 4] {
    ["--walk".into(), "every".into(), "--record".into(), folder.join(RECORDING).into()]
}

impl Observer {
    /// Starts it and returns once its programs count. It gets a folder of its own in `folder`.
    pub fn start(places: &Places, folder: &Path, stop: &AtomicBool) -> Result<Self> {
        let files = folder.join("observer");
        fs::create_dir(&files).with_context(|| files.display().to_string())?;
        let mut words: Vec<OsString> = vec!["--dry-run".into(), "--state-dir".into(), files.clone().into()];
        words.extend(arguments(&files));
        let words: Vec<_> = words.iter().map(OsString::as_os_str).collect();
        let guard = Guard::start_program(&places.guard, &words, &files, PATIENCE, LOOK, stop)?;
        guard.check_that_it_measures()?;
        kill(guard.pid(), Signal::SIGSTOP).context("cannot halt it")?;
        Ok(Self { guard, files })
    }

    /// Lets it read what was counted, and ends it.
    pub fn end(mut self, stop: &AtomicBool) -> Result<Observed> {
        self.let_read(stop).map_err(|error| match self.guard.ended() {
            Some(status) => error.context(format!("it had ended with {status}")),
            None => error,
        })?;
        let ended = self.guard.stop()?;
        ensure!(ended.success(), "it ended with {ended}");
        read(&self.files, None)
    }

    fn let_read(&self, stop: &AtomicBool) -> Result<()> {
        kill(self.guard.pid(), Signal::SIGCONT).context("cannot let it go on")?;
        let now = now_ms()?;
        let has_read = || -> Result<bool> {
            let status: Status = Guard::read(&self.guard.status_text()?)?;
            Ok(i64::try_from(status.at_ms).unwrap_or(i64::MAX) > now)
        };
        let mut looks = 0;
        while !has_read()? {
            looks += 1;
            ensure!(!stop.load(Ordering::Relaxed), "stopped");
            ensure!(looks < LOOKS, "it reads nothing any more");
            thread::sleep(LOOK);
        }
        Ok(())
    }
}

/// A line of a recording: the part of a sample that matters here.
#[derive(Deserialize)]
struct Sample {
    hooks: Option<Hooks>,
}

/// Sums since the programs were attached, and the resizes since the sample before.
#[derive(Deserialize)]
struct Hooks {
    inserts: Option<u64>,
    chains: Option<Chains>,
    missed: Option<u64>,
    resizes: Vec<Resize>,
}

#[derive(Deserialize)]
struct Chains {
    one_in: u64,
    original: Vec<u64>,
    reply: Vec<u64>,
}

#[derive(Deserialize)]
struct Resize {
    at: Duration,
    took: Duration,
    pid: u32,
    comm: String,
    from: Option<u64>,
    to: Option<u64>,
    result: i32,
}

/// Reads what a guard that has ended left in its folder. `own` is its process, where it is what is observed.
pub(super) fn read(folder: &Path, own: Option<Pid>) -> Result<Observed> {
    let path = folder.join(RECORDING);
    let file = File::open(&path).with_context(|| path.display().to_string())?;
    observed(GzDecoder::new(file), own).with_context(|| path.display().to_string())
}

fn observed(recording: impl Read, own: Option<Pid>) -> Result<Observed> {
    let (mut last, mut resizes) = (None, Vec::new());
    // The first line is about the others.
    for line in BufReader::new(recording).lines().skip(1) {
        let sample: Sample = serde_json::from_str(&line?).context("no sample")?;
        let Some(mut hooks) = sample.hooks else { continue };
        resizes.extend(hooks.resizes.drain(..).map(|resize| resize.seen(own)));
        last = Some(hooks);
    }
    let Some(hooks) = last else { bail!("it has no sample of the programs'") };
    let one_in = hooks.chains.as_ref().map(|chains| chains.one_in);
    let mut chains = hooks.chains.map(Chains::both).unwrap_or_default();
    chains.retain(|(_, count)| *count > 0);
    Ok(Observed { inserts: hooks.inserts, one_in, chains, missed: hooks.missed, resizes })
}

impl Chains {
    fn both(self) -> Vec<(u64, u64)> {
        let counts = self.original.iter().zip(&self.reply).map(|(original, reply)| original + reply);
        (0..).zip(counts).collect()
    }
}

impl Resize {
    fn seen(self, own: Option<Pid>) -> Stall {
        let Self { at, took, pid, comm, from, to, result } = self;
        // A name has 15 bytes, and the bench's and the guard's begin alike.
        let comm = if pid == process::id() { env!("CARGO_PKG_NAME").to_owned() } else { comm };
        Stall {
            at_ms: i64::try_from(at.as_millis()).unwrap_or(i64::MAX),
            took_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            from,
            to,
            error: (result != 0).then(|| Errno::from_raw(result.saturating_neg()).desc().to_owned()),
            own: own.is_some_and(|own| u32::try_from(own.as_raw()) == Ok(pid)),
            comm,
        }
    }
}

impl Observed {
    /// The same with times from the load's start, and without what came after its end.
    pub fn since(mut self, began: i64, ended: i64) -> Self {
        self.resizes.retain(|resize| resize.at_ms <= ended);
        for resize in &mut self.resizes {
            resize.at_ms -= began;
        }
        self
    }

    /// As figures of the alternative. A sample of the chains is none: it misses the longest.
    pub fn figures(&self) -> Figures {
        let chains = if self.one_in == Some(1) { self.chains.as_slice() } else { &[] };
        let all = [
            ("inserts", self.inserts),
            ("chain_p50", shortest(chains, 50)),
            ("chain_p99", shortest(chains, 99)),
            ("chain_longest", chains.last().map(|(length, _)| *length)),
        ];
        all.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    }
}

/// The shortest length that so many percent of the chains do not exceed.
fn shortest(chains: &[(u64, u64)], percent: u64) -> Option<u64> {
    let measured: u64 = chains.iter().map(|(_, count)| count).sum();
    let mut seen = 0;
    let reached = |&&(_, count): &&(u64, u64)| {
        seen += count;
        seen.saturating_mul(100) >= measured.saturating_mul(percent)
    };
    chains.iter().find(reached).map(|(length, _)| *length)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u64 = 1;
    const HEADER: &str = r#"{"format":"conntrack-guard recording","version":2}"#;

    fn sample(inserts: &str, one_in: u64, chains: [&str; 2], resizes: &str) -> String {
        let [original, reply] = chains;
        let chains = format!(r#"{{"one_in":{one_in},"original":[{original}],"reply":[{reply}]}}"#);
        format!(
            r#"{{"at":{{"secs":9,"nanos":0}},"hooks":{{"inserts":{inserts},"chains":{chains},"missed":2,"resizes":[{resizes}]}}}}"#
        )
    }

    fn resize(at: u64, pid: u32, comm: &str) -> String {
        let at = format!(r#""at":{{"secs":{at},"nanos":5000000}},"took":{{"secs":0,"nanos":1500000}}"#);
        format!(r#"{{{at},"pid":{pid},"comm":"{comm}","from":512,"to":1024,"result":-12}}"#)
    }

    #[test]
    fn sums_are_the_last_samples_and_resizes_those_of_all() {
        let lines = [
            HEADER.to_owned(),
            r#"{"at":{"secs":1,"nanos":0},"hooks":null}"#.to_owned(),
            sample("7", ALL, ["1,2,0", "0,4,0"], &resize(3, 11, "conntrack-guard")),
            sample(
                "50",
                ALL,
                ["10,80,0", "9,0,1"],
                &format!("{},{}", resize(4, process::id(), "x"), resize(8, 12, "sysctl")),
            ),
        ];
        let seen = observed(lines.join("\n").as_bytes(), Some(Pid::from_raw(11))).unwrap();
        assert_eq!((seen.inserts, seen.missed, &*seen.chains), (Some(50), Some(2), &[(0, 19), (1, 80), (2, 1)][..]));
        let figures = [("chain_longest", 2), ("chain_p50", 1), ("chain_p99", 1), ("inserts", 50)];
        assert_eq!(seen.figures(), figures.map(|(key, value)| (key.to_owned(), value)).into());
        let error = Some("Out of memory".to_owned());
        let resize =
            Stall { at_ms: 0, took_us: 1_500, from: Some(512), to: Some(1_024), error, own: true, comm: String::new() };
        let stall = |at_ms, own, comm: &str| Stall { at_ms, own, comm: comm.to_owned(), ..resize.clone() };
        // What came after the load's end is the alternative's own stop.
        assert_eq!(
            seen.since(4_000, 8_000).resizes,
            [stall(-995, true, "conntrack-guard"), stall(5, false, "conntrack-guard-bench")]
        );
    }

    #[test]
    fn what_no_program_counted_is_no_figure() {
        let seen = observed(format!("{HEADER}\n{}", sample("null", ALL, ["0,0", "0,0"], "")).as_bytes(), None).unwrap();
        assert!(seen.figures().is_empty(), "{seen:?}");
        // Two of a hundred and more chains: the longest are not among them.
        let sampled = observed(format!("{HEADER}\n{}", sample("93", 64, ["1", "1"], "")).as_bytes(), None).unwrap();
        assert_eq!((sampled.figures().len(), &*sampled.chains), (1, &[(0, 2)][..]));
        assert!(observed(HEADER.as_bytes(), None).is_err());
        assert!(observed(format!("{HEADER}\nhalf a li").as_bytes(), None).is_err());
    }
}
