//! What good clients do while others flood, counted by itself.

use std::fs;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use bench::load::UnderFlood;
use bench::scenario::{Outcome, Progress, Scenario};

use super::{in_gateway, near, run};

/// The flood is from 2 s to 4 s.
const FLOOD: &str = r#"
    duration = "6s"
    [[load]]
    kind = "syn"
    rate = 100
    start = "2s"
    duration = "2s"
    [[load]]
    name = "new"
    kind = "tcp"
    rate = 50
    [[load]]
    name = "established"
    kind = "tcp"
    rate = { peak = 50, after = "0s", for = "500ms" }
    hold = "1h"
    every = "500ms"
"#;

fn under_flood(outcome: &Outcome, name: &str) -> Option<UnderFlood> {
    outcome.loads.iter().find(|load| load.name == name).unwrap().outcome.under_flood
}

#[test]
fn what_starts_or_is_due_under_a_flood_is_counted_by_itself() {
    // Of the one that starts later the last second of the flood is its first; of the closed loop, 0.1 s each, twenty start.
    let text = format!(
        "{FLOOD}[[load]]\nname = \"late\"\nkind = \"tcp\"\nrate = 50\nstart = \"3s\"\n\
         [[load]]\nname = \"closed\"\nkind = \"tcp\"\nclients = 1\nhold = \"100ms\"\nsources = 1\n\
         [[load]]\nname = \"afterwards\"\nkind = \"tcp\"\nrate = 50\nstart = \"4s\"\n\
         [[load]]\nname = \"questions\"\nkind = \"dns\"\nrate = 50\n"
    );
    run(&text, |_, outcome, _| {
        assert_eq!(outcome.all.failures(), 0, "{:?}", outcome.all.failed);
        let of = |name| under_flood(outcome, name).unwrap();
        let (new, late, closed) = (of("new"), of("late"), of("closed"));
        near(new.started, 100.0);
        near(late.started, 50.0);
        assert!((8..=20).contains(&closed.started), "{closed:?}");
        for one in [new, late, closed] {
            assert_eq!(one, UnderFlood { started: one.started, made: one.started, asked: 0, answered: 0 });
        }
        let all = outcome.loads.iter().find(|load| load.name == "established").unwrap().outcome.made;
        let established = of("established");
        assert_eq!((established.started, established.asked), (0, established.answered));
        // 2 s are four for each; one that is due at the border may fall out or in.
        assert!((3 * all..=5 * all).contains(&established.asked), "{established:?} of {all}");
        assert_eq!(of("afterwards"), UnderFlood::default());
        for other in ["syn", "questions"] {
            assert_eq!(under_flood(outcome, other), None, "{other}");
        }
        let all = outcome.all.under_flood.unwrap();
        assert_eq!(all.started, new.started + late.started + closed.started);
        assert_eq!((all.made, all.answered), (all.started, established.answered));
    });
}

#[test]
fn what_fails_under_a_flood_is_not_lost_among_what_went_well_before() {
    let scenario = Scenario::parse("test", FLOOD).unwrap();
    in_gateway(|| {
        let topology = scenario.topology().unwrap();
        let progress = Progress::new(&scenario);
        let outcome = thread::scope(|scope| {
            let running = scope.spawn(|| scenario.run(&topology, &progress, &AtomicBool::new(false)).unwrap());
            // What stands asks and is cut off within 0.5 s, before the flood.
            thread::sleep(Duration::from_secs(1));
            fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
            running.join().unwrap()
        });
        let [_, new, established] = &outcome.loads[..] else { panic!("{outcome:?}") };
        assert!(new.outcome.made > 0 && established.outcome.answered > 0, "{outcome:?}");
        let counts = under_flood(&outcome, "new").unwrap();
        near(counts.started, 100.0);
        assert_eq!(counts.made, 0);
        assert_eq!(under_flood(&outcome, "established"), Some(UnderFlood::default()));
    });
}

#[test]
fn where_nobody_floods_nothing_is_counted_under_a_flood() {
    run("duration = \"1s\"\n[[load]]\nkind = \"tcp\"\nrate = 50\n", |_, outcome, _| {
        assert!(outcome.all.made > 0, "{outcome:?}");
        assert_eq!((outcome.all.under_flood, under_flood(outcome, "tcp")), (None, None));
    });
}
