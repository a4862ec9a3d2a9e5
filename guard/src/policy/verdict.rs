//! What a rule answers.

use super::plan::{Change, Held, Rule, Setting};

/// What one rule says: at most one change, and what it could not have.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Verdict {
    pub(super) change: Option<Change>,
    pub(super) held: Option<Held>,
    /// Whether `held` is for a limit that a forecast over the mark ran into.
    pub(super) limited: bool,
}

impl Verdict {
    pub(super) fn held(setting: Setting, rule: Rule, reason: String) -> Self {
        Self { held: Some(Held { setting, rule, reason }), ..Self::default() }
    }
}
