//! Which policy is in force, for the status.

use serde::{Deserialize, Serialize};

use super::status::Status;

/// Where the policy in force comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// There is no file.
    #[default]
    Defaults,
    /// The file.
    File,
    /// The file was invalid at the start, so the policy is the last that was valid. Not ready until the file is mended.
    LastGood,
}

/// The policy in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyNow {
    /// Where it comes from.
    pub source: Source,
    /// The file that was given.
    pub file: Option<String>,
    /// Why the file as it is now is not in force, one line each with place and key; empty if it is.
    pub refused: Vec<String>,
}

impl PolicyNow {
    /// Why the guard is not ready, if it is not.
    pub fn not_ready(&self) -> Option<String> {
        let first = self.refused.first().map_or("", String::as_str);
        (self.source == Source::LastGood)
            .then(|| format!("the policy is invalid, so the last good one is in force until it is mended: {first}"))
    }
}

impl Status {
    /// Takes down where the policy comes from, and whether the guard is ready with it.
    pub(super) fn take_policy(&mut self, now: &PolicyNow) {
        self.policy = now.clone();
        self.not_ready = now.not_ready();
        self.ready = self.not_ready.is_none();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_start_on_the_last_good_policy_is_not_ready() {
        let refused = vec!["p.toml:3:1: table.horizn: unknown key".to_owned()];
        let mut now = PolicyNow { source: Source::File, file: Some("p.toml".into()), refused };
        assert_eq!(now.not_ready(), None);
        now.source = Source::LastGood;
        assert!(now.not_ready().unwrap().ends_with("until it is mended: p.toml:3:1: table.horizn: unknown key"));
    }
}
