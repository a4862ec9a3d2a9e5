//! What keeps max from rising, or from rising as far as the forecast asks.

use super::flood::FloodSeen;
use super::limits::Limits;
use super::memory::MemoryNow;
use super::sizing::Sizing;
use crate::figures::{bytes, grouped};

/// Why max cannot be what the forecast asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// It is above its ceiling as found.
    FoundAboveCeiling,
    /// With it, the memory limit is passed as found.
    FoundOverMemory,
    /// More room would only feed a flood.
    Flood(FloodSeen),
    /// What comes is not known yet.
    Surge,
    /// Tasks wait for memory.
    MemoryShort,
    /// Too little memory is available now.
    MemoryAvailable,
    /// `table.memory-limit`
    MemoryLimit,
    /// `table.max.ceiling`
    Ceiling,
}

impl Obstacle {
    /// The highest max there may be now, and what sets it. One that is higher as found is left so. `flood`: the highest for
    /// it.
    pub(super) fn bound(max: u64, flood: Option<(u64, FloodSeen)>, memory: &MemoryNow, sizing: &Sizing) -> (u64, Self) {
        let (highest, obstacle) = Self::without_flood(max, memory, sizing);
        match flood {
            Some((for_flood, seen)) if for_flood <= highest.max(max) => (for_flood, Self::Flood(seen)),
            _ => (highest, obstacle),
        }
    }

    fn without_flood(max: u64, memory: &MemoryNow, sizing: &Sizing) -> (u64, Self) {
        if memory.short {
            return (max, Self::MemoryShort);
        }
        let by_limits = if sizing.memory_binds { Self::MemoryLimit } else { Self::Ceiling };
        // The memory that is available moves all the time: raises by less than an eighth would follow it.
        let available = if memory.entries < max.saturating_add(max / 8) { max } else { memory.entries };
        if available < sizing.entries { (available, Self::MemoryAvailable) } else { (sizing.entries, by_limits) }
    }

    /// Why, in a few words: for the evidence of what is done instead.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::FoundAboveCeiling | Self::Ceiling => "table.max.ceiling",
            Self::FoundOverMemory | Self::MemoryLimit => "table.memory-limit",
            Self::Flood(_) => "a flood, which more room would feed",
            Self::Surge => "a surge of which nobody knows yet what it is",
            Self::MemoryShort | Self::MemoryAvailable => "the host's memory",
        }
    }

    /// Why, and what the operator can do about it. No figure in it moves from tick to tick.
    pub(super) fn reason(self, limits: &Limits, memory: &MemoryNow) -> String {
        match self {
            Self::FoundAboveCeiling => format!(
                "max as found is above table.max.ceiling ({}) and is left so; raise the ceiling, or lower max yourself",
                grouped(limits.max.ceiling)
            ),
            Self::FoundOverMemory => format!(
                "entries at max as found and the buckets take more than table.memory-limit ({}) and are left so; raise \
                 table.memory-limit, or lower max yourself",
                bytes(limits.memory)
            ),
            Self::Flood(seen) => flood(seen),
            Self::Surge => {
                "far more new flows come than in calm, and a look at the entries that is due in a moment tells \
                            whether they are answered; until then max is no more than twice what it was"
                    .to_owned()
            }
            Self::MemoryShort => "tasks on this host wait for memory (/proc/pressure/memory), so max rises no further \
                                  until they wait less; stop what takes the memory, or add some"
                .to_owned(),
            Self::MemoryAvailable => format!(
                "too little memory is available for more entries (MemAvailable, of which {} are left alone); max rises \
                 when there is more: stop what takes the memory, or add some",
                bytes(memory.reserve)
            ),
            Self::MemoryLimit => format!(
                "table.memory-limit ({}) lets max rise no further; raise table.memory-limit, or find out what fills the \
                 table",
                bytes(limits.memory)
            ),
            Self::Ceiling => format!(
                "table.max.ceiling ({}) lets max rise no further; raise the ceiling, or find out what fills the table",
                grouped(limits.max.ceiling)
            ),
        }
    }
}

fn flood(seen: FloodSeen) -> String {
    let mostly = seen.mostly.map_or_else(String::new, |timeout| format!(" (mostly {})", timeout.name()));
    let from = match seen.sources {
        0 => String::new(),
        sources => format!(", from {} sources among those looked at", grouped(sources)),
    };
    format!(
        "a flood: when it was noticed, {} % of what came on top of calm had no reply{mostly}{from}. More room would only \
         feed it, and the kernel evicts such entries first: max rises only for flows that are answered. If these are real \
         flows, set net.netfilter.nf_conntrack_max yourself, or flood.detect = false",
        seen.unreplied
    )
}

#[cfg(test)]
mod tests;
