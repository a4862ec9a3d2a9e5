//! What a rule answers.

use super::obstacle::Obstacle;
use super::plan::{Change, Held, Rule, Setting};

/// What one rule says: at most one change, and what it could not have.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Verdict {
    pub(super) change: Option<Change>,
    pub(super) held: Option<Held>,
    /// What kept max from rising, or from rising as far as was asked.
    pub(super) limited: Option<Obstacle>,
    /// Whether nothing can be done until something other than the table changes: a bound, a write that does not take.
    pub(super) blocked: bool,
}

impl Verdict {
    /// Nothing can be done, for this reason.
    pub(super) fn held(setting: Setting, rule: Rule, reason: String) -> Self {
        Self { blocked: true, ..Self::reported(setting, rule, reason) }
    }

    /// Nothing needs to be done now, though the setting is not as it should be.
    pub(super) fn reported(setting: Setting, rule: Rule, reason: String) -> Self {
        Self { held: Some(Held { setting, rule, reason }), ..Self::default() }
    }
}
