//! A kernel's files in a directory of their own, for tests without root; and the writer's steps, to watch, fail, or end it
//! at.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, symlink};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::settings::Settings;
use crate::observe::Timeout;
use crate::policy::Setting;

/// A step of the writer, on the thread that asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// A kernel file is about to be written.
    Writing(Setting, u64),
    /// It was, and the kernel said nothing against it.
    Written(Setting, u64),
    /// Something in the state directory was written, put in its place, or is about to be removed.
    Saved,
}

type Watch = Box<dyn FnMut(Moment) -> io::Result<()>>;

thread_local! {
    static WATCH: RefCell<Option<Watch>> = const { RefCell::new(None) };
}

/// Until it is dropped, has every step of the writer on this thread told, which fails where the answer is an error.
pub(crate) struct Watching;

impl Drop for Watching {
    fn drop(&mut self) {
        WATCH.with_borrow_mut(Option::take);
    }
}

pub(crate) fn watch(watch: impl FnMut(Moment) -> io::Result<()> + 'static) -> Watching {
    WATCH.with_borrow_mut(|place| *place = Some(Box::new(watch)));
    Watching
}

pub(super) fn moment(moment: Moment) -> io::Result<()> {
    // Taken out meanwhile: what is told of a step may end in a panic.
    let Some(mut watch) = WATCH.with_borrow_mut(Option::take) else { return Ok(()) };
    let done = watch(moment);
    WATCH.with_borrow_mut(|place| *place = Some(watch));
    done
}

/// A proc and sysfs tree with a conntrack table, and a directory for the journal.
pub(crate) struct FakeKernel {
    root: TempDir,
}

impl FakeKernel {
    pub(crate) fn new(max: u64, buckets: u64, count: u64) -> Self {
        let kernel = Self { root: place() };
        for directory in ["proc/sys/net/netfilter", "proc/sys/kernel/random", "sys/module/nf_conntrack/parameters"] {
            fs::create_dir_all(kernel.path(directory)).unwrap();
        }
        fs::write(kernel.path("proc/sys/kernel/random/boot_id"), "b0075000-0000-4000-8000-000000000001\n").unwrap();
        fs::write(kernel.path("sys/module/nf_conntrack/parameters/hashsize"), format!("{buckets}\n")).unwrap();
        fs::write(kernel.path("proc/meminfo"), meminfo()).unwrap();
        kernel.set("nf_conntrack_max", max);
        kernel.set("nf_conntrack_buckets", buckets);
        kernel.set("nf_conntrack_count", count);
        kernel
    }

    /// With three timeouts at the kernel's defaults.
    pub(crate) fn with_timeouts(max: u64, buckets: u64, count: u64) -> Self {
        let kernel = Self::new(max, buckets, count);
        for timeout in [Timeout::Udp, Timeout::TcpTimeWait, Timeout::TcpEstablished] {
            kernel.set(timeout.sysctl(), timeout.kernel_default());
        }
        kernel
    }

    /// What a process that is killed at this moment leaves behind.
    pub(crate) fn as_it_is(&self) -> Self {
        fn copy(from: &Path, to: &Path) {
            fs::create_dir_all(to).unwrap();
            for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
                let to = to.join(entry.file_name());
                let kind = entry.file_type().unwrap();
                if kind.is_dir() {
                    copy(&entry.path(), &to);
                } else if kind.is_symlink() {
                    symlink(fs::read_link(entry.path()).unwrap(), to).unwrap();
                } else if kind.is_fifo() {
                    nix::unistd::mkfifo(&to, nix::sys::stat::Mode::S_IRWXU).unwrap();
                } else if let Err(error) = fs::copy(entry.path(), to) {
                    // A journal in the making is renamed meanwhile.
                    assert_eq!(error.kind(), io::ErrorKind::NotFound);
                }
            }
        }
        let other = Self { root: place() };
        copy(self.root(), other.root());
        other
    }

    /// Makes every write of a file in the state directory fail for want of room.
    pub(crate) fn fill_the_disk_for(&self, name: &str) {
        symlink("/dev/full", self.state_dir().join(name)).unwrap();
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.root.path().join(below)
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.path("state")
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings::new(self.root())
    }

    pub(crate) fn set(&self, name: &str, value: u64) {
        fs::write(self.path("proc/sys/net/netfilter").join(name), format!("{value}\n")).unwrap();
    }

    pub(crate) fn get(&self, name: &str) -> u64 {
        fs::read_to_string(self.path("proc/sys/net/netfilter").join(name)).unwrap().trim().parse().unwrap()
    }

    /// Reads 65536 on every Linux, and refuses writes of root too.
    pub(crate) fn make_read_only(&self, below: &str) {
        self.replace(below, "/proc/sys/kernel/ngroups_max");
    }

    /// Reads 33 and takes 51 without a change: the file takes a bit mask (51 = 0x33, the default) and prints it in
    /// hexadecimal.
    pub(crate) fn make_deaf(&self, below: &str) {
        self.replace(below, "/proc/self/coredump_filter");
    }

    fn replace(&self, below: &str, target: &str) {
        fs::remove_file(self.path(below)).unwrap();
        symlink(target, self.path(below)).unwrap();
    }
}

/// In memory where there is such a place: nobody waits for a disk there.
fn place() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// 4 GiB; every line that readers of the file insist on.
fn meminfo() -> String {
    let mut text = "MemTotal: 4194304 kB\nMemFree: 2097152 kB\nMemAvailable: 3145728 kB\n".to_owned();
    for name in ["Buffers", "Cached", "SwapCached", "Active", "Inactive", "SwapTotal", "SwapFree", "Dirty"]
        .into_iter()
        .chain(["Writeback", "Mapped", "Slab", "Committed_AS", "VmallocTotal", "VmallocUsed", "VmallocChunk"])
    {
        text.push_str(name);
        text.push_str(": 0 kB\n");
    }
    text
}
