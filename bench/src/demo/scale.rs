//! The gateway that the demo stands for, and the one factor by which all its sizes are divided to fit a small guest.

use bench::conntrack::Settings;

use crate::table::grouped;

/// All sizes, rates and the memory are divided by this. Times are not.
pub(super) const FACTOR: u64 = 32;
/// Memory of the gateway that the guest stands for, bytes.
const MEMORY: u64 = 16 << 30;
/// What a stock kernel sets on such a gateway: `nf_conntrack_init_start` in nf_conntrack_core.c.
const STOCK: u64 = 262_144;
/// Up to where the guard may go there: what it takes without a policy file.
const CEILING: u64 = 4_194_304;
/// New connections a second there.
const RATE: u64 = 12_800;

/// The guest's memory, bytes.
pub(super) const GUEST_MEMORY: u64 = MEMORY / FACTOR;
/// New connections a second in the guest.
pub(super) const GUEST_RATE: u64 = RATE / FACTOR;
/// What the guest's kernel would set if all of it were scaled; also the lowest values that the policy allows.
pub(super) const FLOOR: Settings = Settings { max: STOCK / FACTOR, buckets: STOCK / FACTOR };
/// The highest values that the policy allows.
pub(super) const CEILINGS: Settings = Settings { max: CEILING / FACTOR, buckets: CEILING / FACTOR };
/// The share of the memory that entries and buckets may take, percent: the guard's default.
pub(super) const MEMORY_PERCENT: u64 = 10;

/// The policy that the guard gets.
pub(super) fn policy() -> String {
    format!(
        "version = 1\n\
         mode = \"enforce\"\n\
         [table]\n\
         max = {{ floor = {}, ceiling = {} }}\n\
         memory-limit = \"{MEMORY_PERCENT}%\"\n\
         [hash]\n\
         buckets = {{ floor = {}, ceiling = {} }}\n",
        FLOOR.max, CEILINGS.max, FLOOR.buckets, CEILINGS.buckets
    )
}

/// The scale in words.
pub(super) fn words() -> String {
    format!(
        "Scale 1/{FACTOR}, of all sizes, rates and the memory; times are as they are.\n\
         \x20                          the gateway     this guest\n\
         \x20 memory                   {:>7} MiB    {:>7} MiB\n\
         \x20 stock max = buckets      {:>11}    {:>11}\n\
         \x20 the guard's ceilings     {:>11}    {:>11}\n\
         \x20 new connections a second {:>11}    {:>11}\n",
        grouped(MEMORY >> 20),
        grouped(GUEST_MEMORY >> 20),
        grouped(STOCK),
        grouped(FLOOR.max),
        grouped(CEILING),
        grouped(CEILINGS.max),
        grouped(RATE),
        grouped(GUEST_RATE),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_factor_for_all() {
        assert_eq!((GUEST_MEMORY, FLOOR.max, CEILINGS.max, GUEST_RATE), (512 << 20, 8_192, 131_072, 400));
        assert_eq!(
            words(),
            "Scale 1/32, of all sizes, rates and the memory; times are as they are.\n\
             \x20                          the gateway     this guest\n\
             \x20 memory                    16,384 MiB        512 MiB\n\
             \x20 stock max = buckets          262,144          8,192\n\
             \x20 the guard's ceilings       4,194,304        131,072\n\
             \x20 new connections a second      12,800            400\n"
        );
    }
}
