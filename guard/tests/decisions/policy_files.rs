//! Policy files: what is taken, and every way in which one is refused.

use std::fs;
use std::path::Path;
use std::time::Duration;

use conntrack_guard::config::{
    Bounds, Flood, Hash, MemoryLimit, Mode, Policy, Relax, Restore, Stop, Table, Timeouts, Window, example, keys, load,
    parse,
};
use conntrack_guard::observe::Timeout;
use proptest::prelude::*;

fn errors(text: &str) -> Vec<String> {
    parse("p.toml", text).unwrap_err().to_string().lines().map(str::to_owned).collect()
}

fn error(text: &str) -> String {
    let all = errors(text);
    assert_eq!(all.len(), 1, "{all:?}");
    all[0].clone()
}

#[test]
fn an_empty_file_is_the_default_policy() {
    assert_eq!(parse("p.toml", ""), Ok(Policy::default()));
    assert_eq!(parse("p.toml", "version = 1\n[table]\n[hash]\n"), Ok(Policy::default()));
}

#[test]
fn every_key_is_taken() {
    let text = r#"
        version = 1
        mode = "off"
        [table]
        max = { floor = 131_072, ceiling = 0x40_0000 }
        memory-limit = "1.5GiB"
        high-water = 0.7
        horizon = "2m"
        [hash]
        buckets = { floor = 1024, ceiling = 2048 }
        max-stall = "1ms"
        resize-window = "22:30-04:00"
        [timeouts]
        shorten = false
        tcp-established.floor = "2h 10m"
        [timeouts.udp]
        floor = "20s"
        [relax]
        after = "1h"
        [flood]
        detect = false
        unreplied = 1
        [stop]
        restore = "keep"
    "#;
    let expected = Policy {
        mode: Mode::Off,
        table: Table {
            max: Bounds { floor: Some(131_072), ceiling: Some(4_194_304) },
            memory_limit: MemoryLimit::Bytes(3 << 29),
            high_water: 0.7,
            horizon: Duration::from_mins(2),
        },
        hash: Hash {
            buckets: Bounds { floor: Some(1024), ceiling: Some(2048) },
            max_stall: Duration::from_millis(1),
            resize_window: Some(Window { from: Duration::from_mins(22 * 60 + 30), to: Duration::from_hours(4) }),
        },
        timeouts: Timeouts { shorten: false, floors: [(Timeout::TcpEstablished, 7_800), (Timeout::Udp, 20)].into() },
        relax: Relax { after: Duration::from_hours(1) },
        flood: Flood { detect: false, unreplied: 1.0 },
        stop: Stop { restore: Restore::Keep },
    };
    assert_eq!(parse("p.toml", text), Ok(expected));
}

#[test]
fn sizes_are_taken_as_people_write_them() {
    for (text, limit) in [
        ("\"10%\"", MemoryLimit::Percent(10.0)),
        ("\"12.5 %\"", MemoryLimit::Percent(12.5)),
        ("\"64MiB\"", MemoryLimit::Bytes(64 << 20)),
        ("\"1 GiB\"", MemoryLimit::Bytes(1 << 30)),
        ("\"500MB\"", MemoryLimit::Bytes(500_000_000)),
        ("67108864", MemoryLimit::Bytes(64 << 20)),
    ] {
        let policy = parse("p.toml", &format!("table.memory-limit = {text}")).unwrap();
        assert_eq!(policy.table.memory_limit, limit, "{text}");
    }
}

#[test]
fn a_key_that_is_none_is_refused_with_the_likely_one() {
    assert_eq!(
        error("[table]\nhigh_water = 0.8\n"),
        "p.toml:2:1: table.high_water: unknown key; did you mean `high-water`?"
    );
    assert_eq!(error("horizon = \"10s\"\n"), "p.toml:1:1: horizon: unknown key here; `horizon` stands in [table]");
    assert_eq!(
        error("[harvest]\nmode = \"off\"\n"),
        "p.toml:1:2: harvest: unknown key; known at the top of the file: version, mode, table, hash, timeouts, relax, flood, \
         stop. Remove it"
    );
    assert_eq!(
        error("[reap]\nmode = \"off\"\n"),
        "p.toml:1:2: reap: this version removes no entries: those that are there go when their timeouts end. Remove [reap] \
         and all in it"
    );
    assert_eq!(
        error("[timeouts.tcp-timewait]\nfloor = \"30s\"\n"),
        "p.toml:1:11: timeouts.tcp-timewait: unknown key; did you mean `tcp-time-wait`?"
    );
}

