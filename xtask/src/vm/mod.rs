//! `cargo xtask vm`: runs a command as root in a guest that boots a stock Debian kernel under software emulation.
//! Tests, bench and demo are built on [`Guest`].

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow, bail};

use crate::setup::kernel::{Series, Unpacked};
use crate::{process, setup, tree};

mod init_script;
mod initramfs;
pub mod modules;
mod qemu;
mod stream;

pub use init_script::OUT;

/// The variable that tells the command where the writable folder is.
const OUT_VARIABLE: &str = "CONNTRACK_GUARD_OUT";

/// Lines of the kernel's console shown when a guest died.
const CONSOLE_LINES: usize = 30;

/// One run of one command in one guest.
#[derive(Clone, Debug)]
pub struct Guest {
    /// The kernel to boot.
    pub kernel: Series,
    /// Emulated processors, which take turns; 1 when instructions are counted.
    pub cpus: u32,
    /// Memory in MiB.
    pub mem_mib: u32,
    /// Let the guest's clock count instructions (one is one nanosecond), so that times repeat on any machine.
    pub count_instructions: bool,
    /// After this the guest is killed.
    pub timeout: Duration,
    /// The folder of this machine that the guest sees, writable, as [`OUT`]; created if absent.
    pub out: PathBuf,
    /// Program and arguments; it starts in the tree's root.
    pub command: Vec<OsString>,
}

/// How a run ended, where the guest itself did its part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The command's exit code; 128 and the signal's number if a signal ended it.
    Exit(u8),
    /// It was still running at the timeout, and is no more.
    TimedOut,
}

impl Guest {
    /// Boots, runs the command with its output copied live, and removes the guest. A guest that did not boot or whose
    /// kernel panicked is an error with the end of its console.
    pub fn run(&self, stdout: &mut (dyn Write + Send), stderr: &mut (dyn Write + Send)) -> Result<Ended> {
        if self.count_instructions && self.cpus != 1 {
            bail!("counting instructions needs a guest with one CPU, not {}", self.cpus);
        }
        let kernel = Unpacked::open(self.kernel)?;
        let folder = RunFolder::new()?;
        let initramfs = folder.file("initramfs");
        fs::create_dir_all(&self.out).with_context(|| format!("cannot create {}", self.out.display()))?;
        let mark = mark();
        self.write_initramfs(&kernel, &initramfs, &mark)
            .with_context(|| format!("cannot write {}", initramfs.display()))?;
        let console = folder.file("console.log");
        let errors = folder.file("qemu.log");
        let files = qemu::Files {
            image: &kernel.image,
            initramfs: &initramfs,
            out: &self.out,
            console: &console,
            errors: &errors,
        };
        let (mut qemu, out, err) = qemu::Qemu::start(self, &files)?;
        let result = self.follow(&mut qemu, (out, stdout), (err, stderr), &mark);
        match result {
            Ok(Some(ended)) => Ok(ended),
            Ok(None) => Err(died(&console, &errors)),
            Err(error) => Err(error),
        }
    }

    /// Copies both streams until both marks, the timeout, or the guest's death (`None`).
    fn follow(
        &self,
        qemu: &mut qemu::Qemu,
        (out, stdout): (impl Read + Send, &mut (dyn Write + Send)),
        (err, stderr): (impl Read + Send, &mut (dyn Write + Send)),
        mark: &str,
    ) -> Result<Option<Ended>> {
        let deadline = Instant::now() + self.timeout;
        thread::scope(|scope| {
            let (sender, ends) = mpsc::channel();
            let second = sender.clone();
            // The receiver is dropped only when the result no longer matters.
            scope.spawn(move || drop(sender.send(stream::copy_until_mark(out, stdout, mark))));
            scope.spawn(move || drop(second.send(stream::copy_until_mark(err, stderr, mark))));
            let mut ended = None;
            let mut result = Ok(());
            for _stream in 0..2 {
                match ends.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                    Ok(Ok(Some(code))) => ended = Some(Ended::Exit(code)),
                    Ok(Ok(None)) | Err(RecvTimeoutError::Disconnected) => {
                        ended = None;
                        break;
                    }
                    Ok(Err(error)) => {
                        result = Err(error).context("cannot pass the command's output on");
                        break;
                    }
                    Err(RecvTimeoutError::Timeout) => {
                        ended = Some(Ended::TimedOut);
                        break;
                    }
                }
            }
            // Closes the streams, which lets the two threads end.
            qemu.kill().context("cannot end the emulator")?;
            result.map(|()| ended)
        })
    }

    fn write_initramfs(&self, kernel: &Unpacked, file: &Path, mark: &str) -> Result<()> {
        let fresh_run = ![tree::root().to_path_buf(), tree::built()].iter().any(|path| path.starts_with("/run"));
        let env = environment();
        let command: Vec<Vec<u8>> = self.command.iter().cloned().map(OsString::into_vec).collect();
        let second = init_script::second(&init_script::Session {
            release: &kernel.release,
            modules: kernel.modules.as_os_str(),
            cwd: tree::root().as_os_str(),
            env: &env,
            command: &command,
            mark,
        });
        let mut archive = initramfs::Archive::new(BufWriter::new(File::create(file)?));
        for directory in ["bin", "dev", "proc", "modules", "lower", "rw", "new"] {
            archive.directory(directory)?;
        }
        archive.console("dev/console")?;
        let busybox = setup::busybox()?;
        archive.program("bin/busybox", &fs::read(&busybox).with_context(|| format!("{}", busybox.display()))?)?;
        let mut names = Vec::new();
        for module in &kernel.boot_modules {
            let name = module.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let content = fs::read(module).with_context(|| format!("cannot read {}", module.display()))?;
            archive.program(&format!("modules/{name}"), &content)?;
            names.push(name);
        }
        archive.program("init", &init_script::first(&names, fresh_run))?;
        archive.program("second", &second)?;
        archive.finish()?;
        Ok(())
    }
}

