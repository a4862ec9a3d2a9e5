//! What changes seldom and takes many files to read: in calm, and in a hurry, it is not read for each sample.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::{Error, Sample, Timeouts, timeouts};

/// What another program changed is seen after this at the latest.
const OLDEST: Duration = Duration::from_secs(10);

/// The timeouts and whether flows are offloaded, as last read.
#[derive(Debug, Default)]
pub(super) struct Seldom {
    last: Option<Reading>,
    may_be_old: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct Reading {
    at: Duration,
    timeouts: Timeouts,
    flowtables: bool,
}

impl Seldom {
    /// Whether the samples that follow may be completed by a reading that is not older than 10 s.
    pub(super) fn may_be_old(&mut self, may_be_old: bool) {
        self.may_be_old = may_be_old;
    }

    /// Completes a sample that is taken at `sample.at`.
    pub(super) fn complete(&mut self, root: &Path, sample: &mut Sample) -> Result<(), Error> {
        let young = |last: &Reading| sample.at.checked_sub(last.at).is_some_and(|age| age < OLDEST);
        let reading = match self.last.take() {
            Some(last) if self.may_be_old && young(&last) => last,
            _ => Reading::new(root, sample.at)?,
        };
        self.last.insert(reading).enter(sample);
        Ok(())
    }

    /// Reads again what the sample has of an earlier reading; whether anything was another by then.
    pub(super) fn refresh(&mut self, root: &Path, sample: &mut Sample) -> Result<bool, Error> {
        let Some(last) = self.last.take_if(|last| last.at < sample.at) else { return Ok(false) };
        let now = self.last.insert(Reading::new(root, sample.at)?);
        now.enter(sample);
        Ok(*now != Reading { at: now.at, ..last })
    }
}

impl Reading {
    fn new(root: &Path, at: Duration) -> Result<Self, Error> {
        Ok(Self { at, timeouts: timeouts::read(root)?, flowtables: flowtables(root) })
    }

    fn enter(&self, sample: &mut Sample) {
        sample.timeouts.clone_from(&self.timeouts);
        sample.flowtables = self.flowtables;
    }
}

/// Whether nf_flow_table is loaded and somebody uses it: third column of /proc/modules (`m_show` in kernel/module/procfs.c).
fn flowtables(root: &Path) -> bool {
    let modules = fs::read_to_string(root.join("proc/modules")).unwrap_or_default();
    let mut lines = modules.lines().map(|line| line.split(' '));
    lines.any(|mut cells| cells.next() == Some("nf_flow_table") && cells.nth(1).is_some_and(|users| users != "0"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actuate::testing::FakeKernel;
    use crate::observe::Timeout;

    fn sample(second: u64) -> Sample {
        Sample { at: Duration::from_secs(second), ..Sample::default() }
    }

    fn udp(seldom: &mut Seldom, kernel: &FakeKernel, second: u64) -> u64 {
        let mut sample = sample(second);
        seldom.complete(kernel.root(), &mut sample).unwrap();
        sample.timeouts[&Timeout::Udp]
    }

    #[test]
    fn a_change_is_seen_within_ten_seconds_and_at_once_where_that_is_wanted() {
        let kernel = FakeKernel::with_timeouts(65_536, 16_384, 10);
        let mut seldom = Seldom::default();
        assert_eq!(udp(&mut seldom, &kernel, 100), 30);
        kernel.set(Timeout::Udp.sysctl(), 20);
        assert_eq!(udp(&mut seldom, &kernel, 101), 20, "it may not be old");
        seldom.may_be_old(true);
        kernel.set(Timeout::Udp.sysctl(), 10);
        assert_eq!((udp(&mut seldom, &kernel, 102), udp(&mut seldom, &kernel, 110)), (20, 20));
        assert_eq!(udp(&mut seldom, &kernel, 111), 10);
        kernel.set(Timeout::Udp.sysctl(), 5);
        seldom.may_be_old(false);
        assert_eq!(udp(&mut seldom, &kernel, 112), 5);
        seldom.may_be_old(true);
        kernel.set(Timeout::Udp.sysctl(), 4);
        assert_eq!(udp(&mut seldom, &kernel, 90), 4, "a clock that went back holds nothing up");
    }

    #[test]
    fn a_refresh_reads_again_what_is_old_and_says_whether_it_is_another() {
        let kernel = FakeKernel::with_timeouts(65_536, 16_384, 10);
        let mut seldom = Seldom::default();
        seldom.may_be_old(true);
        udp(&mut seldom, &kernel, 100);
        let mut now = sample(101);
        seldom.complete(kernel.root(), &mut now).unwrap();
        assert!(!seldom.refresh(kernel.root(), &mut now).unwrap(), "nothing is another");
        kernel.set(Timeout::Udp.sysctl(), 20);
        assert!(!seldom.refresh(kernel.root(), &mut now).unwrap(), "it is of this moment already");
        let mut next = sample(102);
        seldom.complete(kernel.root(), &mut next).unwrap();
        assert!(seldom.refresh(kernel.root(), &mut next).unwrap());
        assert_eq!((now.timeouts[&Timeout::Udp], next.timeouts[&Timeout::Udp]), (30, 20));
        fs::write(kernel.path("proc/sys/net/netfilter").join(Timeout::Udp.sysctl()), "soon").unwrap();
        let mut last = sample(103);
        seldom.complete(kernel.root(), &mut last).unwrap();
        assert!(seldom.refresh(kernel.root(), &mut last).unwrap_err().to_string().contains("udp_timeout"));
        assert!(seldom.complete(kernel.root(), &mut last).is_err(), "what could not be read is read again");
    }

    #[test]
    fn a_flowtable_counts_when_somebody_uses_it() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("proc")).unwrap();
        let with = |text: &str| {
            fs::write(root.path().join("proc/modules"), text).unwrap();
            flowtables(root.path())
        };
        let line =
            |users: &str| format!("nft_ct 1 0 - Live 0x0\nnf_flow_table 49152 {users} nft_flow_offload, Live 0x0\n");
        assert!(with(&line("2")) && !with(&line("0")) && !with("nft_ct 1 0 - Live 0x0\n") && !with("nf_flow_table\n"));
    }
}