#[test]
fn a_value_of_the_wrong_type_is_refused_with_the_right_one() {
    assert_eq!(error("mode = true"), "p.toml:1:8: mode: give \"enforce\" or \"advise\" or \"off\"; found true");
    assert_eq!(
        error("[table]\nmax = 262144"),
        "p.toml:2:7: table.max: give a table, such as { floor = 131072, ceiling = 4194304 }; found 262144"
    );
    assert_eq!(
        error("table.high-water = \"80%\""),
        "p.toml:1:20: table.high-water: give a number from 0.1 to 0.99, such as 0.8; found \"80%\""
    );
    assert_eq!(
        error("table.horizon = 10"),
        "p.toml:1:17: table.horizon: give a time from 1s to 10m, with its unit, such as \"10s\"; found 10"
    );
    assert_eq!(
        error("timeouts.udp = \"20s\""),
        "p.toml:1:16: timeouts.udp: give a table, such as { floor = \"15s\" }; found \"20s\""
    );
    assert_eq!(
        error("hash.resize-window = \"2-4\""),
        "p.toml:1:22: hash.resize-window: give two different times of day, UTC, such as \"02:00-04:00\"; found \"2-4\""
    );
    assert_eq!(error("flood.detect = \"yes\""), "p.toml:1:16: flood.detect: give true or false; found \"yes\"");
    assert_eq!(
        error("table.memory-limit = true"),
        "p.toml:1:22: table.memory-limit: give a share from \"0.1%\" to \"90%\" of the host's memory, or bytes from \
         \"1.0 MiB\" to \"1.0 PiB\"; found true"
    );
    assert_eq!(
        error("table = [1]"),
        "p.toml:1:9: table: give a table, such as [table] with its keys below it; found an array"
    );
}

#[test]
fn zero_is_no_bound() {
    assert_eq!(
        error("table.max.floor = 0"),
        "p.toml:1:19: table.max.floor: give an integer from 1 to 2147483647; found 0"
    );
    for text in
        ["table.max.ceiling = 0", "hash.buckets.floor = 0", "hash.buckets.ceiling = 0", "table.memory-limit = 0"]
    {
        assert!(error(text).contains("found 0"), "{text}");
    }
}

#[test]
fn values_out_of_range_are_refused() {
    for text in [
        "version = \"1\"",
        "mode = \"of\"",
        "hash.resize-window = \"02:00-02:00\"",
        "hash.resize-window = \"00:00-24:00\"",
        "hash.resize-window = \"24:00-02:00\"",
        "hash.resize-window = \"02:60-03:00\"",
        "hash.resize-window = \"22:00-24:01\"",
        "hash.resize-window = \"+2:00-04:00\"",
        "timeouts.udp.floor = \"0s\"",
        "timeouts.udp.floor = \"1500ms\"",
        "timeouts.udp.floor = \"25days\"",
        "timeouts.udp.floor = 30",
        "timeouts.shorten = 1",
        "relax.after = \"59s\"",
        "relax.after = \"8days\"",
        "flood.unreplied = 0.4",
        "flood.unreplied = 1.1",
        "stop.restore = \"later\"",
        "table.max.floor = -5",
        "table.max.ceiling = 2147483648",
        "table.max.ceiling = 99999999999999999999999999",
        "table.max.ceiling = 1.5",
        "hash.buckets.ceiling = 536870912",
        "table.memory-limit = \"0%\"",
        "table.memory-limit = \"91%\"",
        "table.memory-limit = \"NaN%\"",
        "table.memory-limit = \"-1%\"",
        "table.memory-limit = \"64\"",
        "table.memory-limit = \"64 parsecs\"",
        "table.memory-limit = \"999999999999999999EiB\"",
        "table.high-water = 0.05",
        "table.high-water = 1",
        "table.high-water = nan",
        "table.high-water = inf",
        "table.horizon = \"999ms\"",
        "table.horizon = \"601s\"",
        "table.horizon = \"\"",
        "table.horizon = \"99999999999999999999s\"",
        "hash.max-stall = \"11s\"",
        "hash.max-stall = \"-1ms\"",
    ] {
        assert!(error(text).contains("; found "), "{text}: {}", error(text));
    }
}

