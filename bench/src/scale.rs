//! The gateway that a run stands for, and the one factor by which all its sizes are scaled to fit a guest.

use std::fmt::{self, Display, Formatter};

use bench::conntrack::Settings;

use crate::table::grouped;

/// Memory of the gateway that the guest stands for, bytes.
const MEMORY: u64 = 16 << 30;
/// Its processors.
pub(crate) const CORES: u64 = 8;
/// What a stock kernel sets on such a gateway: `nf_conntrack_init_start` in nf_conntrack_core.c.
const STOCK: u64 = 262_144;
/// Up to where the guard may go there: what it takes without a policy file.
const CEILING: u64 = 4_194_304;
/// How many times the ceilings a table is that nothing can fill.
const AMPLE: u64 = 4;
/// The longest that a resize may stall by the guard's doing, milliseconds: its default, written out to be judged by.
pub(crate) const MAX_STALL_MS: u64 = 20;
/// The share of the memory that entries and buckets may take, percent: the guard's default.
pub(crate) const MEMORY_PERCENT: u64 = 10;

/// Every size of the gateway, every rate and its memory, times one factor. Times stay as they are, and so do sizes that
/// are times: how long a table takes to fill is the same on both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scale {
    table: u64,
}

impl Scale {
    /// 1/32: a gateway of 16 GiB in a guest of 512 MiB.
    pub const DEMO: Self = Self { table: STOCK / 32 };
    /// Stock tables that can be asked for. The kernel rounds buckets up to a page of them, 512.
    pub const TABLES: [u64; 10] = [1_024, 4_096, 8_192, 16_384, 32_768, 65_536, 131_072, 262_144, 1_048_576, 2_097_152];

    /// The scale at which the stock table has `table` entries; `None` where it is none of [`Scale::TABLES`].
    pub fn of_table(table: u64) -> Option<Self> {
        Self::TABLES.contains(&table).then_some(Self { table })
    }

    /// The smallest at which the stock table is at most two thirds full with so many entries: nothing has to be decided for
    /// them.
    pub fn with_room_for(entries: u64) -> Option<Self> {
        let room = entries.saturating_mul(3) / 2;
        Self::TABLES.into_iter().find(|table| *table >= room).map(|table| Self { table })
    }

    /// A size of the gateway, in the guest.
    pub fn scaled(self, size: u64) -> u64 {
        size.saturating_mul(self.table) / STOCK
    }

    /// What a guest's number stands for at the gateway.
    fn at_gateway(self, number: u64) -> u64 {
        number.saturating_mul(STOCK) / self.table
    }

    /// Memory that belongs to a guest at this scale, bytes.
    pub fn memory(self) -> u64 {
        self.scaled(MEMORY)
    }

    /// What entries and buckets may take together, bytes.
    pub fn memory_limit(self) -> u64 {
        self.memory() * MEMORY_PERCENT / 100
    }

    /// What the guest's kernel would set if all of it were scaled; also the lowest values that the policy allows.
    pub fn stock(self) -> Settings {
        Settings { max: self.table, buckets: self.table }
    }

    /// The highest values that the policy allows.
    pub fn ceilings(self) -> Settings {
        Settings { max: self.scaled(CEILING), buckets: self.scaled(CEILING) }
    }

    /// More than any load may fill: four times the ceilings, all in memory that the guest has.
    pub fn ample(self) -> Settings {
        let Settings { max, buckets } = self.ceilings();
        Settings { max: max.saturating_mul(AMPLE), buckets: buckets.saturating_mul(AMPLE) }
    }

    /// The policy that the guard gets. `memory_limit` as it is written there: a share or a size.
    pub fn policy(self, mode: &str, memory_limit: &str) -> String {
        let (floor, ceilings) = (self.stock(), self.ceilings());
        format!(
            "version = 1\n\
             mode = \"{mode}\"\n\
             [table]\n\
             max = {{ floor = {}, ceiling = {} }}\n\
             memory-limit = \"{memory_limit}\"\n\
             [hash]\n\
             buckets = {{ floor = {}, ceiling = {} }}\n\
             max-stall = \"{MAX_STALL_MS}ms\"\n",
            floor.max, ceilings.max, floor.buckets, ceilings.buckets
        )
    }

    /// The scale in words, with a guest's rate of new connections a second.
    pub fn words(self, rate: u64) -> String {
        format!(
            "Scale {self}, of all sizes, rates and the memory; times are as they are.\n\
             \x20                          the gateway           here\n\
             \x20 memory                   {:>7} MiB    {:>7} MiB\n\
             \x20 stock max = buckets      {:>11}    {:>11}\n\
             \x20 the guard's ceilings     {:>11}    {:>11}\n\
             \x20 new connections a second {:>11}    {:>11}\n",
            grouped(MEMORY >> 20),
            grouped(self.memory() >> 20),
            grouped(STOCK),
            grouped(self.table),
            grouped(CEILING),
            grouped(self.ceilings().max),
            grouped(self.at_gateway(rate)),
            grouped(rate),
        )
    }
}

impl Display for Scale {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        if self.table > STOCK {
            write!(formatter, "{}", self.table / STOCK)
        } else {
            write!(formatter, "1/{}", STOCK / self.table)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_factor_for_all() {
        let demo = Scale::DEMO;
        assert_eq!((demo.memory(), demo.stock().max, demo.ceilings().max), (512 << 20, 8_192, 131_072));
        assert_eq!(
            demo.words(400),
            "Scale 1/32, of all sizes, rates and the memory; times are as they are.\n\
             \x20                          the gateway           here\n\
             \x20 memory                    16,384 MiB        512 MiB\n\
             \x20 stock max = buckets          262,144          8,192\n\
             \x20 the guard's ceilings       4,194,304        131,072\n\
             \x20 new connections a second      12,800            400\n"
        );
    }

    #[test]
    fn tables_are_multiples_of_a_page_of_buckets_and_scale_both_ways() {
        for table in Scale::TABLES {
            let scale = Scale::of_table(table).unwrap();
            assert_eq!((scale.stock().buckets % 512, scale.ceilings().max), (0, table * 16), "{scale}");
        }
        assert_eq!(Scale::of_table(1_048_576).unwrap().to_string(), "4");
        assert_eq!(Scale::of_table(262_144).unwrap().to_string(), "1/1");
        assert_eq!(Scale::of_table(5_000), None);
        assert_eq!(Scale::with_room_for(13_000).unwrap().stock().max, 32_768);
        assert_eq!(Scale::with_room_for(1_398_101).unwrap().stock().max, 2_097_152);
        assert_eq!(Scale::with_room_for(1_398_102), None);
    }
}
