//! The host's memory and what one entry takes of it.

use std::fs;
use std::path::Path;

use nix::unistd::{SysconfVar, sysconf};
use procfs::{FromRead as _, Meminfo};

use super::{Error, Memory};

/// Bytes that an entry's extensions take beside its slab object: `nf_ct_ext_add` allocates 128 at once
/// (`NF_CT_EXT_PREALLOC` in nf_conntrack_extend.c), enough for NAT, accounting, timeout and sequence adjustment.
const EXTENSION_BYTES: u64 = 128;

/// `sizeof(struct nf_conn)` as allocated on 64-bit kernels since 5.15, for where slabinfo cannot be read.
const USUAL_OBJECT_BYTES: u64 = 256;

/// Where the slab caches are listed below the root; readable for root only.
pub const SLABINFO: &str = "proc/slabinfo";

/// Reads `/proc/meminfo` below `root`.
pub fn read(root: &Path) -> Result<Memory, Error> {
    let path = root.join("proc/meminfo");
    let meminfo = Meminfo::from_file(&path).map_err(|error| Error::Content { path, item: error.to_string() })?;
    // Kernels since 3.14 all have MemAvailable.
    Ok(Memory {
        total: meminfo.mem_total,
        available: meminfo.mem_available.unwrap_or(meminfo.mem_free),
        pressure: pressure(root),
    })
}

/// `some avg10=…` of /proc/pressure/memory (`psi_show` in kernel/sched/psi.c), per cent.
fn pressure(root: &Path) -> Option<f64> {
    let text = fs::read_to_string(root.join("proc/pressure/memory")).ok()?;
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    some.split(' ').find_map(|cell| cell.strip_prefix("avg10="))?.parse().ok().filter(|share: &f64| share.is_finite())
}

/// Bytes one entry takes: its share of a slab of the cache `nf_conntrack`, and its extensions.
pub fn entry_bytes(root: &Path) -> u64 {
    let object = fs::read_to_string(root.join(SLABINFO)).ok().and_then(|text| object_bytes(&text));
    object.unwrap_or(USUAL_OBJECT_BYTES) + EXTENSION_BYTES
}

/// name, active objects, objects, object size, objects per slab, pages per slab: `cache_show` in mm/slab_common.c.
fn object_bytes(slabinfo: &str) -> Option<u64> {
    let line = slabinfo.lines().find(|line| line.split_ascii_whitespace().next() == Some("nf_conntrack"))?;
    let mut cells = line.split_ascii_whitespace().skip(3);
    let size: u64 = cells.next()?.parse().ok()?;
    let per_slab: u64 = cells.next()?.parse().ok()?;
    let pages: u64 = cells.next()?.parse().ok()?;
    // What a slab leaves over at its end is used up as well.
    let share = (pages * page_bytes()).checked_div(per_slab)?;
    Some(size.max(share))
}

/// The kernel rounds the number of buckets up to a multiple of this: `PAGE_SIZE / sizeof(struct hlist_nulls_head)`
/// (`nf_ct_alloc_hashtable`).
pub fn buckets_in_a_page() -> u64 {
    page_bytes() / 8
}

/// Bytes of a memory page.
pub fn page_bytes() -> u64 {
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    page.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLABINFO_TEXT: &str = "slabinfo - version: 2.1\n\
        # name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables\n\
        nf_conntrack_expect      0      0    208   39    2 : tunables    0    0    0 : slabdata      0      0      0\n\
        nf_conntrack           107    125    320   25    2 : tunables    0    0    0 : slabdata      5      5      0\n";

    #[test]
    fn an_entry_takes_its_share_of_the_slab() {
        assert_eq!(object_bytes(SLABINFO_TEXT), Some(8192 / 25));
        assert_eq!(object_bytes("nf_conntrack 0 0 256 0 1 :"), None, "no objects per slab");
        assert_eq!(object_bytes("something else"), None);
    }

    #[test]
    fn without_slabinfo_the_usual_size_is_taken() {
        assert_eq!(entry_bytes(tempfile::tempdir().unwrap().path()), USUAL_OBJECT_BYTES + EXTENSION_BYTES);
    }

    #[test]
    fn meminfo_is_read_in_bytes() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("proc")).unwrap();
        assert!(read(root.path()).unwrap_err().to_string().contains("meminfo"));
        let text = "MemTotal: 1000 kB\nMemFree: 100 kB\nMemAvailable: 500 kB\nBuffers: 1 kB\nCached: 1 kB\n\
                    SwapCached: 0 kB\nActive: 1 kB\nInactive: 1 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\nDirty: 0 kB\n\
                    Writeback: 0 kB\nMapped: 0 kB\nSlab: 0 kB\nCommitted_AS: 0 kB\nVmallocTotal: 0 kB\n\
                    VmallocUsed: 0 kB\nVmallocChunk: 0 kB\n";
        fs::write(root.path().join("proc/meminfo"), text).unwrap();
        assert_eq!(read(root.path()).unwrap(), Memory { total: 1_024_000, available: 512_000, pressure: None });
        fs::create_dir(root.path().join("proc/pressure")).unwrap();
        let text = "some avg10=1.25 avg60=0.00 avg300=0.00 total=9\nfull avg10=0.50 avg60=0.00 avg300=0.00 total=1\n";
        fs::write(root.path().join("proc/pressure/memory"), text).unwrap();
        assert_eq!(read(root.path()).unwrap().pressure, Some(1.25));
    }
}