#[test]
fn a_floor_above_its_ceiling_is_refused() {
    assert_eq!(
        error("[table]\nmax = { floor = 200, ceiling = 100 }"),
        "p.toml:2:17: table.max.floor: 200 is above the ceiling 100; lower the floor or raise the ceiling"
    );
}

#[test]
fn a_window_may_end_with_the_day_or_go_past_it() {
    let window = |text: &str| parse("p.toml", &format!("hash.resize-window = \"{text}\"")).unwrap().hash.resize_window;
    let hour = Duration::from_hours;
    assert_eq!(window("22:00-24:00"), Some(Window { from: hour(22), to: hour(0) }));
    let over_midnight = window("23:30 - 01:00").unwrap();
    assert!(over_midnight.contains(hour(0)) && !over_midnight.contains(hour(23)));
}

#[test]
fn another_version_is_refused_before_its_keys_are_judged() {
    assert_eq!(
        error("version = 2\nfuture-key = 1"),
        "p.toml:1:11: version: this program reads version 1, the file says 2; use the program it was written for, or \
         write the policy anew as version 1"
    );
}

#[test]
fn all_errors_come_at_once_in_the_order_of_the_file() {
    let text =
        "mode = 3\n[hash]\nmax-stal = \"1ms\"\nbuckets = { floor = 5, ceiling = 4 }\n[table]\nhorizon = 1\nzzz = 1\n";
    let places: Vec<_> = errors(text).iter().map(|line| line.split(':').nth(1).unwrap().to_owned()).collect();
    assert_eq!(places, ["1", "3", "4", "6", "7"]);
}

#[test]
fn a_syntax_error_has_its_place() {
    let lines = errors("[table]\nhigh-water = 0.8\nhorizon = \n");
    assert!(lines[0].starts_with("p.toml:3:"), "{lines:?}");
    assert!(lines[0].contains("not TOML: "), "{lines:?}");
    assert!(error("mode = \"enforce\"\nmode = \"advise\"\n").starts_with("p.toml:2:1: not TOML: duplicate key"));
    assert!(errors("mode = enforce")[0].starts_with("p.toml:1:8: not TOML: "));
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let missing = Path::new("no-such-folder/policy.toml");
    let message = load(missing).unwrap_err().to_string();
    assert!(message.starts_with("no-such-folder/policy.toml: cannot be read: No such file"), "{message}");

    let folder = tempfile::tempdir().unwrap();
    assert!(load(folder.path()).unwrap_err().to_string().contains("cannot be read: "));
    let file = folder.path().join("policy.toml");
    fs::write(&file, "mode = \"advise\"\n").unwrap();
    assert_eq!(load(&file).unwrap().mode, Mode::Advise);
    fs::write(&file, b"mode = \"advise\"\n# \xff\n").unwrap();
    assert!(load(&file).unwrap_err().to_string().ends_with("policy.toml:2:3: not UTF-8 text; save the file as UTF-8"));
    fs::write(&file, "#".repeat(2 << 20)).unwrap();
    assert!(load(&file).unwrap_err().to_string().contains("longer than 1 MiB"));
}

fn bounds() -> impl Strategy<Value = Bounds> {
    let value = proptest::option::of(1_u64..=536_870_911);
    (value.clone(), value).prop_map(|(one, other)| match (one, other) {
        (Some(one), Some(other)) => Bounds { floor: Some(one.min(other)), ceiling: Some(one.max(other)) },
        (floor, ceiling) => Bounds { floor, ceiling },
    })
}

