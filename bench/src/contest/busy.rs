//! What the whole machine was busy for: clients, gateway and servers, and whatever runs beside.

use std::fs;

use anyhow::{Context, Result};
use nix::unistd::{SysconfVar, sysconf};

const STAT: &str = "/proc/stat";
/// Fields of the first line, from 1 behind its name: user, nice, system, idle, iowait, irq, softirq.
const BUSY: [usize; 5] = [0, 1, 2, 5, 6];

/// Milliseconds of all CPUs together since the boot, as the kernel's ticks sampled them.
pub(super) fn milliseconds() -> Result<u64> {
    let ticks = sysconf(SysconfVar::CLK_TCK)?.and_then(|ticks| u64::try_from(ticks).ok()).unwrap_or(100);
    let text = fs::read_to_string(STAT).context(STAT)?;
    Ok(parse(&text).context("/proc/stat: no line of all CPUs")? * 1000 / ticks.max(1))
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
}
