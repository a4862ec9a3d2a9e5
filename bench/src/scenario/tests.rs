use super::*;
use crate::churn::{Connections, End, Pace};
use crate::load::{Point, Protocol, Rate, Traffic};
use crate::netns::{Family, Kind, Shape};

fn problems(text: &str) -> Vec<String> {
    let errors = Scenario::parse("s.toml", text).expect_err("a scenario with problems");
    errors.all().iter().map(ToString::to_string).collect()
}

fn connections(load: &Load) -> &Connections {
    match &load.traffic {
        Traffic::Tcp(connections) => connections,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_scenario_that_comes_with_the_program_is_valid_and_has_its_files_name() {
    for name in names() {
        let scenario = Scenario::find(name).unwrap();
        assert_eq!(scenario.name, name);
        assert!(!scenario.about.is_empty(), "{name}");
        let open: u64 = scenario.loads.iter().map(|load| load.traffic.most_open()).sum();
        // What a process may open where nothing was changed: 524,288 files for root in a Debian guest.
        assert!(open < 100_000, "{name} keeps {open} connections open");
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    assert_eq!(fs::read_dir(folder).unwrap().count(), names().count());
}

#[test]
fn every_scenario_of_the_documentation_is_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/benchmarks");
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let scenarios: Vec<_> =
        files.filter(|file| file.extension().is_some_and(|extension| extension == "toml")).collect();
    assert!(!scenarios.is_empty());
    for file in scenarios {
        let scenario = Scenario::find(file.to_str().unwrap()).unwrap();
        assert!(!scenario.about.is_empty(), "{}", file.display());
    }
}

#[test]
fn what_is_not_said_is_the_default() {
    let scenario = Scenario::parse("dir/quiet.toml", "duration = \"10s\"\n[[load]]\nkind = \"tcp\"\nrate = 5").unwrap();
    assert_eq!((&*scenario.name, scenario.seed, scenario.duration), ("quiet", 1, Duration::from_secs(10)));
    let load = &scenario.loads[0];
    assert_eq!((&*load.name, load.start, load.course.duration), ("tcp", Duration::ZERO, Duration::from_secs(10)));
    assert_eq!(load.course.sources, 4_096);
    assert_eq!(*connections(load), Connections { pace: Pace::Open(Rate::constant(5.0)), ..Connections::default() });
}

#[test]
fn every_key_is_taken() {
    let scenario = Scenario::parse(
        "s.toml",
        r#"
        name = "all"
        about = "everything"
        seed = 7
        duration = "1m"
        [[load]]
        name = "ramp"
        kind = "tcp"
        start = "10s"
        duration = "20s"
        sources = 9
        rate = { from = 1, to = 50.5 }
        end = "reset"
        hold = "2s"
        every = "500ms"
        most = 100
        [[load]]
        kind = "tcp"
        clients = 12
        end = "half-closed"
        [[load]]
        kind = "tcp"
        rate = { peak = 10, after = "1s", for = "2s" }
        [[load]]
        kind = "udp"
        rate = { points = [["0s", 1], ["5s", 2.5]] }
        answered = false
        [[load]]
        kind = "dns"
        rate = 5
        sockets = 7
        [[load]]
        kind = "syn"
        rate = 5
        [[load]]
        kind = "scan"
        rate = 5
        protocol = "udp"
        [[load]]
        kind = "wrk"
        clients = 8
        [topology]
        ip = "ipv6"
        nat = true
        "#,
    )
    .unwrap();
    assert_eq!(scenario.shape, Shape { ip: Family::Ipv6, kind: Kind::Gateway { nat: true } });
    assert_eq!((&*scenario.name, &*scenario.about, scenario.seed), ("all", "everything", 7));
    let [ramp, closed, burst, others @ ..] = &scenario.loads[..] else { panic!("{scenario:?}") };
    let times = (ramp.start, ramp.course.duration, ramp.course.sources);
    assert_eq!((&*ramp.name, times), ("ramp", (Duration::from_secs(10), Duration::from_secs(20), 9)));
    let rate = Rate::ramp(1.0, 50.5, Duration::from_secs(20));
    let (hold, every) = (Duration::from_secs(2), Some(Duration::from_millis(500)));
    assert_eq!(*connections(ramp), Connections { pace: Pace::Open(rate), end: End::Reset, hold, every, most: 100 });
    let Connections { pace, end, .. } = connections(closed);
    assert_eq!((pace, *end, connections(closed).most_open()), (&Pace::Clients(12), End::HalfClosed, 12));
    let rate = Rate::burst(0.0, 10.0, Duration::from_secs(1), Duration::from_secs(2));
    assert_eq!(connections(burst).pace, Pace::Open(rate));
    let wave = Rate::through(vec![Point { at: 0.0, rate: 1.0 }, Point { at: 5.0, rate: 2.5 }]).unwrap();
    let five = || Rate::constant(5.0);
    let expected = [
        Traffic::Udp { rate: wave, answered: false },
        Traffic::Dns { rate: five(), sockets: 7 },
        Traffic::Syn { rate: five(), answered: true },
        Traffic::Scan { rate: five(), protocol: Protocol::Udp },
        Traffic::Wrk { clients: 8 },
    ];
    assert_eq!(others.iter().map(|load| &load.traffic).collect::<Vec<_>>(), expected.iter().collect::<Vec<_>>());
    assert_eq!(scenario.loads.iter().map(|load| load.course.number).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn every_kind_of_topology_is_taken() {
    let kind = |topology: &str| {
        let text = format!("duration = \"1s\"\ntopology = {{ {topology} }}\n[[load]]\nkind = \"tcp\"\nrate = 5");
        Scenario::parse("s", &text).unwrap().shape.kind
    };
    assert_eq!(kind(""), Kind::Gateway { nat: false });
    assert_eq!(kind("kind = \"host\""), Kind::Host);
    assert_eq!(kind("kind = \"haproxy\""), Kind::Haproxy);
    assert_eq!(kind("kind = \"ipvs\""), Kind::Ipvs { conntrack: false });
    assert_eq!(kind("kind = \"ipvs\", conntrack = true"), Kind::Ipvs { conntrack: true });
}

#[test]
fn each_load_has_a_seed_of_its_own_made_from_the_scenarios() {
    let seeds = |seed: u64| {
        let load = "[[load]]\nkind = \"tcp\"\nrate = 5\n";
        let text = format!("seed = {seed}\nduration = \"10s\"\n{load}{load}");
        Scenario::parse("s", &text).unwrap().loads.iter().map(|load| load.course.seed).collect::<Vec<_>>()
    };
    assert_eq!(seeds(1), seeds(1));
    assert_ne!(seeds(1)[0], seeds(1)[1]);
    assert_ne!(seeds(1)[0], seeds(2)[0]);
}

#[test]
fn everything_that_is_wrong_is_told_at_once_with_its_place() {
    let text = r#"seed = -1
duration = "10"
colour = "red"
[[load]]
kind = "tcp"
rate = 0
Most = 5
[[load]]
kind = "smoke"
[[load]]
kind = "tcp"
rate = { base = 5, peak = 50001, for = "1s" }
clients = 5
"#;
    let expected = [
        "s.toml:1:8: seed: give an integer, 0 to 9223372036854775807; found -1",
        "s.toml:2:12: duration: give a time, 100ms to 1day, with its unit, such as \"30s\"; found \"10\"",
        "s.toml:3:1: colour: unknown key; known here: name, about, seed, duration, topology, table, load. Remove it",
        "s.toml:6:8: load[1].rate: give a number of new ones a second above 0 and up to 50000, or a table such as { base = \
         200, peak = 2000, after = \"20s\", for = \"10s\" }; found 0",
        "s.toml:7:1: load[1].Most: unknown key; did you mean `most`?",
        "s.toml:9:8: load[2].kind: give one of \"tcp\", \"udp\", \"dns\", \"syn\", \"scan\", \"wrk\"; found \"smoke\"",
        "s.toml:12:8: load[3].rate.after: is missing; give a time, 0s to 1day, with its unit, such as \"30s\"",
        "s.toml:12:27: load[3].rate.peak: give a number, 0 to 50000; found 50001",
        "s.toml:13:1: load[3].clients: does not go together with the other keys here; remove it",
    ];
    assert_eq!(problems(text), expected);
}

#[test]
fn what_is_missing_or_makes_no_sense_is_told() {
    assert_eq!(
        problems("name = \"x\""),
        [
            "s.toml:1:1: duration: is missing; give a time, 100ms to 1day, with its unit, such as \"30s\"",
            "s.toml:1:1: load: give 1 to 32 loads, each a table under its own [[load]]",
        ]
    );
    let of = |load: &str| problems(&format!("duration = \"10s\"\n[[load]]\n{load}"));
    assert!(of("")[0].starts_with("s.toml:2:1: load[1].kind: is missing; give one of"), "{:?}", of(""));
    assert!(of("kind = \"tcp\"")[0].contains("load[1].rate: is missing; give a number"));
    let late = of("kind = \"tcp\"\nrate = 1\nstart = \"10s\"");
    assert_eq!(
        late,
        [
            "s.toml:2:1: load[1].start: it would go on after the end of the scenario; start it earlier, or make the scenario \
             longer than 10s",
            "s.toml:2:1: load[1]: it would start nothing; give a higher rate or more time",
        ]
    );
    let long = of("kind = \"tcp\"\nrate = 1\nstart = \"5s\"\nduration = \"6s\"");
    assert!(long[0].contains("after the end of the scenario"), "{long:?}");
    let back = of("kind = \"tcp\"\nrate = { points = [[\"5s\", 1], [\"1s\", 2]] }");
    assert!(back[0].contains("load[1].rate.points: the times go back"), "{back:?}");
    let past = of("kind = \"tcp\"\nrate = { peak = 10, after = \"11s\", for = \"5s\" }");
    assert!(past[0].contains("it would start nothing"), "{past:?}");
    let much = problems("duration = \"1h\"\n[[load]]\nkind = \"tcp\"\nrate = 50000\n");
    assert_eq!(much, ["s.toml:2:1: load[1]: it would start 180000000; give a rate and a time with 50000000 at most"]);
    let foreign = of("kind = \"syn\"\nrate = 5\nhold = \"1s\"\nsockets = 5");
    assert_eq!(
        foreign,
        [
            "s.toml:5:1: load[1].hold: is for loads of kind \"tcp\", and this one is \"syn\"; remove it",
            "s.toml:6:1: load[1].sockets: is for loads of kind \"dns\", and this one is \"syn\"; remove it",
        ]
    );
    let talking = |more: &str| of(&format!("kind = \"tcp\"\nrate = 5\n{more}"));
    let short = "s.toml:5:9: load[1].every: connections are held for";
    assert_eq!(
        talking("every = \"1s\""),
        [format!("{short} 0s, too short for a further request; give a longer `hold`, or less here")]
    );
    // Nothing is held after the load's end.
    assert!(talking("every = \"10s\"\nhold = \"1h\"")[0].starts_with(&format!("{short} 10s, too short")));
    assert_eq!(
        talking("every = \"1s\"\nhold = \"2s\"\nend = \"half-closed\""),
        ["s.toml:5:9: load[1].every: a client that has sent its FIN asks nothing more; remove it, or let `end` be \
             another"]
    );
    assert!(talking("every = \"5ms\"")[0].contains("load[1].every: give a time, 100ms to 1day"));
    let shape = problems("duration = \"1s\"\ntopology = { nat = 1, vip = 2 }\n[[load]]\nkind = \"udp\"\nrate = 5");
    assert_eq!(
        shape,
        [
            "s.toml:2:20: topology.nat: give true or false; found 1",
            "s.toml:2:23: topology.vip: unknown key; known here: ip, kind, nat, conntrack. Remove it",
        ]
    );
    let shape =
        |topology: &str, load: &str| problems(&format!("duration = \"1s\"\n{topology}\n[[load]]\n{load}\nrate = 5"));
    assert_eq!(
        shape("topology = { kind = \"host\", nat = true }", "kind = \"udp\""),
        ["s.toml:2:29: topology.nat: is for topologies of kind \"gateway\", and this one is \"host\"; remove it"]
    );
    assert_eq!(
        shape("topology.kind = \"lvs\"", "kind = \"udp\""),
        ["s.toml:2:17: topology.kind: give one of \"gateway\", \"host\", \"ipvs\", \"haproxy\"; found \"lvs\""]
    );
    let silent = shape("topology.kind = \"host\"", "kind = \"syn\"\nanswered = false");
    assert!(silent[0].starts_with("s.toml:3:1: load[1]: SYNs that a host does not answer"), "{silent:?}");
    let through_haproxy = shape("topology.kind = \"haproxy\"", "kind = \"dns\"");
    assert!(through_haproxy[0].starts_with("s.toml:3:1: load[1]: haproxy balances TCP alone"), "{through_haproxy:?}");
    assert_eq!(
        of("kind = \"wrk\"\nrate = 5\nduration = \"1500ms\""),
        [
            "s.toml:2:1: load[1].duration: wrk runs for whole seconds; give a start and a duration that leave it such",
            "s.toml:2:1: load[1].clients: is missing; give an integer, 1 to 10000",
            "s.toml:4:1: load[1].rate: is for loads of kind \"tcp\", \"udp\", \"dns\", \"syn\", \"scan\", and this one is \
             \"wrk\"; remove it",
        ]
    );
    assert!(problems("duration = ")[0].starts_with("s.toml:1:12: not TOML: "), "{:?}", problems("duration = "));
}

#[test]
fn a_file_that_is_not_there_is_told_with_what_comes_with_the_program() {
    let error = Scenario::find("no-such-thing").unwrap_err().to_string();
    assert!(error.starts_with("no-such-thing: there is no such file") && error.contains("time-wait-storm"), "{error}");
}

#[test]
fn the_table_in_the_documentation_is_the_one_of_the_parser() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/bench.md");
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once("<!-- keys -->\n").unwrap();
    let (table, after) = rest.split_once("<!-- end of keys -->").unwrap();
    if std::env::var("GOLDEN").is_ok_and(|golden| golden == "write") {
        let text = format!("{before}<!-- keys -->\n{}<!-- end of keys -->{after}", reference());
        fs::write(&path, text).unwrap();
    } else {
        assert_eq!(table, reference(), "docs/bench.md is not up to date: run this test with GOLDEN=write");
    }
    for name in names() {
        assert!(text.contains(&format!("`{name}`")), "docs/bench.md does not name the scenario {name}");
    }
}
