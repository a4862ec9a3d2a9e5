//! The writer against faults of the kernel and of the disk, and against its own death at every step.

use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::rc::Rc;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::*;
use crate::actuate::testing::{FakeKernel, Moment, watch};
use crate::actuate::{Inherited, Put};
use crate::model::ResizeCost;
use crate::observe::Timeout;
use crate::policy::Setting;

const STALL: Duration = Duration::from_millis(20);
const MAX: &str = "nf_conntrack_max";
const UDP: &str = "nf_conntrack_udp_timeout";

fn start(kernel: &FakeKernel) -> Live {
    Live::start(kernel.settings(), &kernel.state_dir(), STALL).unwrap()
}

fn inherited(kernel: &FakeKernel) -> Inherited {
    Inherited::read(&kernel.settings(), &kernel.state_dir()).unwrap()
}

fn left_in_the_directory(kernel: &FakeKernel) -> usize {
    fs::read_dir(kernel.state_dir()).unwrap().count()
}

fn all_is_back(kernel: &FakeKernel) {
    let all = start(kernel).restore(Restore::WhenSafe, ResizeCost::default());
    assert!(all.iter().all(|one| matches!(one.put, Put::Back { .. })), "{all:?}");
    assert_eq!((kernel.get(MAX), kernel.get("nf_conntrack_buckets"), kernel.get(UDP)), (65536, 16384, 30));
    assert_eq!(left_in_the_directory(kernel), 0);
}

#[test]
fn every_kind_of_setting_is_written_read_back_and_put_back() {
    let kernel = FakeKernel::with_timeouts(65536, 16384, 10);
    let mut live = start(&kernel);
    for (setting, old, new) in [
        (Setting::Max, 65536, 131_072),
        (Setting::Buckets, 16384, 32768),
        (Setting::Timeout(Timeout::Udp), 30, 15),
        (Setting::Timeout(Timeout::TcpTimeWait), 120, 30),
    ] {
        let effect = live.write(&Change::bare(setting, old, new));
        assert!(matches!(effect, Effect::Applied { read_back, .. } if read_back == new), "{effect:?}");
        assert_eq!(kernel.get(setting.sysctl()), new);
    }
    let order: Vec<_> =
        live.restore(Restore::WhenSafe, ResizeCost::default()).iter().map(|one| (one.setting, one.original)).collect();
    let timeouts = [(Setting::Timeout(Timeout::TcpTimeWait), 120), (Setting::Timeout(Timeout::Udp), 30)];
    assert_eq!(order[..2], timeouts);
    assert_eq!(order[2..], [(Setting::Max, 65536), (Setting::Buckets, 16384)]);
    assert_eq!((kernel.get(UDP), kernel.get("nf_conntrack_tcp_timeout_time_wait")), (30, 120));
    assert_eq!(left_in_the_directory(&kernel), 0);
}

#[test]
fn what_never_changed_leaves_nothing() {
    let kernel = FakeKernel::with_timeouts(65536, 16384, 10);
    let mut live = start(&kernel);
    // Somebody else's doing, which is none of the guard's.
    kernel.set(UDP, 60);
    assert_eq!(live.restore(Restore::WhenSafe, ResizeCost::default()), []);
    assert_eq!((kernel.get(UDP), left_in_the_directory(&kernel)), (60, 0));
}

#[test]
fn a_refused_write_names_file_and_way_out_and_leaves_nothing_to_restore() {
    let kernel = FakeKernel::with_timeouts(65536, 16384, 10);
    kernel.make_read_only("proc/sys/net/netfilter/nf_conntrack_udp_timeout");
    let mut live = start(&kernel);
    let effect = live.write(&Change::bare(Setting::Timeout(Timeout::Udp), 65536, 15));
    let Effect::Refused { error, way_out } = effect else { panic!("{effect:?}") };
    assert!(error.contains("nf_conntrack_udp_timeout") && way_out.contains("as root"), "{error}; {way_out}");
    // The others are written all the same.
    assert!(matches!(live.write(&Change::bare(Setting::Max, 65536, 131_072)), Effect::Applied { .. }));
    assert_eq!(live.restore(Restore::WhenSafe, ResizeCost::default()).len(), 1);
}

