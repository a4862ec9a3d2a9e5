//! Every key of a policy file: its type, range, default and meaning in one place. The parser, docs/configuration.md,
//! `check --print-defaults` and the log of a reload are made from this table.

use std::sync::LazyLock;
use std::time::Duration;

use super::field::Field;
use super::harms;
use super::policy::Policy;
use crate::observe::Timeout;

/// A key that holds a value.
#[derive(Debug)]
pub struct Key {
    /// With the tables it stands in, such as `table.max.floor`.
    pub name: String,
    /// What it does, as one line of Markdown.
    pub meaning: String,
    /// What holds where the file does not say and the default is no value of its own; else empty.
    pub open: &'static str,
    /// A value for messages where there is no default.
    example: &'static str,
    pub(super) field: Field,
}

impl Key {
    fn new(name: &str, field: Field, meaning: &str) -> Self {
        Self { name: name.to_owned(), meaning: meaning.to_owned(), open: "", example: "", field }
    }

    fn open(self, open: &'static str, example: &'static str) -> Self {
        Self { open, example, ..self }
    }

    /// The type for people.
    pub fn kind(&self) -> &'static str {
        self.field.kind()
    }

    /// The values that are taken, for people.
    pub fn range(&self) -> String {
        self.field.range()
    }

    /// The value that is in force under a policy, as TOML; `None`: see [`Key::open`].
    pub fn value(&self, policy: &Policy) -> Option<String> {
        self.field.literal(policy)
    }

    /// A valid value, as TOML.
    pub fn example(&self) -> String {
        self.value(&Policy::default()).unwrap_or_else(|| self.example.to_owned())
    }
}

/// Every key, in the order in which a file is best written.
pub fn keys() -> &'static [Key] {
    static KEYS: LazyLock<Vec<Key>> = LazyLock::new(all);
    &KEYS
}

/// The key of this name.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    keys().iter().find(|key| key.name == name)
}

const DEFAULT_CEILING: &str = "4194304, or the floor or the value found at start if larger";

fn all() -> Vec<Key> {
    let mut keys = table_and_hash();
    keys.push(Key::new(
        "timeouts.shorten",
        Field::Switch(|policy| &mut policy.timeouts.shorten),
        "Whether timeouts may be shortened when max may not rise.",
    ));
    keys.extend(Timeout::ALL.map(floor));
    keys.extend([
        Key::new(
            "relax.after",
            Field::Time(|policy| &mut policy.relax.after, Duration::from_mins(1)..=Duration::from_hours(7 * 24)),
            "How long it must have been calm before a step back: timeouts first, then max.",
        ),
        Key::new(
            "flood.detect",
            Field::Switch(|policy| &mut policy.flood.detect),
            "Whether a flood is told from growth, and max does not rise for it. Without it every load counts as growth.",
        ),
        Key::new(
            "flood.unreplied",
            Field::Number(|policy| &mut policy.flood.unreplied, 0.5..=1.0),
            "The share without a reply, of the entries that come on top of calm, from which on a surge may be a flood.",
        ),
        Key::new(
            "stop.restore",
            Field::Restore,
            "What a stop puts back. `when-safe`: what can come back without a flow refused or a stall beyond \
             `hash.max-stall`; `conntrack-guard restore` or the next start does the rest. `keep`: nothing, the next guard takes \
             over (for rolling updates). `now`: everything, whatever it stalls; max never goes below what is in use.",
        ),
    ]);
    keys
}

fn table_and_hash() -> Vec<Key> {
    vec![
        Key::new("version", Field::Version, "The format of the file. Another version is refused."),
        Key::new(
            "mode",
            Field::Mode,
            "`enforce`: decide and act. `advise`: decide and report, change nothing. `off`: observe and report only.",
        ),
        Key::new(
            "table.max.floor",
            // The kernel keeps `nf_conntrack_max` in an int for its sysctl; 0 means "no limit" before 6.19 and is refused
            // after.
            Field::Integer(|policy| &mut policy.table.max.floor, 1..=2_147_483_647),
            "The lowest value that the guard may choose for `nf_conntrack_max`, entries. Not above the ceiling.",
        )
        .open("as found at start", "131072"),
        Key::new(
            "table.max.ceiling",
            Field::Integer(|policy| &mut policy.table.max.ceiling, 1..=2_147_483_647),
            "The highest value that the guard may choose for `nf_conntrack_max`, entries.",
        )
        .open(DEFAULT_CEILING, "4194304"),
        Key::new(
            "table.memory-limit",
            Field::Memory,
            "What the entries of a full table and the buckets may take together.",
        ),
        Key::new(
            "table.high-water",
            Field::Number(|policy| &mut policy.table.high_water, 0.1..=0.99),
            "The share of max that the forecast may reach before max is raised.",
        ),
        Key::new(
            "table.horizon",
            Field::Time(|policy| &mut policy.table.horizon, Duration::from_secs(1)..=Duration::from_mins(10)),
            "How far ahead the forecast looks.",
        ),
        Key::new(
            "hash.buckets.floor",
            // `nf_ct_alloc_hashtable` takes no more: its bytes must fit an unsigned int.
            Field::Integer(|policy| &mut policy.hash.buckets.floor, 1..=536_870_911),
            "The lowest value that the guard may choose for `nf_conntrack_buckets`. Not above the ceiling.",
        )
        .open("as found at start", "65536"),
        Key::new(
            "hash.buckets.ceiling",
            Field::Integer(|policy| &mut policy.hash.buckets.ceiling, 1..=536_870_911),
            "The highest value that the guard may choose for `nf_conntrack_buckets`.",
        )
        .open(DEFAULT_CEILING, "4194304"),
        Key::new(
            "hash.max-stall",
            Field::Time(|policy| &mut policy.hash.max_stall, Duration::ZERO..=Duration::from_secs(10)),
            "The longest estimated time for which a resize of the hash table may hold up all conntrack packets, at start \
             too.",
        ),
        Key::new(
            "hash.resize-window",
            Field::Window,
            "Hours of the day (UTC) in which a resize may stall longer than `max-stall`, when the chains cost more than it \
             does. May go past midnight.",
        )
        .open("never", "\"02:00-04:00\""),
    ]
}

fn floor(timeout: Timeout) -> Key {
    let default = timeout.kernel_default();
    let alone = if Policy::default().timeouts.floor(timeout) >= default { ", so it is left alone" } else { "" };
    let meaning = format!(
        "The shortest that the guard may set `{}` to: {}. Shorter, {}. The kernel starts with {default} s{alone}.",
        timeout.sysctl(),
        harms::entries(timeout),
        harms::harm(timeout)
    );
    Key::new(&format!("timeouts.{}.floor", timeout.name()), Field::Floor(timeout), &meaning)
}
