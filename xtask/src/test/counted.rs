//! The binary that ships: does it start, react and rest as leanly as is promised? Counted in a guest, so that no other work
//! of this machine makes a difference.

use super::heading;
use super::tally::Tally;
use crate::bench::{self, Counted};

/// The figures are the bench's, and so are the limits; here they are taken from fewer rounds.
pub fn run(tally: &mut Tally) {
    let measured: [(&str, Counted); 3] = [
        (
            "the static binary starts within 1 s of guest time, and 8 MiB are resident then",
            Counted::Start { rounds: 3, json: false },
        ),
        ("a surge is answered within 10 ms of guest time", Counted::Reaction { crossings: 10, json: false }),
        (
            "at rest it wakes up no more than once a second, takes less than 0.1 % of a core, and 8 MiB",
            Counted::Idle { seconds: 60, json: false },
        ),
    ];
    for (name, what) in measured {
        heading(what.name());
        match bench::measure(&what) {
            Ok(0) => tally.pass(name),
            Ok(code) => tally.fail(name, &format!("the measurement ended with {code}: see above")),
            Err(error) => tally.fail(name, &format!("{error:#}")),
        }
    }
}
