//! The per-CPU slots, mapped into the daemon: reading them takes no system call.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{Ordering, fence};

use guard_ebpf::{Namespace, Slot};
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

    /// Sums of all CPUs. Counters of one CPU may be one event apart.
    pub fn sum(&self) -> Sum {
        let mut sum = Sum::default();
        for cpu in 0..self.slots {
            // SAFETY: inside the mapping, which holds `slots` slots and lives as long as `self`.
            let slot = unsafe { self.first.cast::<Slot>().add(cpu) };
            // SAFETY: as above.
            sum.add(&unsafe { Self::read(slot.as_ptr()) });
        }
        sum
    }

    /// One CPU's slot, read again where a place went to another namespace meanwhile: inserts could be taken for another
    /// one's. So many inserts are between two such changes that this comes to an end.
    ///
    /// # Safety
    /// `slot` must be valid for reads. The kernel may write it meanwhile, whole words at a time.
    unsafe fn read(slot: *const Slot) -> Slot {
        let owners = |slot: &Slot| slot.namespaces.map(|place| (place.id, place.inum, place.before));
        loop {
            // SAFETY: the caller's promise. Volatile, because it changes.
            let read = unsafe { slot.read_volatile() };
            fence(Ordering::Acquire);
            // SAFETY: as above.
            if owners(&read) == owners(&unsafe { slot.read_volatile() }) {
                return read;
            }
        }
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
    /// All counters but those of inserts.
    pub slot: Slot,
    /// All inserts: each is one of some namespace.
    pub inserts: u64,
    /// Inserts by network namespace, each since it has its places: by [`Namespace::id`].
    pub namespaces: BTreeMap<u64, Inserts>,
}

/// Inserts of one network namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inserts {
    /// `ns.inum`
    pub inum: u32,
    /// How many.
    pub inserts: u64,
}

impl Default for Sum {
    fn default() -> Self {
        // SAFETY: plain integers; all zero is valid.
        Self { slot: unsafe { std::mem::zeroed() }, inserts: 0, namespaces: BTreeMap::new() }
    }
}

impl Sum {
    /// Inserts that are no namespace's among `namespaces`.
    pub fn other(&self) -> u64 {
        self.namespaces.values().fold(self.inserts, |rest, namespace| rest.saturating_sub(namespace.inserts))
    }

    /// What was counted since an earlier reading; namespaces without an insert since are left out. One that has lost a place
    /// meanwhile shows fewer than it made, never more; the rest is among [`Self::other`].
    pub fn since(mut self, earlier: &Self) -> Self {
        each(&mut self.slot, &earlier.slot, u64::saturating_sub);
        self.inserts = self.inserts.saturating_sub(earlier.inserts);
        for (id, namespace) in &mut self.namespaces {
            let before = earlier.namespaces.get(id).map_or(0, |earlier| earlier.inserts);
            namespace.inserts = namespace.inserts.saturating_sub(before);
        }
        self.namespaces.retain(|_, namespace| namespace.inserts > 0);
        self
    }

    fn add(&mut self, slot: &Slot) {
        each(&mut self.slot, slot, u64::saturating_add);
        self.inserts = self.inserts.saturating_add(slot.other_namespaces);
        // What no namespace's number led to was not counted for one: the self-test is to see that.
        for place in slot.namespaces.iter().filter(|place| place.id != 0) {
            let Namespace { id, inserts, before, inum, .. } = *place;
            self.inserts = self.inserts.saturating_add(inserts);
            let own = inserts.saturating_sub(before);
            // Without one, its CPU is just handing it over: the id may be the old owner's and the inum the new one's.
            if own > 0 {
                let namespace = self.namespaces.entry(id).or_insert(Inserts { inum, inserts: 0 });
                namespace.inserts = namespace.inserts.saturating_add(own);
            }
        }
    }
}

/// Joins each counter of one slot with another's; inserts are not among them.
fn each(to: &mut Slot, from: &Slot, join: impl Fn(u64, u64) -> u64) {
    let single = [
        (&mut to.reply_only_destroys, from.reply_only_destroys),
        (&mut to.table_full, from.table_full),
        (&mut to.early_drops, from.early_drops),
        (&mut to.clashes_lost, from.clashes_lost),
        (&mut to.clashes_resolved, from.clashes_resolved),
        (&mut to.reply_only_inserts, from.reply_only_inserts),
        (&mut to.strayed, from.strayed),
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
mod tests;
