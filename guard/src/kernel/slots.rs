//! The per-CPU slots, mapped into the daemon: reading them takes no system call.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::path::Path;
use std::ptr::NonNull;

use guard_ebpf::Slot;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::Error;
use super::object::syscall;

/// The slots of all possible CPUs.
pub struct Slots {
    first: NonNull<c_void>,
    slots: usize,
}

/// How many slots are needed, a power of two: one for the highest CPU's number and for all below it.
pub fn room(root: &Path) -> Result<usize, Error> {
    let path = root.join("sys/devices/system/cpu/possible");
    let failed = |source| syscall(&format!("reading {}", path.display()), source);
    let text = fs::read_to_string(&path).map_err(failed)?;
    // Ranges in rising order: "0-3,8-11".
    let highest = text.trim().rsplit([',', '-']).next().and_then(|highest| highest.parse::<usize>().ok());
    let highest = highest.ok_or_else(|| failed(io::Error::other(format!("no CPU numbers: {text:?}"))))?;
    Ok((highest + 1).next_power_of_two())
}

/// How many CPUs are online.
pub fn online(root: &Path) -> Result<u64, Error> {
    let path = root.join("sys/devices/system/cpu/online");
    let failed = |source| syscall(&format!("reading {}", path.display()), source);
    let text = fs::read_to_string(&path).map_err(failed)?;
    let ranges = text.trim().split(',').map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?);
        Some(last.checked_sub(first)? + 1)
    });
    let cpus: Option<u64> = ranges.sum();
    cpus.ok_or_else(|| failed(io::Error::other(format!("no CPU numbers: {text:?}"))))
}

impl Slots {
    /// Maps the value of a map of `slots` slots that was made with `BPF_F_MMAPABLE`.
    pub fn map(map: impl AsFd, slots: usize) -> io::Result<Self> {
        let length = Self::bytes(slots)?;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let first = unsafe { mmap(None, length, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, map, 0) }?;
        Ok(Self { first, slots })
    }

    /// Sums of all CPUs. Each counter is read once; counters of one CPU may be one event apart.
    pub fn sum(&self) -> Sum {
        let mut sum = Sum::default();
        for cpu in 0..self.slots {
            // SAFETY: inside the mapping, which holds `slots` slots and lives as long as `self`.
            let slot = unsafe { self.first.cast::<Slot>().add(cpu) };
            // SAFETY: as above. Volatile: the kernel writes it meanwhile, whole words at a time.
            let slot = unsafe { slot.as_ptr().read_volatile() };
            sum.add(&slot);
        }
        sum
    }

    fn bytes(slots: usize) -> io::Result<NonZeroUsize> {
        NonZeroUsize::new(slots * size_of::<Slot>()).ok_or_else(|| io::Error::other("no CPUs"))
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        if let Ok(length) = Self::bytes(self.slots) {
            // SAFETY: the mapping made in `map`, which nothing borrows any more. Its failure would leave it mapped: harmless.
            let _ = unsafe { munmap(self.first, length.get()) };
        }
    }
}

/// Sums over all CPUs.
pub struct Sum {
    /// All counters but those by namespace.
    pub slot: Slot,
    /// Inserts by network namespace (`ns.inum`).
    pub namespaces: BTreeMap<u32, u64>,
}

impl Default for Sum {
    fn default() -> Self {
        // SAFETY: plain integers; all zero is valid.
        Self { slot: unsafe { std::mem::zeroed() }, namespaces: BTreeMap::new() }
    }
}

impl Sum {
    /// All inserts: each is one of some namespace.
    pub fn inserts(&self) -> u64 {
        self.namespaces.values().fold(self.slot.other_namespaces, |sum, inserts| sum.saturating_add(*inserts))
    }

    /// What was counted since an earlier reading; namespaces without an insert since are left out.
    pub fn since(mut self, earlier: &Self) -> Self {
        each(&mut self.slot, &earlier.slot, u64::saturating_sub);
        for (inum, inserts) in &mut self.namespaces {
            *inserts = inserts.saturating_sub(earlier.namespaces.get(inum).copied().unwrap_or(0));
        }
        self.namespaces.retain(|_, inserts| *inserts > 0);
        self
    }

    fn add(&mut self, slot: &Slot) {
        each(&mut self.slot, slot, u64::saturating_add);
        for namespace in slot.namespaces.iter().filter(|namespace| namespace.inum != 0) {
            *self.namespaces.entry(namespace.inum).or_default() += namespace.inserts;
        }
    }
}

/// Joins each counter of one slot with another's; namespaces are not among them.
fn each(to: &mut Slot, from: &Slot, join: impl Fn(u64, u64) -> u64) {
    let single = [
        (&mut to.reply_only_destroys, from.reply_only_destroys),
        (&mut to.table_full, from.table_full),
        (&mut to.early_drops, from.early_drops),
        (&mut to.clashes_lost, from.clashes_lost),
        (&mut to.clashes_resolved, from.clashes_resolved),
        (&mut to.reply_only_inserts, from.reply_only_inserts),
        (&mut to.strayed, from.strayed),
        (&mut to.other_namespaces, from.other_namespaces),
    ];
    let destroys = to.destroys.iter_mut().zip(from.destroys);
    let chains = to.chains.iter_mut().flatten().zip(from.chains.into_iter().flatten());
    for (to, from) in single.into_iter().chain(destroys).chain(chains) {
        *to = join(*to, from);
    }
}

// SAFETY: a read-only mapping of memory that only the kernel writes.
unsafe impl Send for Slots {}

#[cfg(test)]
mod tests {
    use super::*;

    fn room_for(possible: &str) -> Option<usize> {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("sys/devices/system/cpu");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("possible"), possible).unwrap();
        room(root.path()).ok()
    }

    #[test]
    fn the_cpus_online_are_counted() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("sys/devices/system/cpu");
        fs::create_dir_all(&folder).unwrap();
        for (text, cpus) in [("0\n", Some(1)), ("0-3,8-11\n", Some(8)), ("0,2", Some(2)), ("\n", None), ("3-1", None)] {
            fs::write(folder.join("online"), text).unwrap();
            assert_eq!(online(root.path()).ok(), cpus, "{text:?}");
        }
    }

    #[test]
    fn there_is_a_slot_for_the_highest_cpu() {
        for (possible, slots) in
            [("0\n", 1), ("0-1\n", 2), ("0-2\n", 4), ("0-63\n", 64), ("0-3,8-11\n", 16), ("0,2", 4)]
        {
            assert_eq!(room_for(possible), Some(slots), "{possible}");
        }
        assert_eq!(room_for("\n"), None);
    }
}
