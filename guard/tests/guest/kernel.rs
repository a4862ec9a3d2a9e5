//! The machine under test: its table, its programs, a guard on it.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use bench::conntrack::{self, Settings};
use conntrack_guard::kernel::BackEnd;
use conntrack_guard::observe::Timeout;
use nix::sched::{CloneFlags, unshare};

/// Set by the guest; nothing here may touch another machine's table.
const GUEST: &str = "CONNTRACK_GUARD_OUT";

/// The table with settings of the test's choice, emptied; the settings found come back at the end.
pub struct Table {
    found: Settings,
    timeouts: BTreeMap<Timeout, u64>,
}

impl Table {
    pub fn with(max: u64, buckets: u64) -> Self {
        assert!(std::env::var_os(GUEST).is_some(), "these tests change the kernel's settings: run `cargo xtask test`");
        conntrack::flush().unwrap();
        let found = Settings::read().unwrap();
        Settings { max, buckets }.write().unwrap();
        Self { found, timeouts: timeouts() }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        conntrack::flush().unwrap();
        self.found.write().unwrap();
        // A guard that was stopped under load leaves them short.
        for (timeout, seconds) in &self.timeouts {
            set(*timeout, *seconds);
        }
    }
}

/// Seconds in force, of every timeout that this kernel has. Read here and not through the guard.
pub fn timeouts() -> BTreeMap<Timeout, u64> {
    let read = |timeout| Some((timeout, fs::read_to_string(file(timeout)).ok()?.trim().parse().unwrap()));
    Timeout::ALL.into_iter().filter_map(read).collect()
}

/// Sets a timeout, as another program would.
pub fn set(timeout: Timeout, seconds: u64) {
    fs::write(file(timeout), seconds.to_string()).unwrap();
}

fn file(timeout: Timeout) -> PathBuf {
    Path::new("/proc/sys/net/netfilter").join(timeout.sysctl())
}

/// Runs a program to its end; its output if it succeeded.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Entries in a full dump, by the program that everybody uses for it.
pub fn dumped() -> u64 {
    run("conntrack", &["-L"]).lines().count() as u64
}

