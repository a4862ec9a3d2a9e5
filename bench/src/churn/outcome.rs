//! What became of a load.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::{Serialize, Serializer};

/// Why a connection failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// No answer to the SYN within [`CONNECT_TIMEOUT`](super::CONNECT_TIMEOUT).
    ConnectTimeout,
    /// The SYN was answered by a reset.
    Refused,
    /// The connection was reset after it stood.
    Reset,
    /// No route, or an ICMP error said so.
    Unreachable,
    /// Connected, but the whole reply did not come within [`REQUEST_TIMEOUT`](super::REQUEST_TIMEOUT).
    RequestTimeout,
    /// The server closed before the whole reply had come.
    ShortReply,
    /// More than [`MAX_IN_FLIGHT`](super::MAX_IN_FLIGHT) connections were open: not tried.
    TooMany,
    /// This machine could not make the socket: no port, no file, no memory.
    Local,
}

impl Failure {
    /// In words, for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::ConnectTimeout => "connect timed out",
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Unreachable => "unreachable",
            Self::RequestTimeout => "request timed out",
            Self::ShortReply => "reply cut short",
            Self::TooMany => "too many open",
            Self::Local => "no socket",
        }
    }
}

impl From<&io::Error> for Failure {
    fn from(error: &io::Error) -> Self {
        use io::ErrorKind as Kind;
        match error.kind() {
            Kind::TimedOut => Self::ConnectTimeout,
            Kind::ConnectionRefused => Self::Refused,
            Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe | Kind::NotConnected => Self::Reset,
            Kind::HostUnreachable | Kind::NetworkUnreachable => Self::Unreachable,
            Kind::UnexpectedEof => Self::ShortReply,
            _ => Self::Local,
        }
    }
}

/// What became of all connections of a load.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Connections started; each was made or failed, unless the load was stopped.
    pub started: u64,
    /// Connections that went all the way.
    pub made: u64,
    /// Those that did not, by cause; a cause that never came is not in it.
    pub failed: BTreeMap<Failure, u64>,
    /// From `connect()` to connected, of all that connected.
    pub connect: Latency,
    /// How much later than scheduled connections were started: where this is long the machine is too slow for the rate,
    /// and the load was less even than it should be.
    pub lateness: Latency,
    /// From the first start to the last end.
    #[serde(serialize_with = "micros")]
    pub elapsed: Duration,
}

impl Outcome {
    /// Connections that failed, whatever the cause.
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }
}

/// A distribution of durations in short, in whole microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Latency {
    /// How many were measured.
    pub count: u64,
    /// Half were no longer.
    #[serde(rename = "p50_us", serialize_with = "micros")]
    pub p50: Duration,
    /// 99 of 100 were no longer.
    #[serde(rename = "p99_us", serialize_with = "micros")]
    pub p99: Duration,
    /// The longest.
    #[serde(rename = "max_us", serialize_with = "micros")]
    pub max: Duration,
}

fn micros<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}

/// Collects durations up to a minute, to three digits.
#[derive(Debug)]
pub(super) struct Recorder(Histogram<u32>);

impl Recorder {
    pub fn new() -> Result<Self> {
        Ok(Self(Histogram::new_with_bounds(1, 60_000_000, 3)?))
    }

    pub fn record(&mut self, duration: Duration) {
        self.0.saturating_record(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }

    pub fn summary(&self) -> Latency {
        if self.0.is_empty() {
            return Latency::default();
        }
        let at = |quantile| Duration::from_micros(self.0.value_at_quantile(quantile));
        Latency { count: self.0.len(), p50: at(0.50), p99: at(0.99), max: Duration::from_micros(self.0.max()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_to_three_digits() {
        let mut recorder = Recorder::new().unwrap();
        for micros in 1..=10_000 {
            recorder.record(Duration::from_micros(micros));
        }
        let Latency { count, p50, p99, max } = recorder.summary();
        assert_eq!(count, 10_000);
        assert!(p50.abs_diff(Duration::from_millis(5)) <= Duration::from_micros(5), "{p50:?}");
        assert!(p99.abs_diff(Duration::from_micros(9_900)) <= Duration::from_micros(10), "{p99:?}");
        assert!(max.abs_diff(Duration::from_millis(10)) <= Duration::from_micros(10), "{max:?}");
    }

    #[test]
    fn nothing_measured_is_nothing_and_too_long_is_the_longest() {
        let mut recorder = Recorder::new().unwrap();
        assert_eq!(recorder.summary(), Latency::default());
        recorder.record(Duration::from_hours(1));
        assert!(recorder.summary().max >= Duration::from_secs(59));
    }

    #[test]
    fn errors_of_sockets_have_their_kinds() {
        let kind = |kind: io::ErrorKind| Failure::from(&io::Error::from(kind));
        assert_eq!(kind(io::ErrorKind::ConnectionRefused), Failure::Refused);
        assert_eq!(kind(io::ErrorKind::ConnectionReset), Failure::Reset);
        assert_eq!(Failure::from(&io::Error::from_raw_os_error(libc::EMFILE)), Failure::Local);
        assert_eq!(Failure::from(&io::Error::from_raw_os_error(libc::ENETUNREACH)), Failure::Unreachable);
    }
}
