//! Memory that the table takes, and that a program takes.

use std::fs;
use std::io::ErrorKind;
use std::process::{Child, ExitStatus};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::unistd::{Pid, SysconfVar, sysconf};
use serde::Serialize;

const SHRINK: &str = "/sys/kernel/slab/nf_conntrack/shrink";
const SLABINFO: &str = "/proc/slabinfo";
/// A bucket is one pointer (`struct hlist_nulls_head`).
const BUCKET_BYTES: u64 = 8;
/// Looks at a program that is ending: it may have to let go of much. 30 s.
const LOOKS: u32 = 300;
const LOOK: Duration = Duration::from_millis(100);

/// Entries in the kernel's allocator: the row `nf_conntrack` of /proc/slabinfo. Their extensions (NAT, timestamps,
/// labels) lie in other caches and are not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entries {
    /// Objects for which the allocator holds memory, in use or not.
    pub objects: u64,
    /// Bytes of one.
    pub object_bytes: u64,
}

impl Entries {
    /// Reads them. Needs root.
    pub fn read() -> Result<Self> {
        Self::parse(&fs::read_to_string(SLABINFO).context(SLABINFO)?).context(SLABINFO)
    }

    fn parse(text: &str) -> Result<Self> {
        let row = text.lines().find_map(|line| line.strip_prefix("nf_conntrack ")).context("no row nf_conntrack")?;
        // Behind the name: active objects, objects, bytes of an object, …
        let numbers: Vec<u64> = row.split_whitespace().take(3).map_while(|field| field.parse().ok()).collect();
        let [_, objects, object_bytes] = numbers[..] else { bail!("the row nf_conntrack is not understood: {row}") };
        Ok(Self { objects, object_bytes })
    }

    /// Bytes of these and of so many buckets.
    pub fn bytes_with(self, buckets: u64) -> u64 {
        self.objects * self.object_bytes + buckets * BUCKET_BYTES
    }
}

/// Lets the allocator give back what it keeps of entries that are gone, so that an earlier run's are not counted in the next.
/// Does nothing where the kernel has no such file.
pub(crate) fn shrink() -> Result<()> {
    match fs::write(SHRINK, "1") {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).context(SHRINK),
        _ => Ok(()),
    }
}

/// What a process has taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Usage {
    /// Time on a CPU, its own and that of its system calls, since its start; in steps of 10 ms.
    pub cpu_ms: u64,
    /// `VmRSS`, KiB: resident now.
    pub resident_kib: u64,
    /// `VmHWM`, KiB: resident at its peak.
    pub peak_kib: u64,
}

impl Usage {
    /// Reads a living process.
    pub fn read(pid: Pid) -> Result<Self> {
        let read = |name: &str| {
            let path = format!("/proc/{pid}/{name}");
            fs::read_to_string(&path).context(path)
        };
        let ticks = sysconf(SysconfVar::CLK_TCK)?.and_then(|ticks| u64::try_from(ticks).ok()).unwrap_or(100);
        Self::parse(&read("stat")?, &read("status")?, ticks).with_context(|| format!("/proc/{pid}"))
    }

    fn parse(stat: &str, status: &str, ticks_a_second: u64) -> Result<Self> {
        // The name is in parentheses and may hold anything; behind it state is field 3, utime and stime are 14 and 15.
        let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace()).context("stat has no name")?;
        let ticks: Vec<u64> = fields.skip(11).take(2).map_while(|field| field.parse().ok()).collect();
        let [user, system] = ticks[..] else { bail!("stat has no utime and stime") };
        let kib = |name: &str| -> Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let number = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
            number.with_context(|| format!("status has no {name}"))
        };
        Ok(Self {
            cpu_ms: (user + system) * 1000 / ticks_a_second.max(1),
            resident_kib: kib("VmRSS")?,
            peak_kib: kib("VmHWM")?,
        })
    }
}

/// How a program ended, if it did. One that is ending has no memory any more before it can be waited for.
pub(crate) fn ended(process: &mut Child) -> Option<ExitStatus> {
    let pid = Pid::from_raw(process.id().cast_signed());
    for _ in 0..LOOKS {
        match process.try_wait() {
            Ok(None) if Usage::read(pid).is_err() => thread::sleep(LOOK),
            Ok(status) => return status,
            Err(_) => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn the_row_of_the_entries_and_no_other_is_read() {
        let text = "slabinfo - version: 2.1\nnf_conntrack_expect  0 0 208 39 2 : tunables 0 0 0\n\
                    nf_conntrack  900 1024 256 32 2 : tunables 0 0 0 : slabdata 32 32 0\n";
        let entries = Entries::parse(text).unwrap();
        assert_eq!(entries, Entries { objects: 1024, object_bytes: 256 });
        assert_eq!(entries.bytes_with(512), 1024 * 256 + 512 * 8);
        assert!(Entries::parse("nf_conntrack 1 x\n").unwrap_err().to_string().contains("not understood"));
        assert!(Entries::parse("").is_err());
    }

    #[test]
    fn how_a_program_ended_is_known_as_soon_as_its_memory_is_gone() {
        let mut process = Command::new("sleep").arg("60").spawn().unwrap();
        assert_eq!(ended(&mut process), None);
        let pid = Pid::from_raw(process.id().cast_signed());
        process.kill().unwrap();
        while Usage::read(pid).is_ok() {}
        assert_eq!(ended(&mut process).unwrap().signal(), Some(9));
    }

    #[test]
    fn a_name_with_a_parenthesis_does_not_shift_the_fields() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 120 30 0 0 20 0 3 0 500";
        let status = "Name:\ta) b\nVmHWM:\t    7072 kB\nVmRSS:\t    5152 kB\n";
        let usage = Usage::parse(stat, status, 100).unwrap();
        assert_eq!(usage, Usage { cpu_ms: 1500, resident_kib: 5152, peak_kib: 7072 });
        assert!(Usage::parse(stat, "Name: a\n", 100).is_err());
    }
}
