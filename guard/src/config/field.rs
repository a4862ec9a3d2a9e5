//! What a key's value may be, where it stands in the [`Policy`], and how both are written.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::de::DeValue;

use super::policy::{MemoryLimit, Mode, Policy, Restore, Window};
use crate::observe::Timeout;

/// The one format this program reads.
pub(super) const VERSION: u64 = 1;

const DAY: Duration = Duration::from_hours(24);
const MEMORY_PERCENT: RangeInclusive<f64> = 0.1..=90.0;
const MEMORY_BYTES: RangeInclusive<u64> = 1 << 20..=1 << 50;
/// The kernel keeps a timeout in jiffies in an int: 24.8 days where it counts 1000 a second.
const TIMEOUT: RangeInclusive<u64> = 1..=24 * 86_400;

/// The type of a key with its range, and its place in the policy.
#[derive(Clone, Debug)]
pub(super) enum Field {
    /// The file's format; in no policy.
    Version,
    Mode,
    Restore,
    Memory,
    Window,
    Switch(fn(&mut Policy) -> &mut bool),
    Integer(fn(&mut Policy) -> &mut Option<u64>, RangeInclusive<u64>),
    Number(fn(&mut Policy) -> &mut f64, RangeInclusive<f64>),
    Time(fn(&mut Policy) -> &mut Duration, RangeInclusive<Duration>),
    /// Whole seconds.
    Floor(Timeout),
}

impl Field {
    /// Takes a value into the policy, or says what would be right.
    pub(super) fn accept(&self, value: &DeValue<'_>, policy: &mut Policy) -> Option<()> {
        match self {
            Self::Version => as_integer(value).filter(|version| *version == VERSION).map(drop),
            Self::Mode => word(value, &Mode::WORDS).map(|mode| policy.mode = mode),
            Self::Restore => word(value, &Restore::WORDS).map(|restore| policy.stop.restore = restore),
            Self::Memory => memory(value).map(|limit| policy.table.memory_limit = limit),
            Self::Window => window(value.as_str()?).map(|window| policy.hash.resize_window = Some(window)),
            Self::Switch(place) => value.as_bool().map(|on| *place(policy) = on),
            Self::Integer(place, range) => {
                as_integer(value).filter(|number| range.contains(number)).map(|number| *place(policy) = Some(number))
            }
            Self::Number(place, range) => {
                as_number(value).filter(|number| range.contains(number)).map(|number| *place(policy) = number)
            }
            Self::Time(place, range) => {
                time(value).filter(|time| range.contains(time)).map(|time| *place(policy) = time)
            }
            Self::Floor(timeout) => {
                let floor = time(value).filter(|time| time.subsec_nanos() == 0)?.as_secs();
                TIMEOUT.contains(&floor).then(|| policy.timeouts.set_floor(*timeout, floor))
            }
        }
    }

    /// The value in a policy as TOML; `None` where the policy leaves it open.
    pub(super) fn literal(&self, policy: &Policy) -> Option<String> {
        // The places are given for writing, too.
        let mut policy = policy.clone();
        match self {
            Self::Version => Some(VERSION.to_string()),
            Self::Mode => Some(format!("\"{}\"", policy.mode.name())),
            Self::Restore => Some(format!("\"{}\"", policy.stop.restore.name())),
            Self::Memory => Some(match policy.table.memory_limit {
                MemoryLimit::Percent(share) => format!("\"{share}%\""),
                MemoryLimit::Bytes(bytes) if bytes.is_multiple_of(1 << 20) => format!("\"{}MiB\"", bytes >> 20),
                MemoryLimit::Bytes(bytes) => bytes.to_string(),
            }),
            Self::Window => policy.hash.resize_window.map(|Window { from, to }| {
                let clock = |time: Duration| format!("{:02}:{:02}", time.as_secs() / 3600, time.as_secs() / 60 % 60);
                format!("\"{}-{}\"", clock(from), clock(to))
            }),
            Self::Switch(place) => Some(place(&mut policy).to_string()),
            Self::Integer(place, _) => place(&mut policy).map(|number| number.to_string()),
            // With the point that makes it a float.
            Self::Number(place, _) => Some(format!("{:?}", place(&mut policy))),
            Self::Time(place, _) => Some(format!("\"{}\"", humantime::format_duration(*place(&mut policy)))),
            Self::Floor(timeout) => Some(format!("\"{}s\"", policy.timeouts.floor(*timeout))),
        }
    }

