//! What the slots add up to, and what a reading makes of them while they change.

#![allow(clippy::multiple_unsafe_ops_per_block, reason = "a field's place and its use are one step with one reason")]

use std::cell::UnsafeCell;
use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;

use guard_ebpf::{NAMESPACES, place_of};

use super::*;

/// Inserts by the owner at a place, and those before it.
fn place(id: u64, inum: u32, inserts: u64, before: u64) -> Namespace {
    Namespace { id, inum, inserts: inserts + before, before, seen: 0, contenders: 0 }
}

fn sum(cpus: &[&[Namespace]], other: u64) -> Sum {
    let mut sum = Sum::default();
    for places in cpus {
        let mut slot = Sum::default().slot;
        slot.namespaces[..places.len()].copy_from_slice(places);
        slot.other_namespaces = other;
        sum.add(&slot);
    }
    sum
}

fn told(sum: &Sum) -> Vec<(u64, u32, u64)> {
    sum.namespaces.iter().map(|(id, namespace)| (*id, namespace.inum, namespace.inserts)).collect()
}

#[test]
fn inserts_of_a_namespace_are_summed_over_cpus_and_those_before_it_are_others() {
    let sum = sum(&[&[place(65, 7, 10, 0), place(2, 8, 5, 100)], &[place(1, 6, 3, 0), place(2, 8, 1, 0)]], 4);
    assert_eq!(told(&sum), [(1, 6, 3), (2, 8, 6), (65, 7, 10)]);
    assert_eq!((sum.inserts, sum.other()), (127, 108));
}

#[test]
fn a_place_that_is_being_handed_over_lends_its_owner_no_inode_number() {
    // On the first CPU the inum is the next owner's already and the id is not.
    let sum = sum(&[&[place(2, 9, 0, 30)], &[place(2, 8, 6, 0)]], 0);
    assert_eq!((told(&sum), sum.other()), (vec![(2, 8, 6)], 30));
}

#[test]
fn namespaces_made_in_a_row_or_on_many_cpus_have_places_of_their_own() {
    let places = |ids: &[u64]| {
        let places: BTreeSet<u64> = ids.iter().map(|id| place_of(*id)).collect();
        let is_place = |at: &u64| at.is_multiple_of(size_of::<Namespace>() as u64);
        assert!(places.iter().all(is_place) && places.last().unwrap() / 32 < NAMESPACES as u64, "{places:?}");
        places.len()
    };
    // Cookies of one CPU; inode numbers, where there are no cookies; the first of each of 64 CPUs, or ten of each of four.
    assert_eq!(places(&(1..=64).collect::<Vec<_>>()), 64);
    assert_eq!(places(&(4_026_531_840..4_026_531_904).collect::<Vec<_>>()), 64);
    assert_eq!(places(&(0..64).map(|cpu| cpu * 4_096 + 1).collect::<Vec<_>>()), 64);
    let of_four: Vec<u64> = (0..4).flat_map(|cpu| (1..=10).map(move |nth| cpu * 4_096 + nth)).collect();
    assert_eq!(places(&of_four), 40);
}

#[test]
fn a_number_that_is_used_again_makes_no_one_namespace_of_two() {
    let sum = sum(&[&[place(1, 7, 10, 0), place(2, 7, 3, 0)]], 0);
    assert_eq!(told(&sum), [(1, 7, 10), (2, 7, 3)]);
}

#[test]
fn no_insert_is_lost_and_none_is_another_namespaces_when_places_change_hands() {
    let earlier = || sum(&[&[place(1, 7, 10, 0), place(2, 8, 20, 5)]], 3);
    // The first place went to namespace 65; the second to 66 and back.
    let later = || sum(&[&[place(65, 9, 4, 12), place(2, 8, 6, 40)]], 70);
    let seen = later().since(&earlier());
    assert_eq!(told(&seen), [(65, 9, 4)]);
    assert_eq!((seen.inserts, seen.other()), (12 + 4 + 40 + 6 + 70 - (10 + 25 + 3), 90));
    // Nothing came: nothing is told.
    let seen = later().since(&later());
    assert_eq!((told(&seen), seen.inserts, seen.other()), (vec![], 0, 0));
}

/// A slot as a CPU writes to it while it is read.
struct Written(Box<UnsafeCell<Slot>>);

// SAFETY: as with the kernel's: one writes whole words and one reads, both volatile.
unsafe impl Sync for Written {}

impl Written {
    fn slot(&self) -> *mut Slot {
        self.0.get()
    }
}

#[test]
fn a_place_that_changes_hands_while_it_is_read_is_no_mixture() {
    const OWNERS: u32 = 20_000;
    let slot = Written(Box::new(UnsafeCell::new(Sum::default().slot)));
    let finished = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // SAFETY: a field of a slot that outlives this thread.
            let place = unsafe { &raw mut (*slot.slot()).namespaces[40] };
            for owner in 1..=OWNERS {
                // SAFETY: as above. In the order of the programs.
                unsafe {
                    (&raw mut (*place).before).write_volatile((*place).inserts);
                    (&raw mut (*place).inum).write_volatile(owner);
                    (&raw mut (*place).id).write_volatile(owner.into());
                    (&raw mut (*place).inserts).write_volatile((*place).inserts + u64::from(owner));
                }
                // What others count until the next one may come.
                (0..2_000).for_each(|_| std::hint::spin_loop());
            }
            finished.store(true, Ordering::Relaxed);
        });
        let mut inserts = 0;
        while !finished.load(Ordering::Relaxed) {
            let mut sum = Sum::default();
            // SAFETY: as above.
            sum.add(&unsafe { Slots::read(slot.slot()) });
            assert!(inserts <= sum.inserts, "{inserts} {}", sum.inserts);
            inserts = sum.inserts;
            for (id, found) in &sum.namespaces {
                assert_eq!((u64::from(found.inum), found.inserts), (*id, *id));
            }
        }
    });
}

#[test]
fn what_led_to_no_number_is_missing() {
    assert_eq!(sum(&[&[place(0, 0, 10, 0)]], 3).inserts, 3);
}

fn room_for(possible: &str) -> Option<usize> {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("sys/devices/system/cpu");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("possible"), possible).unwrap();
    room(root.path()).ok()
}

#[test]
fn the_cpus_online_are_counted() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("sys/devices/system/cpu");
    fs::create_dir_all(&folder).unwrap();
    for (text, cpus) in [("0\n", Some(1)), ("0-3,8-11\n", Some(8)), ("0,2", Some(2)), ("\n", None), ("3-1", None)] {
        fs::write(folder.join("online"), text).unwrap();
        assert_eq!(online(root.path()).ok(), cpus, "{text:?}");
    }
}

#[test]
fn there_is_a_slot_for_the_highest_cpu() {
    for (possible, slots) in [("0\n", 1), ("0-1\n", 2), ("0-2\n", 4), ("0-63\n", 64), ("0-3,8-11\n", 16), ("0,2", 4)] {
        assert_eq!(room_for(possible), Some(slots), "{possible}");
    }
    assert_eq!(room_for("\n"), None);
}
