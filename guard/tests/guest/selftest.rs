//! The self-test at load: that it passes where all is well, says why where it cannot run, and leaves nothing.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use conntrack_guard::kernel::{Attached, BackEnd, Hooks, Options, Signal, Walk};

use crate::kernel::{eventually, next_namespace, run};

const TESTED: [Signal; 3] = [Signal::Inserts, Signal::Chains, Signal::Destroys];

fn attach(back_end: Option<BackEnd>, walk: Walk) -> Hooks {
    Hooks::attach(Options { back_end, walk, log: false }).unwrap()
}

fn tested(hooks: &Hooks) -> impl Iterator<Item = &Attached> {
    hooks.signals().iter().filter(|row| TESTED.contains(&row.signal))
}

#[test]
fn it_passes_and_leaves_no_namespace_and_no_count() {
    run("modprobe", &["nf_conntrack_netlink"]);
    let before = next_namespace();
    for walk in [Walk::Sampled, Walk::Every] {
        let started = Instant::now();
        let mut hooks = attach(None, walk);
        println!("{walk:?}: attached and proved in {:?}", started.elapsed());
        assert_eq!(tested(&hooks).count(), TESTED.len());
        for row in tested(&hooks) {
            assert!(row.back_end.is_some(), "{row:?}");
            assert!(!row.why.iter().any(|why| why.contains("self-test")), "{row:?}");
        }
        let totals = hooks.read();
        assert_eq!(totals.inserts, Some(0));
        assert_eq!(totals.destroys.unwrap().all(), 0);
        assert!(totals.namespaces.unwrap().each.is_empty());
        assert_eq!(totals.chains.unwrap().original.iter().sum::<u64>(), 0);
    }
    eventually("the namespaces are gone", Duration::from_secs(10), || (next_namespace() <= before).then_some(()));
}

#[test]
fn without_ctnetlink_it_says_so_and_loads_no_module() {
    run("modprobe", &["nf_conntrack_netlink"]);
    run("rmmod", &["nf_conntrack_netlink"]);
    let hooks = attach(None, Walk::Sampled);
    for row in tested(&hooks) {
        assert!(row.back_end.is_some(), "{row:?}");
        assert!(row.why.iter().any(|why| why.contains("not self-tested: nf_conntrack_netlink")), "{row:?}");
    }
    assert!(!Path::new("/sys/module/nf_conntrack_netlink").exists());
    run("modprobe", &["nf_conntrack_netlink"]);
}

#[test]
fn without_a_namespace_of_its_own_it_says_so() {
    run("modprobe", &["nf_conntrack_netlink"]);
    // Zero more network namespaces than there are: the kernel refuses the next one.
    let limit = "/proc/sys/user/max_net_namespaces";
    let found = fs::read_to_string(limit).unwrap();
    fs::write(limit, "0").unwrap();
    let hooks = attach(None, Walk::Sampled);
    fs::write(limit, found).unwrap();
    for row in tested(&hooks) {
        assert!(row.back_end.is_some(), "{row:?}");
        assert!(row.why.iter().any(|why| why.contains("not self-tested: a network namespace of its own")), "{row:?}");
    }
}
