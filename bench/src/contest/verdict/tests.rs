use std::collections::BTreeMap;

use super::*;

type Column = (Alternative, BTreeMap<String, Spread>, u64);

fn spread(value: u64) -> Spread {
    Spread { median: value, lowest: value, highest: value }
}

fn column(alternative: Alternative, dropped: u64, p99: u64, memory: u64, good: u64) -> Column {
    let figures = [("dropped", dropped), ("connect_p99_us", p99), ("memory_mean_bytes", memory)];
    (alternative, figures.into_iter().map(|(key, value)| (key.to_owned(), spread(value))).collect(), good)
}

fn served(load: &str, got: u64) -> Served<'_> {
    Served { load, wanted: spread(100), got: spread(got) }
}

fn facts((alternative, figures, good): &Column, stall_us: u64) -> Facts<'_> {
    Facts {
        alternative: *alternative,
        figures,
        rounds: (3, 3),
        started: Some(spread(100)),
        loads: vec![served("good", *good)],
        good: vec![served("good", *good)],
        established: vec![served("held", *good)],
        flood: Some(Ok(())),
        stall_us: Ok(stall_us),
    }
}

fn judge(columns: &[Column], stall_us: u64) -> Vec<Verdict> {
    all(&columns.iter().map(|column| facts(column, stall_us)).collect::<Vec<_>>())
}

fn answers(verdicts: &[Verdict], key: &str) -> Vec<Answer> {
    verdicts.iter().filter(|one| one.key == key).map(|one| one.answer).collect()
}

const KEYS: [&str; 7] =
    ["guard-drops-nothing", "drops-more-than-guard", "connect-p99", "good-clients", "established", "memory", "stall"];

#[test]
fn each_promise_is_kept_up_to_its_limit_and_broken_beyond() {
    let ample = column(Alternative::Ample, 0, 1_000, 9_000, 100);
    let rivals = [column(Alternative::Stock, 1, 9, 9, 9), column(Alternative::StaticCeiling, 0, 9, 2_000, 9)];
    let with = |guard: Column, stall| {
        let columns = [[ample.clone(), guard].as_slice(), &rivals].concat();
        judge(&columns, stall)
    };
    let kept = with(column(Alternative::Guard, 0, 1_100, 1_000, 95), 20_000);
    for key in ["guard-drops-nothing", "connect-p99", "good-clients", "established", "memory", "stall"] {
        assert_eq!(answers(&kept, key), [Answer::Yes], "{key}");
    }
    // static-ceiling drops no more than the guard.
    assert_eq!(answers(&kept, "drops-more-than-guard"), [Answer::Yes, Answer::No]);
    let broken = with(column(Alternative::Guard, 1, 1_101, 1_001, 94), 50_001);
    assert!(broken.iter().all(|one| one.answer == Answer::No), "{broken:?}");
    // It may have waited for nothing but RCU.
    let between = with(column(Alternative::Guard, 0, 1_100, 1_000, 95), 50_000);
    assert_eq!(answers(&between, "stall"), [Answer::NotMeasured]);
    assert!(kept.iter().chain(&broken).all(|one| one.figure.is_some() && one.against.is_some()));
}

#[test]
fn what_has_no_figures_is_not_judged_and_says_why() {
    let nothing = judge(&[column(Alternative::Stock, 1, 9, 9, 9)], 0);
    assert!(nothing.iter().all(|one| one.answer == Answer::NotMeasured && one.why.is_some()), "{nothing:?}");
    assert_eq!(KEYS.map(|key| answers(&nothing, key).len()), [1; 7]);

    let (guard, full) = (column(Alternative::Guard, 0, 9, 9, 9), column(Alternative::Ample, 3, 9, 9, 9));
    let full = judge(&[full, guard.clone()], 0);
    for key in ["connect-p99", "good-clients", "established"] {
        assert_eq!(answers(&full, key), [Answer::NotMeasured], "a yardstick that was full is none");
    }
}

