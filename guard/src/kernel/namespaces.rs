//! Inserts by network namespace, remembered beyond the places that the programs have for them.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::slots::Sum;
use crate::observe::{NamespaceInserts, Namespaces};

/// So many namespaces without a place are remembered: those with the most inserts.
const REMEMBERED: usize = guard_ebpf::NAMESPACES;

/// What is known of each namespace, by [`guard_ebpf::Namespace::id`].
#[derive(Debug, Default)]
pub struct ByNamespace(BTreeMap<u64, Known>);

#[derive(Clone, Copy, Debug)]
struct Known {
    inum: u32,
    inserts: u64,
    /// What its places had counted at the last reading; 0 without one.
    in_places: u64,
}

impl ByNamespace {
    /// Takes in the next reading. What a namespace made since the one before, and had in a place that it lost, is not known.
    pub fn add(&mut self, sum: &Sum) {
        for (id, known) in &mut self.0 {
            if !sum.namespaces.contains_key(id) {
                known.in_places = 0;
            }
        }
        for (id, now) in &sum.namespaces {
            let known = self.0.entry(*id).or_insert(Known { inum: now.inum, inserts: 0, in_places: 0 });
            known.inserts = known.inserts.saturating_add(now.inserts.saturating_sub(known.in_places));
            known.in_places = now.inserts;
        }
        self.forget();
    }

    /// All that is known, beside so many inserts of all.
    pub fn told(&self, inserts: u64) -> Namespaces {
        let namespace = |(id, known): (&u64, &Known)| NamespaceInserts {
            inode: known.inum,
            // Inode numbers begin at 2^28 x 15 and cookies at 1.
            cookie: (*id != u64::from(known.inum)).then_some(*id),
            inserts: known.inserts,
        };
        let other = self.0.values().fold(inserts, |rest, known| rest.saturating_sub(known.inserts));
        Namespaces { each: self.0.iter().map(namespace).collect(), other }
    }

    fn forget(&mut self) {
        let without = self.0.iter().filter(|(_, known)| known.in_places == 0);
        let mut without: Vec<_> = without.map(|(id, known)| (Reverse(known.inserts), *id)).collect();
        // Of those with as few, the youngest go: the older ones have shown that they stay.
        without.sort_unstable();
        for (_, id) in without.iter().skip(REMEMBERED) {
            self.0.remove(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernel::slots::Inserts;

    fn sum(found: &[(u64, u64)]) -> Sum {
        let namespaces = found.iter().map(|(id, inserts)| (*id, Inserts { inum: 7, inserts: *inserts })).collect();
        Sum { namespaces, ..Sum::default() }
    }

    fn told(known: &ByNamespace) -> Vec<(u64, u64)> {
        known.0.iter().map(|(id, known)| (*id, known.inserts)).collect()
    }

    #[test]
    fn what_a_namespace_had_in_a_place_that_it_lost_stays_its_own() {
        let mut known = ByNamespace::default();
        known.add(&sum(&[(1, 1_000_000)]));
        // It lost the place on one CPU, goes on in another, and gets the first back.
        for (in_places, expected) in [(400_000, 1_000_000), (400_010, 1_000_010), (400_110, 1_000_110)] {
            known.add(&sum(&[(1, in_places), (65, 100)]));
            assert_eq!(told(&known), [(1, expected), (65, 100)]);
        }
        known.add(&sum(&[]));
        known.add(&sum(&[(1, 5)]));
        assert_eq!(told(&known), [(1, 1_000_115), (65, 100)]);
        assert_eq!(known.told(1_000_300).other, 85);
    }

    #[test]
    fn of_those_that_are_gone_the_busiest_are_remembered() {
        let mut known = ByNamespace::default();
        known.add(&sum(&[(1, 1_000_000)]));
        for id in 2..1_000 {
            known.add(&sum(&[(id, 10 + id % 3)]));
        }
        assert_eq!(known.0.len(), REMEMBERED + 1);
        assert!(told(&known).contains(&(1, 1_000_000)) && told(&known).contains(&(999, 10)));
        assert!(told(&known).iter().all(|(id, inserts)| *inserts >= 12 || *id == 999), "{:?}", told(&known));
    }

    /// Places of one CPU each, whose owner the next insert may change.
    #[derive(Clone, Debug)]
    struct Step {
        place: usize,
        namespace: u64,
        inserts: u64,
        takes_over: bool,
        is_read: bool,
    }

    fn step() -> impl Strategy<Value = Step> {
        let all = (0..3_usize, 1..6_u64, 1..50_u64, any::<bool>(), any::<bool>());
        all.prop_map(|(place, namespace, inserts, takes_over, is_read)| Step {
            place,
            namespace,
            inserts,
            takes_over,
            is_read,
        })
    }

    proptest! {
        #[test]
        fn no_figure_falls_and_none_is_more_than_was_made(steps in prop::collection::vec(step(), 1..200)) {
            let mut known = ByNamespace::default();
            let (mut places, mut made, mut all) = ([(0_u64, 0_u64); 3], BTreeMap::new(), 0);
            let mut before: (Vec<(u64, u64)>, u64) = (Vec::new(), 0);
            for Step { place, namespace, inserts, takes_over, is_read } in steps {
                all += inserts;
                *made.entry(namespace).or_insert(0) += inserts;
                let place = &mut places[place];
                if place.0 == namespace {
                    place.1 += inserts;
                } else if place.0 == 0 || takes_over {
                    *place = (namespace, inserts);
                }
                if is_read {
                    let mut sum = Sum { inserts: all, ..Sum::default() };
                    for (id, inserts) in places.iter().filter(|place| place.0 != 0) {
                        sum.namespaces.entry(*id).or_default().inserts += inserts;
                    }
                    known.add(&sum);
                    let other = known.told(all).other;
                    for (id, earlier) in &before.0 {
                        prop_assert!(known.0[id].inserts >= *earlier);
                    }
                    prop_assert!(other >= before.1);
                    let now = told(&known);
                    prop_assert!(now.iter().all(|(id, inserts)| *inserts <= made[id]));
                    prop_assert_eq!(now.iter().map(|(_, inserts)| inserts).sum::<u64>() + other, all);
                    before = (now, other);
                }
            }
        }
    }
}
