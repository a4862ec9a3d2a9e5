//! The credit that the CPUs have: granted through one mapped word, and woken for by a ring when it is spent.

use std::ffi::c_void;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use guard_ebpf::{Spent, grant};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The word, mapped. The counters have a mapping of their own, which cannot be written.
pub struct Grant(NonNull<c_void>);

const WORD: NonZeroUsize = NonZeroUsize::new(size_of::<AtomicU64>()).unwrap();

impl Grant {
    /// Maps the value of a map that was made with `BPF_F_MMAPABLE`.
    pub fn map(map: impl AsFd) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice.
        let word =
            unsafe { mmap(None, WORD, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED, map, 0) };
        Ok(Self(word?))
    }

    fn set(&self, value: u64) {
        // SAFETY: a mapping begins on a page, and this one lives as long as `self`; the kernel only reads it.
        let word = unsafe { AtomicU64::from_ptr(self.0.cast::<u64>().as_ptr()) };
        word.store(value, Ordering::Relaxed);
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `map`, which nothing borrows any more. Its failure would leave it mapped: harmless.
        let _ = unsafe { munmap(self.0, WORD.get()) };
    }
}

// SAFETY: memory that any thread may write, by whole words.
unsafe impl Send for Grant {}

/// Grants credit, and waits until some CPU has spent it.
pub struct Credit {
    word: Grant,
    events: RingBuf<MapData>,
    /// The ring again, registered with the runtime at the first wait.
    awaited: Option<AsyncFd<OwnedFd>>,
    /// What is granted now.
    granted: u64,
}

impl Credit {
    pub(super) fn new(word: Grant, events: RingBuf<MapData>) -> Self {
        Self { word, events, awaited: None, granted: 0 }
    }

    /// Grants each CPU so many inserts from its next stop on, whatever it had; 0: no wake-up.
    pub fn grant(&mut self, inserts: u64) {
        let number = u32::try_from(self.granted >> 32).unwrap_or(0).wrapping_add(1);
        self.granted = grant(number, u32::try_from(inserts).unwrap_or(u32::MAX));
        self.word.set(self.granted);
    }

    /// Returns when a CPU has spent what is granted now: the time since boot at which it did. What is left of earlier grants
    /// wakes nobody. May be dropped at any time.
    pub async fn spent(&mut self) -> io::Result<Duration> {
        loop {
            if let Some(at) = self.next() {
                return Ok(at);
            }
            let awaited = match &mut self.awaited {
                Some(awaited) => awaited,
                none => {
                    let ring = self.events.as_fd().try_clone_to_owned()?;
                    // SAFETY: the descriptor is the new value's own, open until that is dropped.
                    let registered = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
                    none.insert(registered.map_err(io::Error::other)?)
                }
            };
            // Cleared before the ring is looked at again: what comes in between is seen by the one or by the other.
            awaited.readable().await?.clear_ready();
        }
    }

    /// The first event of the grant in force; takes it and all before it.
    pub fn next(&mut self) -> Option<Duration> {
        while let Some(event) = self.events.next() {
            if let Some(at) = spent(&event, self.granted) {
                return Some(at);
            }
        }
        None
    }
}

fn spent(bytes: &[u8], granted: u64) -> Option<Duration> {
    if bytes.len() != size_of::<Spent>() {
        return None;
    }
    // SAFETY: as long as the struct, any bytes are a valid value of it, and the read does not want alignment.
    let event = unsafe { bytes.as_ptr().cast::<Spent>().read_unaligned() };
    (event.grant == granted).then(|| Duration::from_nanos(event.at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_grant_in_force_wakes() {
        let bytes: Vec<u8> = [7_000_u64.to_ne_bytes(), grant(3, 500).to_ne_bytes()].concat();
        assert_eq!(spent(&bytes, grant(3, 500)), Some(Duration::from_micros(7)));
        assert_eq!(spent(&bytes, grant(4, 500)), None, "an earlier grant of as much");
        assert_eq!(spent(&bytes[..8], grant(3, 500)), None);
    }
}
