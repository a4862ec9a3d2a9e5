//! What the whole machine was busy for: clients, gateway and servers, and whatever runs beside.

use std::fs;

use anyhow::{Context, Result};
use nix::unistd::{SysconfVar, sysconf};

const STAT: &str = "/proc/stat";
const SCHEDSTAT: &str = "/proc/schedstat";
/// Field of a CPU's line there, from 0 behind its name: the time that tasks ran, nanoseconds
/// (Documentation/scheduler/sched-stats.rst).
const RAN: usize = 6;
/// Fields of the first line, from 0 behind its name: user, nice, system, idle, iowait, irq, softirq. Neither idle nor iowait.
const BUSY: [usize; 5] = [0, 1, 2, 5, 6];

/// Milliseconds of all CPUs together since the boot, as the kernel's ticks sampled them.
pub(super) fn milliseconds() -> Result<u64> {
    let ticks = sysconf(SysconfVar::CLK_TCK)?.and_then(|ticks| u64::try_from(ticks).ok()).unwrap_or(100);
    let text = fs::read_to_string(STAT).context(STAT)?;
    Ok(parse(&text).context("/proc/stat: no line of all CPUs")? * 1000 / ticks.max(1))
}

/// Nanoseconds that tasks ran on all CPUs together, as the scheduler adds them up at each switch, interrupts in them
/// included; what interrupts do while a CPU idles is not in it. `None` where the kernel has no CONFIG_SCHEDSTATS.
pub(super) fn task_nanoseconds() -> Option<u64> {
    ran(&fs::read_to_string(SCHEDSTAT).ok()?)
}

fn ran(text: &str) -> Option<u64> {
    let lines = text.lines().filter(|line| line.starts_with("cpu"));
    let sums = lines.map(|line| line.split_whitespace().skip(1).nth(RAN)?.parse::<u64>().ok());
    sums.reduce(|one, other| Some(one? + other?)).flatten()
}

fn parse(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let fields: Vec<u64> = line.split_whitespace().map_while(|field| field.parse().ok()).collect();
    BUSY.iter().map(|&field| fields.get(field).copied()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idling_and_waiting_for_disks_is_not_busy() {
        let text = "cpu  1 2 4 1000 1000 8 16 0 0 0\ncpu0 9 9 9 9 9 9 9 0 0 0\n";
        assert_eq!(parse(text), Some(31));
        assert_eq!(parse("cpu  1 2 4\n"), None);
        assert_eq!(parse("intr 1\n"), None);
    }

    #[test]
    fn the_time_that_tasks_ran_is_summed_over_cpus() {
        let text = "version 15\ntimestamp 4294937296\ncpu0 0 0 9 9 9 9 1000 77 5\ndomain0 3 1 2 3 4 5 6 7 8\n\
                    cpu1 0 0 9 9 9 9 234 77 5\n";
        assert_eq!(ran(text), Some(1_234));
        assert_eq!(ran("version 15\ncpu0 0 0\n"), None);
        assert_eq!(ran(""), None);
    }
}
