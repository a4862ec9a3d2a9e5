//! What a guard recorded, replayed; and the advice from it, taken by the programs it is for.

use std::fs;
use std::process::Command;

use bench::conntrack::Settings;
use bench::netns::Topology;
use bench::udp::Flows;
use nix::sys::signal::Signal;

use crate::kernel::{Guard, Table, at_rest, binary, run};

fn guard(arguments: &[&str]) -> String {
    run(binary().to_str().unwrap(), arguments)
}

#[test]
fn the_last_hour_is_replayed_under_another_policy_and_its_advice_is_taken() {
    let _table = Table::with(4_096, 4_096);
    let topology = Topology::create().unwrap();
    let mut recorder = Guard::start("[table]\nmax = { ceiling = 65536 }\n");
    Flows::one_way(0, 9_000).send(&topology).unwrap();
    at_rest();
    recorder.signal(Signal::SIGTERM);
    recorder.end();
    let recording = recorder.state_dir().join("recording");
    let recording = recording.to_str().unwrap();

    let replayed = guard(&["replay", recording]);
    println!("{replayed}");
    assert!(replayed.contains("raise-max") && replayed.contains("nothing would have been refused"), "{replayed}");
    let narrow = recorder.state_dir().join("narrow.toml");
    fs::write(&narrow, "[table]\nmax = { ceiling = 6000 }\n").unwrap();
    let plot = recorder.state_dir().join("plot.svg");
    let replayed =
        guard(&["replay", recording, "--config", narrow.to_str().unwrap(), "--plot", plot.to_str().unwrap()]);
    assert!(replayed.contains("this policy would have refused flows"), "{replayed}");
    assert!(fs::read_to_string(plot).unwrap().contains("max of this policy"));

    println!("{}", guard(&["advise", "--recording", recording]));
    let file = recorder.state_dir().join("advice.conf");
    fs::write(&file, guard(&["advise", "--recording", recording, "--emit", "sysctl"])).unwrap();
    for line in fs::read_to_string(&file).unwrap().lines().filter(|line| !line.starts_with('#')) {
        // What `sysctl -p` does with it, which a small host may not have.
        let (name, value) = line.split_once(" = ").unwrap();
        fs::write(format!("/proc/sys/{}", name.replace('.', "/")), value).unwrap();
    }
    let set = Settings::read().unwrap();
    assert!(set.max as f64 * 0.8 >= 9_000.0 && set.buckets > 4_096, "{set:?}");

    let modprobe = recorder.state_dir().join("modprobe");
    fs::create_dir(&modprobe).unwrap();
    let emitted = guard(&["advise", "--recording", recording, "--emit", "modprobe"]);
    fs::write(modprobe.join("conntrack.conf"), emitted).unwrap();
    let read = Command::new("modprobe").arg("-C").arg(&modprobe).arg("--showconfig").output().unwrap();
    let read = String::from_utf8(read.stdout).unwrap();
    assert!(read.contains("options nf_conntrack hashsize="), "{read}");
}

#[test]
fn this_host_is_observed_for_advice_and_left_as_it_is() {
    let _table = Table::with(4_096, 4_096);
    let before = Settings::read().unwrap();
    let advice = guard(&["advise", "--for", "3s"]);
    println!("{advice}");
    assert!(advice.contains("nf_conntrack_max") && advice.contains("is enough"), "{advice}");
    assert!(advice.contains(" entries x "), "{advice}");
    assert_eq!(Settings::read().unwrap(), before);
}