/// Of ample, static-ceiling and guard, all of whose promises are kept, once `change` was done to the facts.
fn changed(change: impl FnOnce(&mut [Facts<'_>])) -> Vec<Verdict> {
    let columns = [
        column(Alternative::Ample, 0, 1_000, 9_000, 100),
        column(Alternative::StaticCeiling, 1, 1_000, 2_000, 100),
        column(Alternative::Guard, 0, 1_000, 1_000, 100),
    ];
    let mut facts: Vec<_> = columns.iter().map(|column| facts(column, 0)).collect();
    assert!(all(&facts).iter().all(|one| one.answer == Answer::Yes));
    change(&mut facts);
    all(&facts)
}

fn open(verdicts: &[Verdict], why: &str) -> Vec<&'static str> {
    let open = verdicts.iter().filter(|one| one.answer == Answer::NotMeasured);
    open.inspect(|one| assert_eq!(one.why.as_deref(), Some(why))).map(|one| one.key).collect()
}

#[test]
fn a_column_that_lacks_rounds_or_a_load_is_not_judged() {
    let died = changed(|facts| facts[2].rounds = (1, 3));
    assert_eq!(open(&died, "guard ran in 1 of 3 rounds"), KEYS);
    let died = changed(|facts| facts[0].rounds = (2, 3));
    assert_eq!(open(&died, "ample ran in 2 of 3 rounds"), ["connect-p99", "good-clients", "established"]);
    let died = changed(|facts| facts[1].rounds = (2, 3));
    assert_eq!(open(&died, "static-ceiling ran in 2 of 3 rounds"), ["drops-more-than-guard", "memory"]);
    let idle = changed(|facts| facts[2].started = Some(spread(0)));
    assert_eq!(open(&idle, "the load beside guard started nothing"), KEYS);
}

#[test]
fn a_flood_is_judged_where_it_was_one() {
    let quiet = changed(|facts| facts.iter_mut().for_each(|one| one.flood = None));
    assert_eq!(open(&quiet, NO_FLOOD), ["good-clients", "established"]);
    for column in [0, 2] {
        let unsent = changed(|facts| facts[column].flood = Some(Err("no flood".to_owned())));
        assert_eq!(open(&unsent, "no flood"), ["good-clients", "established"]);
    }
}

#[test]
fn a_yes_needs_as_many_connections_as_the_others_and_a_no_does_not() {
    let with = |p99: u64, memory: u64, made: u64| {
        let columns = [
            column(Alternative::Ample, 0, 1_000, 9_000, 1_000),
            column(Alternative::StaticCeiling, 1, 1_000, 2_000, 1_000),
            column(Alternative::Guard, 0, p99, memory, made),
        ];
        let verdicts = judge(&columns, 0);
        ["guard-drops-nothing", "drops-more-than-guard", "connect-p99", "memory"].map(|key| {
            let one = verdicts.iter().find(|one| one.key == key).unwrap();
            (one.answer, one.why.clone())
        })
    };
    assert!(with(1_000, 1_000, 950).iter().all(|(answer, _)| *answer == Answer::Yes));
    for (answer, why) in with(1_000, 1_000, 949) {
        assert_eq!((answer, why.as_deref()), (Answer::NotMeasured, Some("good made 949 of 1,000 beside guard")));
    }
    let answers = with(1_101, 1_001, 949).map(|(answer, _)| answer);
    assert_eq!(answers, [Answer::NotMeasured, Answer::NotMeasured, Answer::No, Answer::No]);
}

#[test]
fn each_load_is_held_against_itself_and_without_a_yardstick_against_what_it_started() {
    let lost = |good: u64| {
        // The other load makes up for it in their sum.
        changed(|facts| facts[2].loads = vec![served("good", good), served("more", 100_000)])
    };
    assert_eq!(answers(&lost(95), "guard-drops-nothing"), [Answer::Yes]);
    let keys = ["guard-drops-nothing", "drops-more-than-guard", "connect-p99", "memory"];
    assert_eq!(open(&lost(94), "good made 94 of 100 beside guard"), keys);

    let alone = |made: u64| all(&[facts(&column(Alternative::Guard, 0, 9, 9, made), 0)]).swap_remove(0).answer;
    assert_eq!((alone(95), alone(94)), (Answer::Yes, Answer::NotMeasured));
    // What the yardstick makes is possible, whatever static-ceiling does.
    let ceiling_lost_too = changed(|facts| {
        facts[1].loads = vec![served("good", 94)];
        facts[2].loads = vec![served("good", 94)];
    });
    assert_eq!(open(&ceiling_lost_too, "good made 94 of 100 beside guard"), keys);
    let none = changed(|facts| facts.iter_mut().for_each(|one| one.loads = Vec::new()));
    assert_eq!(open(&none, "no load but floods made anything beside guard"), keys);
}

#[test]
fn a_yardstick_that_serves_little_under_the_flood_is_none() {
    let served_by = |ample: u64, guard: u64| {
        let verdicts = changed(|facts| {
            facts[0].good = vec![served("good", ample)];
            facts[2].good = vec![served("good", guard)];
        });
        let one = verdicts.into_iter().find(|one| one.key == "good-clients").unwrap();
        (one.answer, one.why)
    };
    assert_eq!(served_by(95, 95), (Answer::Yes, None));
    let why = |got: u64| Some(format!("the yardstick itself served good {got} of 100"));
    assert_eq!(served_by(94, 100), (Answer::NotMeasured, why(94)));
    assert_eq!(served_by(0, 0), (Answer::NotMeasured, why(0)));
    assert_eq!(served_by(50, 10), (Answer::No, None));
}

#[test]
fn a_stall_that_nobody_saw_is_not_judged() {
    let unseen = changed(|facts| facts[2].stall_us = Err("nothing saw it".to_owned()));
    assert_eq!(open(&unseen, "nothing saw it"), ["stall"]);
}

#[test]
fn new_clients_and_those_that_ask_again_are_judged_apart() {
    let judge = |answered: &[(usize, u64)]| {
        let verdicts = changed(|facts| {
            for column in [0, 2] {
                let of = answered.iter().filter(|(of, _)| *of == column);
                facts[column].established = of.map(|(_, answered)| served("held", *answered)).collect();
            }
        });
        assert_eq!(answers(&verdicts, "good-clients"), [Answer::Yes]);
        verdicts.into_iter().find(|one| one.key == "established").unwrap()
    };
    let (ample, guard) = (0, 2);
    assert_eq!(judge(&[(ample, 1_000), (guard, 950)]).answer, Answer::Yes);
    let less = judge(&[(ample, 1_000), (guard, 949)]);
    assert_eq!((less.answer, less.figure, less.against), (Answer::No, Some(949), Some(1_000)));
    let nobody = judge(&[]);
    assert_eq!(nobody.answer, Answer::NotMeasured);
    assert!(nobody.why.unwrap().contains("`every`"));
}

#[test]
fn a_load_counts_where_it_wants_something_on_the_yardstick_while_somebody_floods() {
    let none = |load| Served { load, wanted: spread(0), got: spread(0) };
    let before = changed(|facts| facts.iter_mut().for_each(|one| one.good = vec![none("good")]));
    assert_eq!(open(&before, MADE.none), ["good-clients"]);
    let one_of_two = changed(|facts| facts.iter_mut().for_each(|one| one.good.push(none("before the flood"))));
    assert_eq!(answers(&one_of_two, "good-clients"), [Answer::Yes]);
    // Whoever was cut off before the flood asks nothing more.
    let cut_off = changed(|facts| facts[2].established = vec![none("held")]);
    assert_eq!(answers(&cut_off, "established"), [Answer::No]);
}
