//! The per-CPU slots, mapped into the daemon: reading them takes no system call.

use std::{ffi::c_void, io, num::NonZeroUsize, os::fd::AsFd, ptr::NonNull};

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
    pub fn sum(&self) -> Slot {
        // SAFETY: plain integers; all zero is valid.
        let mut sum: Slot = unsafe { std::mem::zeroed() };
        for cpu in 0..self.cpus {
            // SAFETY: inside the mapping, which holds `cpus` slots and lives as long as `self`.
            let slot = unsafe { self.first.cast::<Slot>().add(cpu) };
            // SAFETY: as above. Volatile: the kernel writes it meanwhile, whole words at a time.
            let slot = unsafe { slot.as_ptr().read_volatile() };
            sum.inserts += slot.inserts;
            sum.destroys += slot.destroys;
            sum.reply_only_destroys += slot.reply_only_destroys;
            sum.table_full += slot.table_full;
            sum.early_drops += slot.early_drops;
            for (sum, chain) in sum.chains.iter_mut().flatten().zip(slot.chains.iter().flatten()) {
                *sum += chain;
            }
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

// SAFETY: a read-only mapping of memory that only the kernel writes.
unsafe impl Send for Slots {}