/// The command's whole environment: what a root shell has, what shapes a Rust program's words.
fn environment() -> Vec<(String, Vec<u8>)> {
    let system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let path = env::var_os("PATH").map_or_else(|| system.into(), OsString::into_vec);
    let mut env = vec![
        ("PATH".to_owned(), [path.as_slice(), b":", system.as_bytes()].concat()),
        ("HOME".to_owned(), b"/root".to_vec()),
        ("LANG".to_owned(), b"C.UTF-8".to_vec()),
        (OUT_VARIABLE.to_owned(), OUT.into()),
    ];
    for name in ["RUST_BACKTRACE", "RUST_LOG"] {
        env.extend(env::var_os(name).map(|value| (name.to_owned(), value.into_vec())));
    }
    env
}

/// Why a guest ended without its command having ended. The whole console is kept in `target/vm/console.log`.
fn died(console: &Path, errors: &Path) -> anyhow::Error {
    let read = |file| String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned();
    let (text, errors) = (read(console), read(errors));
    let kept = tree::kept().join("vm/console.log");
    // An empty console tells nothing, and must not take the place of an earlier guest's last words.
    let place = match fs::metadata(console).is_ok_and(|meta| meta.len() > 0).then(|| fs::copy(console, &kept)) {
        Some(Ok(_)) => format!(" (all of it: {})", kept.display()),
        _ => String::new(),
    };
    let (what, shown) = match panic_lines(&text) {
        Some(panic) => {
            ("the guest's kernel panicked; its console says", process::tail(&panic.join("\n"), CONSOLE_LINES))
        }
        None if text.is_empty() && !errors.is_empty() => {
            ("the emulator could not start the guest", process::tail(&errors, CONSOLE_LINES))
        }
        None => ("the guest stopped before its command ended; its console ends", process::tail(&text, CONSOLE_LINES)),
    };
    anyhow!("{what}{place}:\n{shown}")
}

/// A panic from the line that says what happened: an oops comes before the panic that it brings, with the place in the
/// code. `None` where the kernel did not panic.
fn panic_lines(console: &str) -> Option<Vec<&str>> {
    const FIRST_WORDS: [&str; 5] = ["BUG: ", "Oops: ", "general protection fault", "kernel BUG at", "Kernel panic"];
    let panic = console.lines().position(|line| line.contains("Kernel panic"))?;
    let lines: Vec<&str> = console.lines().collect();
    let first = lines[..=panic].iter().position(|line| FIRST_WORDS.iter().any(|word| line.contains(word)));
    Some(lines.into_iter().skip(first.unwrap_or(panic)).take(CONSOLE_LINES).collect())
}

/// A number that the command's output does not hold by chance.
fn mark() -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("{}-{}", std::process::id(), now.as_nanos())
}

/// A folder of this run alone, removed at its end: several guests may run at once.
struct RunFolder(PathBuf);

impl RunFolder {
    fn new() -> Result<Self> {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let all = tree::kept().join("vm/runs");
        remove_stale(&all);
        let name = format!("{}-{}", std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed));
        let folder = all.join(name);
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        Ok(Self(folder))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        // Best effort: the next run removes what stays.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Removes the folders of runs whose process is gone: a killed run cannot tidy up.
fn remove_stale(all: &Path) {
    for entry in fs::read_dir(all).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.to_string_lossy().split('-').next().and_then(|pid| pid.parse::<u32>().ok());
        if process.is_none_or(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            // Another run may be removing it at the same time.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// `cargo xtask vm`: the guest's streams become this process's streams, its exit code the answer.
pub fn run(guest: &Guest) -> Result<u8> {
    setup::ensure(&setup::for_guest(guest.kernel), setup::Say::Fetched)?;
    match guest.run(&mut io::stdout(), &mut io::stderr())? {
        Ended::Exit(code) => Ok(code),
        Ended::TimedOut => {
            eprintln!("xtask: {} s are over; the guest was killed (--timeout)", guest.timeout.as_secs());
            Ok(124)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_shown_from_the_oops_that_brought_it() {
        let console = "booting\n[    9.1] BUG: unable to handle page fault for address: 0\n[    9.1] RIP: 0010:x+0x1/0x2\n\
                       [    9.2] Kernel panic - not syncing: Fatal exception in interrupt\n";
        let lines = panic_lines(console).unwrap();
        assert!(lines.len() == 3 && lines[0].contains("page fault") && lines[1].contains("RIP"), "{lines:?}");
        let plain = panic_lines("booting\n[    1.0] Kernel panic - not syncing: No working init found\n").unwrap();
        assert!(plain.len() == 1 && plain[0].contains("init"), "{plain:?}");
        assert_eq!(panic_lines("[    3.0] BUG: soft lockup, and it went on\n"), None);
    }
}
