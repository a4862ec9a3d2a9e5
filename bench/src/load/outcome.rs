//! What became of a load.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::{Floods, UnderFlood};

/// Why a connection failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// No answer to the SYN within [`CONNECT_TIMEOUT`](crate::churn::CONNECT_TIMEOUT).
    ConnectTimeout,
    /// It could not be connected; the program that tried does not tell why.
    ConnectFailed,
    /// The SYN was answered by a reset.
    Refused,
    /// The connection was reset after it stood.
    Reset,
    /// No route, or an ICMP error said so.
    Unreachable,
    /// Connected, but the whole reply did not come within [`REQUEST_TIMEOUT`](crate::churn::REQUEST_TIMEOUT).
    RequestTimeout,
    /// The answer was an error of HTTP, as a balancer gives that reaches no server.
    ErrorStatus,
    /// The server closed before the whole reply had come.
    ShortReply,
    /// As many connections as may be were open: not tried.
    TooMany,
    /// This machine was so late with it that it was not tried any more.
    TooLate,
    /// No answer to a datagram, or it did not arrive where none is asked for.
    Unanswered,
    /// This machine could not make the socket: no port, no file, no memory.
    Local,
}

impl Failure {
    /// In words, for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::ConnectTimeout => "connect timed out",
            Self::ConnectFailed => "connect failed",
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Unreachable => "unreachable",
            Self::RequestTimeout => "request timed out",
            Self::ErrorStatus => "error status",
            Self::ShortReply => "reply cut short",
            Self::TooMany => "too many open",
            Self::TooLate => "started too late",
            Self::Unanswered => "no answer",
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

/// What became of a load.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// Connections, flows or packets started; each was made or failed, unless the load was stopped.
    pub started: u64,
    /// What went all the way: connections whose whole reply came, to each request where they send several; datagrams that were
    /// answered or, where none is asked for, arrived. Of SYNs that nobody completes and of scans: what was sent.
    pub made: u64,
    /// What did not, by cause; a cause that never came is not in it.
    pub failed: BTreeMap<Failure, u64>,
    /// Further requests on connections that stood, beside the first of each.
    pub asked: u64,
    /// Those of them whose whole reply came.
    pub answered: u64,
    /// The same of what was done while others flooded; `None` where nobody floods, and of a load that is not of TCP connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub under_flood: Option<UnderFlood>,
    /// From `connect()` to connected, of all that connected.
    pub connect: Distribution,
    /// From a request to the whole reply, or from a datagram to its answer, of all that were answered.
    pub request: Distribution,
    /// How much later than scheduled each was started: where this is long the machine is too slow for the rate, and the
    /// load was less even than it should be.
    pub lateness: Distribution,
    /// From the first start to the last end.
    #[serde(rename = "elapsed_us", serialize_with = "micros")]
    pub elapsed: Duration,
}

impl Outcome {
    /// Of a load that has not begun.
    pub fn new() -> Result<Self> {
        let none = Distribution::new()?;
        Ok(Self {
            started: 0,
            made: 0,
            failed: BTreeMap::new(),
            asked: 0,
            answered: 0,
            under_flood: None,
            connect: none.clone(),
            request: none.clone(),
            lateness: none,
            elapsed: Duration::ZERO,
        })
    }

    pub(crate) fn fail(&mut self, failure: Failure, count: u64) {
        if count > 0 {
            *self.failed.entry(failure).or_default() += count;
        }
    }

    /// Counts what was to be done `at` this time where it is one of the floods', after the start of the same load.
    pub(crate) fn count_under(&mut self, floods: Option<&Floods>, at: Duration, count: impl FnOnce(&mut UnderFlood)) {
        if floods.is_some_and(|floods| floods.contain(at)) {
            count(self.under_flood.get_or_insert_default());
        }
    }

    /// What failed, whatever the cause.
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    /// Takes in what became of another load that ran at the same time.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        self.started += other.started;
        self.made += other.made;
        for (failure, count) in &other.failed {
            *self.failed.entry(*failure).or_default() += count;
        }
        self.asked += other.asked;
        self.answered += other.answered;
        if let Some(other) = &other.under_flood {
            self.under_flood.get_or_insert_default().merge(other);
        }
        self.connect.merge(&other.connect)?;
        self.request.merge(&other.request)?;
        self.lateness.merge(&other.lateness)?;
        self.elapsed = self.elapsed.max(other.elapsed);
        Ok(())
    }
}

fn micros<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}

/// Durations up to a minute, to three digits, in whole microseconds.
#[derive(Clone, PartialEq)]
pub struct Distribution(Histogram<u64>);

/// In short: thousands of counters say less.
impl fmt::Debug for Distribution {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (half, most, longest) = (self.at(0.5), self.at(0.99), self.max());
        write!(out, "{} of p50 {half:?}, p99 {most:?}, longest {longest:?}", self.count())
    }
}

impl Distribution {
    /// Nothing measured yet.
    pub fn new() -> Result<Self> {
        Ok(Self(Histogram::new_with_bounds(1, 60_000_000, 3)?))
    }

