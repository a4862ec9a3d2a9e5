//! What is there when the guard starts.

use std::path::Path;

use anyhow::Context as _;
use tracing::{info, warn};

use super::NO_WAY_BACK;
use crate::actuate::{Inherited, Settings};
use crate::cli::Failure;
use crate::config::Policy;
use crate::observe::{Sample, Timeout, memory};
use crate::policy::{Host, Setting};

/// What an earlier guard left. A dry run goes without, where it cannot be read.
pub(super) fn inherited(writes: bool, root: &Path, state_dir: &Path) -> Result<Inherited, Failure> {
    let inherited = match Inherited::read(&Settings::new(root), state_dir) {
        Err(error) if !writes => {
            warn!("what an earlier guard changed is taken for what was there before: {error}");
            Inherited::default()
        }
        read => read.context(NO_WAY_BACK)?,
    };
    if inherited.earlier_boot {
        info!("there is a journal of an earlier boot: its settings went with it");
    }
    for (setting, original) in &inherited.taken_over {
        info!(original, "an earlier guard changed {}; a stop puts the original back", setting.sysctl());
    }
    for (setting, current) in &inherited.overwritten {
        info!(current, "{} was set by another program since an earlier guard changed it: it stays", setting.sysctl());
    }
    Ok(inherited)
}

/// The host as the operator left it: what an earlier guard changed is no value to hold bounds or calm against.
pub(crate) fn host(found: &Sample, inherited: &Inherited) -> Host {
    let mut host = Host {
        table: found.table,
        memory_total: found.memory.total,
        entry_bytes: found.entry_bytes,
        page_bytes: memory::page_bytes(),
        timeouts: found.timeouts.clone(),
    };
    for &(setting, original) in &inherited.taken_over {
        match setting {
            Setting::Max => host.table.max = original,
            Setting::Buckets => host.table.buckets = original,
            Setting::Timeout(timeout) => {
                host.timeouts.insert(timeout, original);
            }
        }
    }
    host
}

/// The timeouts that were found shorter than the guard itself may set them: they stay, and that is told.
pub(super) fn below_floors(policy: &Policy, host: &Host) -> Vec<String> {
    let below = host.timeouts.iter().filter(|(timeout, found)| **found < policy.timeouts.floor(**timeout));
    let line = |(timeout, found): (&Timeout, &u64)| {
        format!(
            "{} is {found} s as found, below timeouts.{}.floor ({} s): it is left so",
            timeout.sysctl(),
            timeout.name(),
            policy.timeouts.floor(*timeout)
        )
    };
    below.map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actuate::testing::FakeKernel;
    use crate::observe::Observer;
    use crate::policy::Limits;

    #[test]
    fn a_timeout_that_is_shorter_than_its_floor_is_told() {
        let kernel = FakeKernel::with_timeouts(65536, 65536, 10);
        kernel.set(Timeout::Udp.sysctl(), 3);
        let found = Observer::new(kernel.root(), None).sample().unwrap();
        let host = host(&found, &Inherited::default());
        let line = "nf_conntrack_udp_timeout is 3 s as found, below timeouts.udp.floor (15 s): it is left so";
        assert_eq!(below_floors(&Policy::default(), &host), [line]);
    }

    #[test]
    fn bounds_and_calm_are_held_against_what_was_there_before_any_guard() {
        let kernel = FakeKernel::with_timeouts(262_144, 65536, 10);
        let found = Observer::new(kernel.root(), None).sample().unwrap();
        let udp = Setting::Timeout(Timeout::Udp);
        let taken_over = vec![(Setting::Max, 65536), (Setting::Buckets, 16384), (udp, 180)];
        let host = host(&found, &Inherited { taken_over, ..Inherited::default() });
        assert_eq!((host.table.max, host.table.buckets, host.table.count), (65536, 16384, 10));
        assert_eq!((host.timeouts[&Timeout::Udp], host.timeouts[&Timeout::TcpTimeWait]), (180, 120));
        let limits = Limits::new(&Policy::default(), &host).unwrap();
        assert_eq!((limits.found_max, limits.timeouts[&Timeout::Udp].ceiling), (65536, 180));
    }
}
