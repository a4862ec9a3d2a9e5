//! How many entries are in the table. It is one for all network namespaces while its count is one namespace's.

use crate::observe::{Destroys, Sample};

/// What the count and the hooks tell together.
#[derive(Clone, Debug, Default)]
pub(super) struct Entries {
    /// Count, inserts and destroys when the hooks were first read.
    base: Option<(u64, u64, u64)>,
}

impl Entries {
    /// This namespace's count, or what the hooks saw come and go in all of them since the start if that is more. Entries
    /// that other namespaces had before are not known.
    pub fn known(&mut self, sample: &Sample) -> u64 {
        let count = sample.table.count;
        let totals =
            sample.hooks.as_ref().and_then(|hooks| hooks.inserts.zip(hooks.destroys.as_ref().map(Destroys::all)));
        totals.map_or(count, |(inserts, destroys)| {
            let (first, came_before, went_before) = *self.base.get_or_insert((count, inserts, destroys));
            let came = first.saturating_add(inserts.saturating_sub(came_before));
            count.max(came.saturating_sub(destroys.saturating_sub(went_before)))
        })
    }
}