fn timeouts() -> impl Strategy<Value = Timeouts> {
    let floors = proptest::collection::vec((0..Timeout::ALL.len(), 1_u64..=2_073_600), 0..8);
    (any::<bool>(), floors).prop_map(|(shorten, given)| {
        let mut timeouts = Timeouts { shorten, floors: [].into() };
        for (index, floor) in given {
            timeouts.set_floor(Timeout::ALL[index], floor);
        }
        timeouts
    })
}

fn window() -> impl Strategy<Value = Option<Window>> {
    let minute = 0_u64..1_440;
    let window = (minute.clone(), minute).prop_filter("two times", |(from, to)| from != to);
    proptest::option::of(
        window.prop_map(|(from, to)| Window { from: Duration::from_mins(from), to: Duration::from_mins(to) }),
    )
}

prop_compose! {
    pub fn policy()(
        max in bounds(),
        buckets in bounds(),
        memory_limit in prop_oneof![
            (0.1_f64..=90.0).prop_map(MemoryLimit::Percent),
            (1_u64 << 20..=1 << 50).prop_map(MemoryLimit::Bytes),
            (1_u64..=1 << 30).prop_map(|mib| MemoryLimit::Bytes(mib << 20)),
        ],
        high_water in 0.1_f64..=0.99,
        horizon in 1_000_u64..=600_000,
        stall in 0_u64..=10_000,
        resize_window in window(),
        timeouts in timeouts(),
        after in 60_000_u64..=7 * 86_400_000,
        (detect, unreplied) in (any::<bool>(), 0.5_f64..=1.0),
        restore in proptest::sample::select(&[Restore::WhenSafe, Restore::Keep, Restore::Now][..]),
    ) -> Policy {
        Policy {
            mode: Mode::Enforce,
            table: Table { max, memory_limit, high_water, horizon: Duration::from_millis(horizon) },
            hash: Hash { buckets, max_stall: Duration::from_millis(stall), resize_window },
            timeouts,
            relax: Relax { after: Duration::from_millis(after) },
            flood: Flood { detect, unreplied },
            stop: Stop { restore },
        }
    }
}

proptest! {
    #[test]
    fn every_policy_comes_back_from_its_text(
        policy in policy(),
        mode in proptest::sample::select(&[Mode::Enforce, Mode::Advise, Mode::Off][..]),
    ) {
        let policy = Policy { mode, ..policy };
        let text = example(&policy);
        prop_assert_eq!(parse("p.toml", &text), Ok(policy), "{}", text);
    }

    #[test]
    fn garbage_is_refused_and_never_panics(text in "\\PC*") {
        if let Err(errors) = parse("p.toml", &text) {
            prop_assert!(!errors.all().is_empty());
        }
    }

    /// Any TOML-like text around the real keys: more than garbage reaches the code behind the syntax.
    #[test]
    fn any_value_of_any_key_is_taken_or_refused_with_its_place(
        key in proptest::sample::select(keys().iter().collect::<Vec<_>>()),
        depth in 0_usize..3,
        value in "(-?[0-9]{1,30}(\\.[0-9]{1,30})?|\"[^\"\\\\\\p{C}]{0,60}\"|true|[0-9]{4}-01-01|\\[1, 2\\]|\\{ floor = -1 \\}|nan|-inf|0x[0-9a-f]{1,20})",
    ) {
        let parts: Vec<_> = key.name.split('.').collect();
        let path = parts[..parts.len().saturating_sub(depth).max(1)].join(".");
        if let Err(errors) = parse("p.toml", &format!("# a policy\n{path} = {value}\n")) {
            for problem in errors.all() {
                prop_assert_eq!(problem.position.map(|position| position.line), Some(2), "{}", problem);
                prop_assert!(!problem.to_string().contains('\n'), "{}", problem);
            }
        }
    }
}
