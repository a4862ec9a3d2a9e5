//! The per-CPU slots, mapped into the daemon: reading them takes no system call.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;

use guard_ebpf::Slot;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// The slots of all possible CPUs.
pub struct Slots {
    first: NonNull<c_void>,
    cpus: usize,
}

impl Slots {
    /// Maps an array map of `cpus` slots that was made with `BPF_F_MMAPABLE`.
    pub fn map(map: impl AsFd, cpus: usize) -> io::Result<Self> {
        let length = Self::bytes(cpus)?;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let first = unsafe { mmap(None, length, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, map, 0) }?;
        Ok(Self { first, cpus })
    }

    /// Sums of all CPUs. Each counter is read once; counters of one CPU may be one event apart.
    pub fn sum(&self) -> Sum {
        // SAFETY: plain integers; all zero is valid.
        let mut sum = Sum { slot: unsafe { std::mem::zeroed() }, namespaces: BTreeMap::new() };
        for cpu in 0..self.cpus {
            // SAFETY: inside the mapping, which holds `cpus` slots and lives as long as `self`.
            let slot = unsafe { self.first.cast::<Slot>().add(cpu) };
            // SAFETY: as above. Volatile: the kernel writes it meanwhile, whole words at a time.
            let slot = unsafe { slot.as_ptr().read_volatile() };
            sum.add(&slot);
        }
        sum
    }

    fn bytes(cpus: usize) -> io::Result<NonZeroUsize> {
        NonZeroUsize::new(cpus * size_of::<Slot>()).ok_or_else(|| io::Error::other("no CPUs"))
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        if let Ok(length) = Self::bytes(self.cpus) {
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

impl Sum {
    fn add(&mut self, slot: &Slot) {
        let sum = &mut self.slot;
        sum.inserts += slot.inserts;
        sum.reply_only_destroys += slot.reply_only_destroys;
        sum.table_full += slot.table_full;
        sum.early_drops += slot.early_drops;
        sum.clashes_lost += slot.clashes_lost;
        sum.clashes_resolved += slot.clashes_resolved;
        sum.reply_only_inserts += slot.reply_only_inserts;
        sum.strayed += slot.strayed;
        sum.other_namespaces += slot.other_namespaces;
        for (sum, destroys) in sum.destroys.iter_mut().zip(&slot.destroys) {
            *sum += destroys;
        }
        for (sum, chain) in sum.chains.iter_mut().flatten().zip(slot.chains.iter().flatten()) {
            *sum += chain;
        }
        for namespace in slot.namespaces.iter().filter(|namespace| namespace.inum != 0) {
            *self.namespaces.entry(namespace.inum).or_default() += namespace.inserts;
        }
    }
}

// SAFETY: a read-only mapping of memory that only the kernel writes.
unsafe impl Send for Slots {}