/// ASSURED entries, which early_drop leaves alone.
pub fn insert_assured(numbers: std::ops::Range<u16>) {
    let mut load = Command::new("conntrack").args(["-R", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    let end = numbers.end;
    let line = |n: u16| {
        let (client, server) = (format!("10.98.{}.{}", n / 250, n % 250 + 1), "10.98.255.1");
        format!(
            "-I -p udp -s {client} -d {server} --sport 1000 --dport 53 -r {server} -q {client} --reply-port-src 53 \
             --reply-port-dst 1000 -t 600 -u SEEN_REPLY,ASSURED\n"
        )
    };
    let lines = numbers.map(line).collect::<Vec<_>>().concat();
    load.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    assert!(load.wait().unwrap().success());
    let assured = run("conntrack", &["-L", "-p", "udp"]).lines().filter(|line| line.contains("ASSURED")).count();
    assert_eq!(assured, usize::from(end));
}

/// The journal's files in a state directory; recordings and the last good policy stay after a stop, these must not.
pub fn journal_files(state_dir: &Path) -> Vec<String> {
    let names = fs::read_dir(state_dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("journal")).collect()
}

/// Waits until `check` answers something, or panics with what is missing.
pub fn eventually<T>(what: &str, limit: Duration, mut check: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(answer) = check() {
            return answer;
        }
        assert!(Instant::now() < end, "after {limit:?} still not: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until the guard that runs has looked at the table for so long from now on, by its own account: however slow the
/// machine is, it has had the time to do what it would do.
pub fn lives_on(time: Duration) {
    let uptime = || Duration::from_millis(told()["uptime_ms"].as_u64().unwrap());
    let from = uptime();
    eventually(&format!("a tick {time:?} later"), 10 * time + Duration::from_secs(20), || {
        (uptime() >= from + time).then_some(())
    });
}

/// Waits until the guard that runs has done what it does about the load so far: for a while it changes nothing. Answers with
/// what it has left.
pub fn at_rest() -> Settings {
    let now = || (Settings::read().unwrap(), told()["changes_made"].as_u64().unwrap());
    let mut seen = now();
    eventually("the guard comes to rest", Duration::from_mins(1), || {
        lives_on(Duration::from_secs(3));
        let before = std::mem::replace(&mut seen, now());
        (seen == before).then_some(seen.0)
    })
}

/// Whether this kernel counts the runs that it skips of programs by this back end: of kprobes' since Linux 6.7.
pub fn misses_are_counted(back_end: BackEnd) -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let version: Vec<u32> = release.split(['.', '-', '+']).map_while(|part| part.parse().ok()).collect();
    back_end == BackEnd::Tracing || version >= vec![6, 7]
}

/// References on the module nf_conntrack: an attached program holds one.
pub fn module_references() -> u64 {
    fs::read_to_string("/sys/module/nf_conntrack/refcnt").unwrap().trim().parse().unwrap()
}

/// The number that the next network namespace gets: the lowest that is free, so it rises as long as others stay.
pub fn next_namespace() -> u64 {
    let make = || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        fs::metadata("/proc/thread-self/ns/net").unwrap().ino()
    };
    thread::spawn(make).join().unwrap()
}

/// A guard with a state directory of its own.
pub struct Guard {
    child: Child,
    /// Its policy and its log, and its journal unless that is elsewhere.
    folder: tempfile::TempDir,
    state: PathBuf,
}

impl Guard {
    /// Starts `run` with this policy and waits until it answers.
    pub fn start(policy: &str) -> Self {
        Self::answering(Self::start_with(policy, &mut Command::new(binary()), &[]))
    }

    /// Starts `run` with more arguments, possibly through another program, and waits until it answers.
    pub fn start_as(policy: &str, command: &mut Command, arguments: &[&str]) -> Self {
        Self::answering(Self::start_with(policy, command, arguments))
    }

    fn answering(mut guard: Self) -> Self {
        guard.answers();
        guard
    }

    /// Starts `command run …` and waits for nothing.
    pub fn start_with(policy: &str, command: &mut Command, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().to_owned();
        let child = spawn(folder.path(), &state, policy, command, arguments);
        Self { child, folder, state }
    }

    /// Starts `run` with the journal in a directory of the caller's, and waits for nothing.
    pub fn start_on(state: &Path, policy: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let child = spawn(folder.path(), state, policy, &mut Command::new(binary()), &[]);
        Self { child, folder, state: state.to_owned() }
    }

    /// Starts another one where this one has ended, and waits until it answers.
    pub fn follow(&mut self, policy: &str) {
        assert!(self.child.try_wait().unwrap().is_some(), "the one before still runs");
        self.child = spawn(self.folder.path(), &self.state, policy, &mut Command::new(binary()), &[]);
        self.answers();
    }

    /// Waits until it answers.
    pub fn answers(&mut self) {
        eventually("status answers", Duration::from_mins(1), || {
            assert!(self.child.try_wait().unwrap().is_none(), "it has ended");
            status().status.success().then_some(())
        });
    }

    pub fn state_dir(&self) -> &Path {
        &self.state
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().try_into().unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// Waits for its end: exit code and log.
    pub fn end(&mut self) -> (Option<i32>, String) {
        let status = eventually("the guard ends", Duration::from_mins(1), || self.child.try_wait().unwrap());
        (status.code(), self.log())
    }

    pub fn log(&self) -> String {
        let mut log = String::new();
        fs::File::open(self.folder.path().join("log")).unwrap().read_to_string(&mut log).unwrap();
        log
    }

    /// `conntrack-guard restore` on this guard's journal.
    pub fn restore(&self) -> Output {
        Command::new(binary()).arg("restore").arg("--state-dir").arg(&self.state).output().unwrap()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
        if thread::panicking() {
            eprintln!("the guard's log:\n{}", self.log());
        }
        // A test that failed may have left values behind; without a journal this says so and does nothing.
        self.restore();
    }
}

fn spawn(folder: &Path, state: &Path, policy: &str, command: &mut Command, arguments: &[&str]) -> Child {
    let file = folder.join("policy.toml");
    fs::write(&file, policy).unwrap();
    // One that follows another writes on in its log.
    let log = fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
    command
        .args(["run", "--config"])
        .arg(&file)
        .arg("--state-dir")
        .arg(state)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

pub fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_conntrack-guard"))
}

/// `conntrack-guard status --json`
pub fn status() -> Output {
    Command::new(binary()).args(["status", "--json"]).output().unwrap()
}

/// The same, parsed.
pub fn told() -> serde_json::Value {
    serde_json::from_slice(&status().stdout).unwrap()
}