    pub(crate) fn record(&mut self, duration: Duration) {
        self.0.saturating_record(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }

    pub(crate) fn record_many(&mut self, duration: Duration, count: u64) {
        self.0.saturating_record_n(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX), count);
    }

    fn merge(&mut self, other: &Self) -> Result<()> {
        Ok(self.0.add(&other.0)?)
    }

    /// How many were measured.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// This share (0 to 1) were no longer; zero where nothing was measured.
    pub fn at(&self, share: f64) -> Duration {
        if self.0.is_empty() { Duration::ZERO } else { Duration::from_micros(self.0.value_at_quantile(share)) }
    }

    /// The longest.
    pub fn max(&self) -> Duration {
        Duration::from_micros(self.0.max())
    }

    /// The shape of the distribution: shares and how long so many took at most, closer together towards the longest.
    pub fn curve(&self) -> Vec<(f64, Duration)> {
        let steps = self.0.iter_quantiles(2);
        steps.map(|step| (step.quantile_iterated_to(), Duration::from_micros(step.value_iterated_to()))).collect()
    }
}

impl Serialize for Distribution {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let mut all = serializer.serialize_struct("Distribution", 6)?;
        all.serialize_field("count", &self.count())?;
        for (name, share) in [("p50_us", 0.5), ("p99_us", 0.99), ("p999_us", 0.999)] {
            all.serialize_field(name, &micros(self.at(share)))?;
        }
        all.serialize_field("max_us", &micros(self.max()))?;
        let curve: Vec<(f64, u64)> = self.curve().into_iter().map(|(share, time)| (share, micros(time))).collect();
        all.serialize_field("curve_us", &curve)?;
        all.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(duration: Duration, micros: u64) {
        let off = duration.abs_diff(Duration::from_micros(micros));
        assert!(off.as_secs_f64() * 1e6 <= micros as f64 / 1000.0, "{duration:?} is not {micros} us");
    }

    fn up_to(longest: u64) -> Distribution {
        let mut distribution = Distribution::new().unwrap();
        (1..=longest).for_each(|micros| distribution.record(Duration::from_micros(micros)));
        distribution
    }

    #[test]
    fn quantiles_are_right_to_three_digits() {
        let distribution = up_to(10_000);
        assert_eq!(distribution.count(), 10_000);
        for (share, micros) in [(0.5, 5_000), (0.99, 9_900), (0.999, 9_990)] {
            near(distribution.at(share), micros);
        }
        near(distribution.max(), 10_000);
        let curve = distribution.curve();
        assert!(curve.len() > 10 && curve.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{curve:?}");
    }

    #[test]
    fn nothing_measured_is_nothing_and_too_long_is_the_longest() {
        let mut distribution = Distribution::new().unwrap();
        assert_eq!(
            (distribution.count(), distribution.at(0.99), distribution.max()),
            (0, Duration::ZERO, Duration::ZERO)
        );
        distribution.record(Duration::from_hours(1));
        assert!(distribution.max() >= Duration::from_secs(59));
    }

    #[test]
    fn loads_are_merged_as_if_they_were_one() {
        let outcome = |made, failed, connect| Outcome {
            started: made + failed,
            made,
            failed: [(Failure::Refused, failed)].into(),
            asked: 2 * made,
            answered: made,
            under_flood: (made > 2).then_some(UnderFlood { started: 4, made, asked: 2, answered: 1 }),
            connect,
            elapsed: Duration::from_secs(made),
            ..Outcome::new().unwrap()
        };
        let mut all = outcome(3, 1, up_to(100));
        all.merge(&outcome(2, 5, up_to(100))).unwrap();
        assert_eq!((all.started, all.made, all.failures(), all.elapsed), (11, 5, 6, Duration::from_secs(3)));
        assert_eq!((all.asked, all.answered), (10, 5));
        assert_eq!(all.under_flood, Some(UnderFlood { started: 4, made: 3, asked: 2, answered: 1 }));
        assert_eq!((all.connect.count(), all.connect.at(0.5)), (200, Duration::from_micros(50)));
        all.merge(&outcome(4, 0, up_to(1))).unwrap();
        assert_eq!(all.under_flood, Some(UnderFlood { started: 8, made: 7, asked: 4, answered: 2 }));
        let mut none = outcome(1, 0, up_to(1));
        none.merge(&outcome(2, 0, up_to(1))).unwrap();
        assert_eq!(none.under_flood, None);
    }

    #[test]
    fn figures_for_programs_have_their_units_in_their_names() {
        let json = serde_json::to_value(Outcome { connect: up_to(1000), ..Outcome::new().unwrap() }).unwrap();
        assert_eq!((&json["connect"]["p50_us"], &json["connect"]["count"]), (&500.into(), &1000.into()));
        assert_eq!((&json["elapsed_us"], &json["request"]["curve_us"]), (&0.into(), &serde_json::json!([])));
        assert!(json.get("under_flood").is_none(), "nobody floods: {json}");
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