    /// The type for people.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Version | Self::Integer(..) => "integer",
            Self::Mode | Self::Restore => "word",
            Self::Memory => "share with `%`, size, or integer of bytes",
            Self::Window => "two times of day, UTC",
            Self::Switch(_) => "boolean",
            Self::Number(..) => "number",
            Self::Time(..) | Self::Floor(_) => "duration",
        }
    }

    /// The values that are taken, for people.
    pub(super) fn range(&self) -> String {
        match self {
            Self::Version => VERSION.to_string(),
            Self::Mode => words(&Mode::WORDS, ", "),
            Self::Restore => words(&Restore::WORDS, ", "),
            Self::Memory => format!(
                "\"{}%\" to \"{}%\" of the host's memory; \"{}\" to \"{}\"",
                MEMORY_PERCENT.start(),
                MEMORY_PERCENT.end(),
                bytesize::ByteSize::b(*MEMORY_BYTES.start()),
                bytesize::ByteSize::b(*MEMORY_BYTES.end())
            ),
            Self::Window => "two different times from 00:00 to 24:00".to_owned(),
            Self::Switch(_) => "true, false".to_owned(),
            Self::Integer(_, range) => format!("{} to {}", range.start(), range.end()),
            Self::Number(_, range) => format!("{} to {}", range.start(), range.end()),
            Self::Time(_, range) => format!(
                "{} to {}",
                humantime::format_duration(*range.start()),
                humantime::format_duration(*range.end())
            ),
            Self::Floor(_) => format!("{}s to {}days, whole seconds", TIMEOUT.start(), TIMEOUT.end() / DAY.as_secs()),
        }
    }

    /// What to give instead of a value that was refused.
    pub(super) fn wanted(&self, example: &str) -> String {
        let range = self.range();
        match self {
            Self::Version => format!("give {range}"),
            Self::Mode => format!("give {}", words(&Mode::WORDS, " or ")),
            Self::Restore => format!("give {}", words(&Restore::WORDS, " or ")),
            Self::Switch(_) => "give true or false".to_owned(),
            Self::Memory => format!("give a share from {}", range.replace("; ", ", or bytes from ")),
            Self::Window => format!("give two different times of day, UTC, such as {example}"),
            Self::Integer(..) => format!("give an integer from {range}"),
            Self::Number(..) => format!("give a number from {range}, such as {example}"),
            Self::Time(..) | Self::Floor(_) => format!("give a time from {range}, with its unit, such as {example}"),
        }
    }
}

fn words<T>(words: &[(&str, T)], between: &str) -> String {
    words.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>().join(between)
}

fn word<T: Copy>(value: &DeValue<'_>, words: &[(&str, T)]) -> Option<T> {
    let text = value.as_str()?;
    words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning)
}

fn as_integer(value: &DeValue<'_>) -> Option<u64> {
    let integer = value.as_integer()?;
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

fn as_number(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Float(float) => float.as_str().parse().ok(),
        other => as_integer(other).map(|integer| integer as f64),
    }
}

fn time(value: &DeValue<'_>) -> Option<Duration> {
    humantime::parse_duration(value.as_str()?).ok()
}

/// `"10%"`, `"1GiB"` or bytes.
fn memory(value: &DeValue<'_>) -> Option<MemoryLimit> {
    let limit = match value {
        DeValue::String(text) => match text.trim().strip_suffix('%') {
            Some(share) => MemoryLimit::Percent(share.trim().parse().ok()?),
            None => MemoryLimit::Bytes(text.trim().parse::<bytesize::ByteSize>().ok()?.0),
        },
        other => MemoryLimit::Bytes(as_integer(other)?),
    };
    let legal = match limit {
        MemoryLimit::Percent(share) => MEMORY_PERCENT.contains(&share),
        MemoryLimit::Bytes(size) => MEMORY_BYTES.contains(&size),
    };
    legal.then_some(limit)
}

/// `"02:00-04:00"`. The end of the day may be written as 24:00; a window from a time to itself would be none, or all day.
fn window(text: &str) -> Option<Window> {
    let (from, to) = text.split_once('-')?;
    let (from, to) = (time_of_day(from)?, time_of_day(to)?);
    let to = if to == DAY { Duration::ZERO } else { to };
    (from != to && from != DAY).then_some(Window { from, to })
}

fn time_of_day(text: &str) -> Option<Duration> {
    let (hours, minutes) = text.trim().split_once(':')?;
    let two_digits = |text: &str| {
        let plain = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| text.parse::<u64>().ok()).flatten()
    };
    let (hours, minutes) = (two_digits(hours)?, two_digits(minutes)?);
    let time = Duration::from_secs(hours * 3600 + minutes * 60);
    (minutes < 60 && time <= DAY).then_some(time)
}

/// The value as the operator wrote it, or its type where that would be long; one line whatever it holds.
pub(super) fn found(value: &DeValue<'_>) -> String {
    const LONGEST: usize = 40;
    match value {
        DeValue::String(text) if text.chars().count() <= LONGEST => format!("{text:?}"),
        DeValue::String(_) => "a long string".to_owned(),
        DeValue::Integer(integer) if integer.as_str().len() <= LONGEST => integer.to_string(),
        DeValue::Float(float) if float.as_str().len() <= LONGEST => float.to_string(),
        DeValue::Integer(_) | DeValue::Float(_) => "a long number".to_owned(),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Datetime(_) => "a date or time".to_owned(),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}
