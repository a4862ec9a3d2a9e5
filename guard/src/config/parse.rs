//! The text of a policy file → [`Policy`].

use std::fs::File;
use std::io::Read;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use toml::de::DeTable;

use super::errors::Errors;
use super::policy::{Mode, Policy};
use super::section::{Reader, Section};

/// The one format this program reads.
const VERSION: u64 = 1;
/// No policy is longer; a device or an endless pipe given by mistake must not fill the memory.
const LONGEST_FILE: u64 = 1 << 20;

/// The kernel keeps `nf_conntrack_max` in an int for its sysctl; 0 means "no limit" before 6.19 and is refused after.
const MAX: RangeInclusive<u64> = 1..=2_147_483_647;
/// `nf_ct_alloc_hashtable` takes no more: its bytes must fit an unsigned int.
const BUCKETS: RangeInclusive<u64> = 1..=536_870_911;
const HIGH_WATER: RangeInclusive<f64> = 0.1..=0.99;
const HORIZON: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_mins(10);
const MAX_STALL: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(10);
const MEMORY_PERCENT: RangeInclusive<f64> = 0.1..=90.0;
const MEMORY_BYTES: RangeInclusive<u64> = 1 << 20..=1 << 50;

/// Reads the policy file at `path`. A file that is missing or cannot be read is an error: a host without a file uses
/// [`Policy::default`].
pub fn load(path: &Path) -> Result<Policy, Errors> {
    let name = path.display().to_string();
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LONGEST_FILE + 1).read_to_end(&mut bytes));
    if let Err(error) = read {
        let message = format!("cannot be read: {error}; give a file that exists and that this user may read");
        return Err(Errors::whole_file(&name, message));
    }
    if bytes.len() as u64 > LONGEST_FILE {
        let message = "is longer than 1 MiB and so no policy; give the policy's own file";
        return Err(Errors::whole_file(&name, message.to_owned()));
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => parse(&name, text),
        Err(error) => {
            let valid = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            let mut reader = Reader::new(&name, &valid);
            reader.refuse("", valid.len(), "not UTF-8 text; save the file as UTF-8".to_owned());
            reader.finish(Policy::default())
        }
    }
}

/// Reads a policy from `text`; `name` stands for the file in messages. Keys that are not there keep their defaults.
pub fn parse(name: &str, text: &str) -> Result<Policy, Errors> {
    let mut reader = Reader::new(name, text);
    let (table, syntax_errors) = DeTable::parse_recoverable(text);
    if !syntax_errors.is_empty() {
        // What stands beside a syntax error may be misread: judge no values before the syntax is right.
        for error in syntax_errors {
            let offset = error.span().map_or(0, |span| span.start);
            let message = error.message().lines().collect::<Vec<_>>().join("; ");
            reader.refuse("", offset, format!("not TOML: {message}"));
        }
        return reader.finish(Policy::default());
    }
    let mut top = Section::top(table.into_inner());
    if !version_is_known(&mut top, &mut reader) {
        // Another version's keys are not this one's: to call them unknown would mislead.
        return reader.finish(Policy::default());
    }
    let policy = policy(&mut top, &mut reader);
    top.close(&mut reader);
    reader.finish(policy)
}

fn version_is_known(top: &mut Section<'_>, reader: &mut Reader<'_>) -> bool {
    match top.integer(reader, "version", &(0..=u64::from(u32::MAX))) {
        None | Some((VERSION, _)) => true,
        Some((other, offset)) => {
            let message = format!(
                "this program reads version {VERSION}, the file says {other}; use the program it was written for, or \
                 write the policy anew as version {VERSION}"
            );
            reader.refuse("version", offset, message);
            false
        }
    }
}

fn policy(top: &mut Section<'_>, reader: &mut Reader<'_>) -> Policy {
    let mut policy = Policy::default();
    if let Some(mode) = top.word(reader, "mode", &[("enforce", Mode::Enforce), ("advise", Mode::Advise)]) {
        policy.mode = mode;
    }

    let mut table = top.section(reader, "table", "[table] with its keys below it");
    policy.table.max = table.bounds(reader, "max", &MAX, "{ floor = 131072, ceiling = 4194304 }");
    if let Some(limit) = table.memory_limit(reader, "memory-limit", &MEMORY_PERCENT, &MEMORY_BYTES) {
        policy.table.memory_limit = limit;
    }
    if let Some(share) = table.number(reader, "high-water", &HIGH_WATER, "0.80") {
        policy.table.high_water = share;
    }
    if let Some(horizon) = table.duration(reader, "horizon", &HORIZON, "10s") {
        policy.table.horizon = horizon;
    }
    table.close(reader);

    let mut hash = top.section(reader, "hash", "[hash] with its keys below it");
    policy.hash.buckets = hash.bounds(reader, "buckets", &BUCKETS, "{ ceiling = 4194304 }");
    if let Some(stall) = hash.duration(reader, "max-stall", &MAX_STALL, "20ms") {
        policy.hash.max_stall = stall;
    }
    hash.close(reader);
    policy
}
