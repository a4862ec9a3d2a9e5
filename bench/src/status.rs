//! What the guard says about itself: the part of `conntrack-guard status --json` that the bench shows.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use serde::Deserialize;

use crate::table::{grouped, short};

/// The answer.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Status {
    /// How long the guard has run.
    pub uptime_ms: u64,
    /// Time since boot of its last reading.
    pub at_ms: u64,
    /// What its figures come from.
    pub back_end: BackEnd,
    /// What it changed.
    pub changes: Vec<Change>,
    /// What it wanted and may not have.
    pub held: Vec<Held>,
    /// The last resizes of the hash table, by whomever; none where no program saw them.
    #[serde(default)]
    pub resizes: Vec<Resize>,
    /// What does not work.
    pub trouble: Option<String>,
}

/// Where figures come from.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct BackEnd {
    pub name: String,
    pub measured: bool,
    pub reason: Option<String>,
}

/// One change.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Change {
    pub at_ms: u64,
    pub setting: String,
    pub old: u64,
    pub new: u64,
    pub rule: String,
    pub evidence: String,
    pub predicted: String,
    pub result: Effect,
}

/// What came of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(crate) enum Effect {
    Applied {
        took_us: u64,
    },
    #[serde(rename = "no-effect")]
    Ignored {
        read_back: u64,
    },
    Refused {
        error: String,
    },
    Advised,
}

/// One resize of the hash table.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Resize {
    pub at_ms: u64,
    pub took_us: u64,
    pub from: Option<u64>,
    pub to: Option<u64>,
    pub error: Option<String>,
    pub own: bool,
    pub comm: String,
}

/// One thing not done.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Held {
    setting: String,
    rule: String,
    reason: String,
}

impl Display for Held {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({}): {}", self.setting, self.rule, self.reason)
    }
}

impl Status {
    /// What was changed and why, and what was not, for people.
    pub fn words(&self) -> String {
        let mut lines = vec![format!("What the guard changed, and why (back end {})", self.back_end.name)];
        let started = self.at_ms.saturating_sub(self.uptime_ms);
        for change in &self.changes {
            let after = short(Duration::from_millis(change.at_ms.saturating_sub(started)));
            let (old, new) = (grouped(change.old), grouped(change.new));
            let effect = match &change.result {
                Effect::Applied { took_us } => format!("in {}", short(Duration::from_micros(*took_us))),
                Effect::Ignored { read_back } => format!("WITHOUT EFFECT, it reads {}", grouped(*read_back)),
                Effect::Refused { error } => format!("REFUSED: {error}"),
                Effect::Advised => "ADVISED ONLY".to_owned(),
            };
            lines.push(format!("  after {after}: {} from {old} to {new}, {effect}", change.setting));
            lines.push(format!("      {}: {}", change.rule, change.evidence));
            lines.push(format!("      predicted: {}", change.predicted));
        }
        if self.changes.is_empty() {
            lines.push("  nothing".to_owned());
        }
        for held in &self.held {
            lines.push(format!("  held: {held}"));
        }
        lines.extend(self.trouble.iter().map(|trouble| format!("  trouble: {trouble}")));
        lines.join("\n") + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = r#"{"version":1,"guard":"0.1.0","uptime_ms":40000,"at_ms":100000,
        "back_end":{"name":"fentry","measured":true,"reason":null},
        "changes":[
          {"at_ms":60500,"setting":"buckets","old":8192,"new":65536,"rule":"presize-buckets","evidence":"12 entries",
           "predicted":"a stall of 1 ms","result":{"kind":"applied","read_back":65536,"took_us":1500}},
          {"at_ms":70000,"setting":"max","old":8192,"new":16384,"rule":"raise-max","evidence":"7000 of 8192",
           "predicted":"room for 10 s","result":{"kind":"no-effect","read_back":8192,"took_us":30}}],
        "held":[{"setting":"max","rule":"raise-max","reason":"the ceiling","since_ms":1}],"trouble":null}"#;

    #[test]
    fn changes_are_told_with_their_reasons() {
        let status: Status = serde_json::from_str(ANSWER).unwrap();
        assert_eq!(
            status.words(),
            "What the guard changed, and why (back end fentry)\n\
             \x20 after 500 ms: buckets from 8,192 to 65,536, in 1.50 ms\n\
             \x20     presize-buckets: 12 entries\n\
             \x20     predicted: a stall of 1 ms\n\
             \x20 after 10.0 s: max from 8,192 to 16,384, WITHOUT EFFECT, it reads 8,192\n\
             \x20     raise-max: 7000 of 8192\n\
             \x20     predicted: room for 10 s\n\
             \x20 held: max (raise-max): the ceiling\n"
        );
    }
}
