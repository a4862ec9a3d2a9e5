//! Attaching kprobes: `perf_event_open(2)` on the kernel's kprobe event source, which needs no tracefs.

use std::ffi::CString;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::{fs, io};

use aya_obj::generated::perf_event_attr;

use super::sys;

/// Where the kernel tells how to ask for a kprobe (Documentation/ABI/testing/sysfs-bus-event_source-devices-format).
const SOURCE: &str = "/sys/bus/event_source/devices/kprobe";

/// `PERF_EVENT_IOC_SET_BPF` (include/uapi/linux/perf_event.h)
const SET_BPF: libc::Ioctl = 0x4004_2408;
/// `PERF_EVENT_IOC_ENABLE`
const ENABLE: libc::Ioctl = 0x2400;
/// `PERF_FLAG_FD_CLOEXEC`
const CLOEXEC: libc::c_ulong = 1 << 3;

/// Attaches a loaded kprobe program to the entry or the return of a function; `by_link`: by a link, which tells of missed
/// hits. Dropping the answer detaches it.
pub fn attach_kprobe(program: BorrowedFd<'_>, function: &str, at_return: bool, by_link: bool) -> io::Result<OwnedFd> {
    let event = open(function, at_return)?;
    let link = by_link.then(|| sys::link_to_event(program, event.as_fd())).transpose()?;
    if link.is_none() {
        // SAFETY: both descriptors are open; the argument is a descriptor, as this request wants.
        check(unsafe { libc::ioctl(event.as_raw_fd(), SET_BPF, program.as_raw_fd()) })?;
    }
    // SAFETY: the descriptor is open; this request takes 0.
    check(unsafe { libc::ioctl(event.as_raw_fd(), ENABLE, 0) })?;
    // A link holds its event.
    Ok(link.unwrap_or(event))
}

fn open(function: &str, at_return: bool) -> io::Result<OwnedFd> {
    let name = CString::new(function)?;
    // SAFETY: plain integers; all zero is valid, and what the kernel wants for what is not set.
    let mut attr: perf_event_attr = unsafe { std::mem::zeroed() };
    attr.size = u32::try_from(size_of::<perf_event_attr>()).map_err(io::Error::other)?;
    attr.type_ = number(&format!("{SOURCE}/type"), "")?;
    attr.__bindgen_anon_3.config1 = name.as_ptr() as u64;
    if at_return {
        attr.config = 1 << number(&format!("{SOURCE}/format/retprobe"), "config:")?;
    }
    // On any one CPU and for all processes: a kprobe fires on all CPUs whatever is asked here.
    let (process, cpu, group) = (-1, 0, -1);
    // SAFETY: `attr` is as long as it says and outlives the call, as does the name it points to.
    let fd = unsafe { libc::syscall(libc::SYS_perf_event_open, &raw const attr, process, cpu, group, CLOEXEC) };
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    check(fd)?;
    // SAFETY: the call has just made this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn number(path: &str, prefix: &str) -> io::Result<u32> {
    let text = fs::read_to_string(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{path}: {error} (CONFIG_KPROBE_EVENTS)")))?;
    let number = text.trim().strip_prefix(prefix).and_then(|text| text.parse().ok());
    number.ok_or_else(|| io::Error::other(format!("{path}: unexpected {:?}", text.trim())))
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