#[test]
fn a_write_without_effect_is_told_apart_and_leaves_nothing_to_restore() {
    let kernel = FakeKernel::new(65536, 16384, 10);
    kernel.make_deaf("proc/sys/net/netfilter/nf_conntrack_max");
    let mut live = start(&kernel);
    let effect = live.write(&Change::bare(Setting::Max, 33, 51));
    assert!(matches!(effect, Effect::NoEffect { read_back: 33, .. }), "{effect:?}");
    assert!(effect.failure().unwrap().contains("changed nothing"));
    assert_eq!(live.restore(Restore::WhenSafe, ResizeCost::default()), []);
}

#[test]
fn nothing_is_written_that_is_not_recorded() {
    let kernel = FakeKernel::new(65536, 16384, 10);
    let mut live = start(&kernel);
    live.journal.break_page();
    let effect = live.write(&Change::bare(Setting::Max, 65536, 131_072));
    assert!(matches!(&effect, Effect::Refused { error, .. } if error.contains("journal.latest")), "{effect:?}");
    assert_eq!(kernel.get(MAX), 65536);
}

#[test]
fn a_disk_that_fills_up_after_the_start_stops_no_raise_and_loses_no_original() {
    let kernel = FakeKernel::with_timeouts(65536, 16384, 10);
    let mut live = start(&kernel);
    kernel.fill_the_disk_for("journal.json.new");
    for (old, new) in [(65536, 131_072), (131_072, 262_144)] {
        let effect = live.write(&Change::bare(Setting::Max, old, new));
        assert!(matches!(effect, Effect::Applied { .. }), "{effect:?}");
    }
    let killed = kernel.as_it_is();
    drop(live);
    let _ = fs::remove_file(killed.state_dir().join("journal.json.new"));
    assert_eq!(inherited(&killed).taken_over, [(Setting::Max, 65536)]);
    all_is_back(&killed);
}

#[test]
fn a_raise_waits_for_no_disk() {
    let kernel = FakeKernel::with_timeouts(65536, 16384, 10);
    let mut live = start(&kernel);
    // A disk that does not answer: nobody reads what is written, so that opening it already waits.
    let stuck = kernel.state_dir().join("journal.json.new");
    mkfifo(&stuck, Mode::S_IRWXU).unwrap();
    let raises = [(65536, 131_072), (131_072, 262_144)];
    let effects = raises.map(|(old, new)| live.write(&Change::bare(Setting::Max, old, new)));
    let killed = kernel.as_it_is();
    // The disk answers at last: dropped, the journal waits for it.
    let reader = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&stuck).unwrap();
    // The thread may be faster, and removes what it could not bring to a disk.
    let _ = fs::remove_file(&stuck);
    drop(live);
    drop(reader);
    assert!(effects.iter().all(|effect| matches!(effect, Effect::Applied { .. })), "{effects:?}");
    fs::remove_file(killed.state_dir().join("journal.json.new")).unwrap();
    all_is_back(&killed);
}

#[test]
fn without_room_for_the_journal_a_guard_does_not_start() {
    for name in ["journal.json.new", "journal.latest"] {
        let kernel = FakeKernel::new(65536, 16384, 10);
        fs::create_dir(kernel.state_dir()).unwrap();
        // The stale page is removed; what stands in its place then cannot be written.
        if name == "journal.latest" {
            fs::create_dir(kernel.state_dir().join(name)).unwrap();
        } else {
            kernel.fill_the_disk_for(name);
        }
        let error = Live::start(kernel.settings(), &kernel.state_dir(), STALL).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("--state-dir"), "{error}");
        assert!(!kernel.state_dir().join("journal.json").exists());
    }
}

#[test]
fn killed_at_any_step_everything_comes_back() {
    let kernel = FakeKernel::with_timeouts(65536, 16384, 10);
    let mut live = start(&kernel);
    let mut killed = vec![("started", kernel.as_it_is())];
    for (setting, old, new) in [
        (Setting::Max, 65536, 131_072),
        (Setting::Timeout(Timeout::Udp), 30, 15),
        (Setting::Buckets, 16384, 32768),
        (Setting::Max, 131_072, 262_144),
        (Setting::Timeout(Timeout::Udp), 15, 20),
    ] {
        live.journal.intend(setting, old, new).unwrap();
        killed.push(("intended", kernel.as_it_is()));
        live.settings.write(setting, new).unwrap();
        killed.push(("written", kernel.as_it_is()));
        live.journal.settle(setting, new).unwrap();
        // The thread is saving, or has saved.
        killed.push(("settled", kernel.as_it_is()));
        live.journal.save().unwrap();
        killed.push(("saved", kernel.as_it_is()));
    }
    assert_eq!(killed.len(), 21);
    for (step, kernel) in killed {
        println!("{step}: {:?}", inherited(&kernel));
        all_is_back(&kernel);
    }
}

