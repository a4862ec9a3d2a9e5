use super::*;
use crate::model::{ChainStats, Skew};
use crate::policy::Setting;
use crate::report::tests::{measured, status as sample};
use crate::report::{BackEnd, PausedNow, SignalNow};

#[test]
fn a_guard_on_proc_readings() {
    assert_eq!(StatusScreen(&sample()).to_string(), include_str!("../golden/proc.txt"));
}

#[test]
fn a_guard_with_programs_fits_on_one_screen() {
    let text = StatusScreen(&measured()).to_string();
    assert_eq!(text, include_str!("../golden/measured.txt"));
    let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
    // Something in every part, which no real host has.
    assert!(text.lines().count() <= 30 && widest <= 100, "{} lines of {widest}", text.lines().count());
    assert!(StatusScreen(&sample()).to_string().lines().count() <= 20);
}

#[test]
fn trouble_and_what_is_off_or_wrong_is_told() {
    let mut status = measured();
    status.trouble = Some("cannot read the table: /proc/meminfo: gone".into());
    let off = SignalNow {
        signal: "clashes".into(),
        back_end: None,
        why: vec!["fentry/fexit: refused\na long log".into(), "kprobe: no such function".into()],
    };
    *status.signals.last_mut().unwrap() = off;
    status.signals[2].back_end = Some("kprobe".into());
    status.counted.as_mut().unwrap().missed = Some(12);
    status.chains.as_mut().unwrap().skew = Some(Skew::LongChains);
    let text = StatusScreen(&status).to_string();
    for told in [
        "TROUBLE: cannot read the table: /proc/meminfo: gone\n",
        "SKEWED CHAINS: some are far longer than chance makes them\n",
        "destroys by kprobe",
        "          off: clashes: fentry/fexit: refused; kprobe: no such function\n",
        "FLOOD: 93 % of what comes on top of calm is unanswered: 60,000 entries, 1,234 sources seen\n",
        "readings of the last minute left out: 1 late; ~ is estimated\n",
        "12 program runs missed",
    ] {
        assert!(text.contains(told), "{told:?} is missing in\n{text}");
    }
    status.chains = None;
    status.counted.as_mut().unwrap().missed = None;
    let text = StatusScreen(&status).to_string();
    assert!(text.contains("missed program runs are not counted by this kernel: the counts may be too low"), "{text}");
    assert!(StatusScreen(&status).to_string().contains("no insert measured in 10 s (one in 64)"));
}

#[test]
fn a_figure_is_marked_when_it_is_estimated_and_only_then() {
    let mut status = sample();
    status.back_end = BackEnd { name: "fentry/fexit".into(), measured: true, reason: None };
    status.chains = Some(ChainStats { one_in: 1, ..measured().chains.unwrap() });
    status.estimated = vec!["drops.table_full".into()];
    let text = StatusScreen(&status).to_string();
    assert!(text.contains("  ~0  flows refused") && text.contains("mean 8.81 ") && text.contains(" 812/s"), "{text}");
}

#[test]
fn a_table_without_a_guard() {
    let text = unguarded(&TableReading { max: 65_536, buckets: 16_384, count: 60_000 });
    assert_eq!(text, include_str!("../golden/unguarded.txt"));
    let text = unguarded(&TableReading { max: 0, buckets: 16_384, count: 60_000 });
    assert!(text.contains("no limit") && !text.contains("fill"), "{text}");
}

#[test]
fn a_guard_that_is_off_stands_nowhere() {
    let mut status = sample();
    status.mode = "off".into();
    assert!(StatusScreen(&status).to_string().starts_with("conntrack-guard 1.2.3  off  up 1.1 min  process 4711\n"));
}

#[test]
fn a_pause_is_told_before_the_figures() {
    let mut status = sample();
    let until = "until 2026-11-20T14:05:00Z by alice".to_owned();
    status.paused = vec![PausedNow { settings: vec![Setting::Max, Setting::Buckets], left_ms: 3_540_000, until }];
    let text = StatusScreen(&status).to_string();
    let line = text.lines().nth(1).unwrap();
    assert_eq!(line, "PAUSED for 59 min more, until 2026-11-20T14:05:00Z by alice: max, buckets");
    status.paused[0].settings = Setting::all().collect();
    assert!(StatusScreen(&status).to_string().contains(" by alice: every setting\n"));
}

#[test]
fn a_policy_that_is_not_in_force_is_told_with_every_error() {
    let mut status = sample();
    status.policy.refused = vec!["p.toml:3:1: x: unknown key".into(), "p.toml:4:1: y: unknown key".into()];
    let text = StatusScreen(&status).to_string();
    assert!(text.contains("\nPOLICY NOT TAKEN: the one of before") && text.contains("  p.toml:4:1: y: unknown key\n"));
    status.ready = false;
    let text = StatusScreen(&status).to_string();
    assert!(text.contains("\nNOT READY: the policy is invalid") && text.contains("  p.toml:3:1: x: unknown key\n"));
}

#[test]
fn what_is_changed_names_its_rule_or_that_it_was_another() {
    let mut status = measured();
    status.assessment.changed[0].rule = None;
    let text = StatusScreen(&status).to_string();
    let line = "Changed   nf_conntrack_tcp_timeout_time_wait  120  ->  60  not by this guard, not below 30 s\n";
    assert!(text.contains(line), "{text}");
    status.assessment.changed = vec![status.assessment.changed[0].clone(); 9];
    let text = StatusScreen(&status).to_string();
    assert!(text.matches("not by this guard").count() == 6 && text.contains("          and 3 more\n"), "{text}");
    status.assessment.changed.clear();
    assert!(!StatusScreen(&status).to_string().contains("Changed"));
}
