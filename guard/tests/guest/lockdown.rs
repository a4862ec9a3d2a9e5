//! A kernel in lockdown. There is no way back from it, so these tests have a guest of their own.

use std::fs;

use conntrack_guard::kernel::{BackEnd, Hooks, Options, Signal};

use crate::kernel::run;

const FILE: &str = "/sys/kernel/security/lockdown";

fn lock(mode: &str) {
    if !fs::exists(FILE).unwrap() {
        run("mount", &["-t", "securityfs", "securityfs", "/sys/kernel/security"]);
    }
    fs::write(FILE, mode).unwrap();
    assert!(fs::read_to_string(FILE).unwrap().contains(&format!("[{mode}]")));
}

/// In the order of the alphabet, in which they run: each is stricter than the one before.
#[test]
fn a_integrity_takes_nothing() {
    lock("integrity");
    run("modprobe", &["nf_conntrack_netlink"]);
    let hooks = Hooks::attach(Options::default()).unwrap();
    for row in hooks.signals().iter().filter(|row| row.signal != Signal::RefusedFlows) {
        assert!(row.back_end.is_some() && !row.why.iter().any(|why| why.contains("lockdown")), "{row:?}");
    }
}

#[test]
fn b_confidentiality_takes_what_reads_memory_by_address_and_says_so() {
    lock("confidentiality");
    run("modprobe", &["nf_conntrack_netlink"]);
    let tracing = fs::exists("/sys/kernel/btf/nf_conntrack").unwrap();
    match Hooks::attach(Options::default()) {
        Ok(hooks) if tracing => {
            for row in hooks.signals() {
                let off = row.back_end.is_none() && row.why.iter().any(|why| why.contains("lockdown=confidentiality"));
                let on = row.back_end == Some(BackEnd::Tracing) && !row.why.iter().any(|why| why.contains("self-test"));
                assert!(if row.signal == Signal::RefusedFlows { off } else { on }, "{row:?}");
            }
        }
        Err(error) if !tracing => println!("{error}"),
        other => panic!("{:?}", other.map(|hooks| hooks.signals().to_vec())),
    }
    // By kprobe nothing is left.
    let error = Hooks::attach(Options { back_end: Some(BackEnd::Kprobe), ..Options::default() }).err().unwrap();
    assert!(error.to_string().contains("lockdown"), "{error}");
}