#[test]
fn killed_at_any_step_the_next_guard_goes_on_from_the_same_originals() {
    let kernel = FakeKernel::with_timeouts(65536, 16384, 10);
    start(&kernel).write(&Change::bare(Setting::Max, 65536, 131_072));
    let mut second = start(&kernel);
    second.write(&Change::bare(Setting::Max, 131_072, 262_144));
    second.write(&Change::bare(Setting::Timeout(Timeout::Udp), 30, 15));
    drop(second);
    let both = [(Setting::Max, 65536), (Setting::Timeout(Timeout::Udp), 30)];
    assert_eq!(inherited(&kernel).taken_over, both);
    all_is_back(&kernel);
}

#[test]
fn a_guard_that_relaxed_all_by_itself_has_nothing_to_restore() {
    let kernel = FakeKernel::with_timeouts(65536, 16384, 10);
    start(&kernel).write(&Change::bare(Setting::Timeout(Timeout::Udp), 30, 15));
    let mut next = start(&kernel);
    next.write(&Change::bare(Setting::Timeout(Timeout::Udp), 15, 30));
    assert_eq!(next.restore(Restore::WhenSafe, ResizeCost::default()), []);
}

#[test]
fn a_start_leaves_what_somebody_else_wrote_meanwhile() {
    let kernel = FakeKernel::new(65536, 16384, 10);
    start(&kernel).write(&Change::bare(Setting::Max, 65536, 131_072));
    kernel.set(MAX, 99_999);
    assert_eq!(inherited(&kernel).overwritten, [(Setting::Max, 99_999)]);
    let mut live = start(&kernel);
    live.write(&Change::bare(Setting::Max, 99_999, 200_000));
    assert_eq!(inherited(&kernel).taken_over, [(Setting::Max, 99_999)]);
    live.restore(Restore::WhenSafe, ResizeCost::default());
    assert_eq!((kernel.get(MAX), left_in_the_directory(&kernel)), (99_999, 0));
}

#[test]
fn what_somebody_else_writes_in_the_moment_of_a_write_is_not_taken_for_the_guards() {
    let kernel = Rc::new(FakeKernel::new(65536, 16384, 10));
    let mut live = start(&kernel);
    let other = Rc::clone(&kernel);
    let watching = watch(move |moment| {
        if matches!(moment, Moment::Written(Setting::Max, _)) {
            other.set(MAX, 99_999);
        }
        Ok(())
    });
    let effect = live.write(&Change::bare(Setting::Max, 65536, 131_072));
    drop(watching);
    assert!(matches!(effect, Effect::NoEffect { read_back: 99_999, .. }), "{effect:?}");
    live.write(&Change::bare(Setting::Max, 99_999, 200_000));
    assert_eq!(inherited(&kernel).taken_over, [(Setting::Max, 99_999)]);
    live.restore(Restore::WhenSafe, ResizeCost::default());
    assert_eq!((kernel.get(MAX), left_in_the_directory(&kernel)), (99_999, 0));
}

#[test]
fn a_journal_of_an_earlier_boot_is_removed_and_not_applied() {
    let kernel = FakeKernel::new(65536, 16384, 10);
    start(&kernel).write(&Change::bare(Setting::Max, 65536, 131_072));
    fs::write(kernel.path("proc/sys/kernel/random/boot_id"), "another\n").unwrap();
    assert_eq!(inherited(&kernel), Inherited { earlier_boot: true, ..Inherited::default() });
    assert_eq!(start(&kernel).restore(Restore::WhenSafe, ResizeCost::default()), []);
    assert_eq!((kernel.get(MAX), left_in_the_directory(&kernel)), (131_072, 0));
}

#[test]
fn a_timeout_that_went_with_its_module_stops_nothing() {
    let kernel = FakeKernel::with_timeouts(65536, 16384, 10);
    start(&kernel).write(&Change::bare(Setting::Timeout(Timeout::Udp), 30, 15));
    let file = kernel.path("proc/sys/net/netfilter/nf_conntrack_udp_timeout");
    fs::remove_file(&file).unwrap();
    assert_eq!(inherited(&kernel), Inherited::default());
    start(&kernel).write(&Change::bare(Setting::Max, 65536, 131_072));
    fs::write(file, "30\n").unwrap();
    all_is_back(&kernel);
}
