//! One emulator process: its arguments, its start, its certain end.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::prctl;
use nix::sys::signal::Signal;

use super::Guest;
use crate::process;

/// What the emulator reads and writes.
pub struct Files<'a> {
    pub image: &'a Path,
    pub initramfs: &'a Path,
    pub out: &'a Path,
    pub console: &'a Path,
    pub errors: &'a Path,
}

/// A running emulator; killed when dropped, and by the kernel should this process die.
pub struct Qemu {
    child: Child,
}

impl Qemu {
    /// Starts it; the two streams carry the command's stdout and stderr.
    pub fn start(guest: &Guest, files: &Files<'_>) -> Result<(Self, UnixStream, UnixStream)> {
        let pair = || UnixStream::pair().context("cannot create a socket pair");
        let ((out, out_end), (err, err_end)) = (pair()?, pair()?);
        let ends: [OwnedFd; 2] = [out_end.into(), err_end.into()];
        let program = process::find_program("qemu-system-x86_64")
            .context("qemu-system-x86_64 is missing: run `cargo xtask setup`")?;
        let errors = File::create(files.errors).with_context(|| format!("cannot write {}", files.errors.display()))?;
        let mut command = Command::new(program);
        command
            .args(arguments(guest, files, ends.each_ref().map(AsRawFd::as_raw_fd)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors);
        die_with_parent(&mut command, &ends);
        let child = command.spawn().with_context(|| format!("cannot start {}", process::line(&command)))?;
        Ok((Self { child }, out, err))
    }

    /// Ends it at once; nothing of a guest outlives its command.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // Nobody is left to tell; a process that already ended is no failure.
        let _ = self.kill();
    }
}

/// Gives the child the sockets and ties its life to this thread's, whatever ends us: Ctrl-C, a signal, a panic.
fn die_with_parent(command: &mut Command, ends: &[OwnedFd; 2]) {
    let raw: [RawFd; 2] = ends.each_ref().map(AsRawFd::as_raw_fd);
    let parent = nix::unistd::getpid();
    let prepare = move || {
        for fd in raw {
            // SAFETY: the descriptors are open in the child as in the parent, which keeps `ends` until after the spawn.
            let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        // The parent may have died before the line above.
        if nix::unistd::getppid() == parent { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    };
    // SAFETY: between fork and exec the closure makes four system calls and neither allocates nor takes a lock.
    unsafe { command.pre_exec(prepare) };
}

/// The machine: no device that the guest does not use, because each costs boot time under emulation.
fn arguments(guest: &Guest, files: &Files<'_>, [out, err]: [RawFd; 2]) -> Vec<OsString> {
    let cpus = guest.cpus.to_string();
    let memory = format!("{}M", guest.mem_mib);
    // One thread for all processors. With one each they spend most of it waiting for each other (twice as much of this machine for the
    // same tests), and where another program holds one of them up, the other has been seen to run into an instruction that the
    // kernel was just patching (an oops at an int3 of a static branch).
    let accelerator = "tcg,thread=single,tb-size=256";
    let out_socket = format!("socket,id=out,fd={out}");
    let err_socket = format!("socket,id=err,fd={err}");
    let mut words: Vec<OsString> = [
        ["-machine", "pc,usb=off,vmport=off,hpet=off"],
        ["-accel", accelerator],
        ["-cpu", "max,la57=off"],
        ["-smp", &cpus],
        ["-m", &memory],
        ["-display", "none"],
        ["-monitor", "none"],
        ["-nic", "none"],
        ["-rtc", "base=utc"],
        ["-device", "virtio-serial-pci,max_ports=3"],
        ["-chardev", &out_socket],
        ["-device", "virtserialport,chardev=out,nr=1"],
        ["-chardev", &err_socket],
        ["-device", "virtserialport,chardev=err,nr=2"],
        ["-append", "console=ttyS0 quiet panic=-1 tsc=reliable no_timer_check random.trust_cpu=on"],
    ]
    .iter()
    .flatten()
    .map(OsString::from)
    .collect();
    words.extend(["-nodefaults", "-no-user-config", "-no-reboot"].map(OsString::from));
    for (option, path) in [("-kernel", files.image), ("-initrd", files.initramfs)] {
        words.extend([option.into(), path.into()]);
    }
    let mut console = OsString::from("file:");
    console.push(files.console);
    words.extend(["-serial".into(), console]);
    // `multidevs`: the machine's root spans file systems whose inode numbers would clash in one share.
    words.extend(share("root", Path::new("/"), "readonly=on,security_model=none,multidevs=remap"));
    words.extend(share("out", files.out, "security_model=none,multidevs=remap"));
    if guest.count_instructions {
        words.extend(["-icount", "shift=0,sleep=off"].map(OsString::from));
    }
    words
}

fn share(tag: &str, path: &Path, options: &str) -> [OsString; 4] {
    let mut fsdev = OsString::from(format!("local,id={tag},{options},path="));
    fsdev.push(escaped(path));
    let device = format!("virtio-9p-pci,fsdev={tag},mount_tag={tag}");
    ["-fsdev".into(), fsdev, "-device".into(), device.into()]
}

/// In an option's value a comma is written twice.
fn escaped(path: &Path) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let bytes = path.as_os_str().as_bytes();
    let doubled = bytes.iter().flat_map(|byte| if *byte == b',' { vec![b',', b','] } else { vec![*byte] });
    OsString::from_vec(doubled.collect())
}
