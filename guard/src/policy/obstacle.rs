//! What keeps max from rising, or from rising as far as the forecast asks.

use std::time::Duration;

use super::limits::Limits;
use super::memory::MemoryNow;
use super::sizing::Sizing;
use crate::figures::{bytes, grouped};
use crate::model::{Estimate, Load};

/// What was known of a flood when it was noticed. Kept as it was then, because a reason holds no figure that moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FloodSeen {
    /// Entries without a reply, per cent.
    unreplied: u64,
    /// Their sources.
    sources: u64,
    /// When it was last seen.
    last: Duration,
}

/// A flood is over when nothing has been seen of it for so long: what it fills the table with is still there when it
/// pauses.
const FLOOD_STANDS: Duration = Duration::from_secs(30);

impl FloodSeen {
    /// What there is to remember after this estimate; `None` when there is no flood.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share from 0 to 1; `as` saturates")]
    pub(super) fn next(before: Option<Self>, estimate: &Estimate, detect: bool) -> Option<Self> {
        let last = estimate.at;
        match estimate.load {
            _ if !detect => None,
            Load::Flood { unreplied, sources } => {
                let first = Self { unreplied: (unreplied * 100.0).round() as u64, sources, last };
                Some(before.map_or(first, |before| Self { last, ..before }))
            }
            Load::Growth => {
                before.filter(|seen| estimate.at.checked_sub(seen.last).is_some_and(|since| since < FLOOD_STANDS))
            }
        }
    }
}

/// Why max cannot be what the forecast asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// It is above its ceiling as found.
    FoundAboveCeiling,
    /// With it, the memory limit is passed as found.
    FoundOverMemory,
    /// More room would only feed a flood.
    Flood(FloodSeen),
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
    /// The highest max there may be now, and what sets it. One that is higher as found is left so.
    pub(super) fn bound(max: u64, flood: Option<FloodSeen>, memory: &MemoryNow, sizing: &Sizing) -> (u64, Self) {
        if let Some(seen) = flood {
            return (max, Self::Flood(seen));
        }
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
            Self::Flood(seen) => format!(
                "a flood fills the table: when it was noticed, {} % of the entries had no reply, from {} sources among \
                 those looked at. More room would only feed it, and the kernel evicts such entries first. If these are \
                 real flows, set net.netfilter.nf_conntrack_max yourself, or flood.detect = false",
                seen.unreplied,
                grouped(seen.sources)
            ),
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

#[cfg(test)]
mod tests;
