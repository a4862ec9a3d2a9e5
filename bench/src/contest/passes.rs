//! All passes over the alternatives, and the report as it grows.

use std::sync::atomic::Ordering;

use anyhow::{Result, bail};

use super::alternative::Alternative;
use super::observer::Observed;
use super::report::NotRun;
use super::run::{Pass, Run, Terms};
use super::text;
use crate::refused;

/// What has come of them so far.
#[derive(Default)]
pub(super) struct Done {
    /// In the order in which they ran.
    pub runs: Vec<(Alternative, Run)>,
    /// What was seen of each in the observed pass, or why nothing was.
    pub observed: Vec<(Alternative, std::result::Result<Observed, String>)>,
    /// What failed; it is not run again.
    pub failed: Vec<NotRun>,
}

/// Runs everything, and hands what there is to `keep` after each run: what was measured is not lost where a later run is cut
/// short.
pub(super) fn run(terms: &Terms<'_>, against: &[Alternative], keep: impl Fn(&Done) -> Result<()>) -> Result<Done> {
    let mut done = Done::default();
    for pass in terms.passes() {
        for (position, alternative) in (1..).zip(order(against, pass)) {
            if done.failed.iter().any(|one| one.alternative == alternative) {
                continue;
            }
            done.turn(terms, alternative, pass, position)?;
            keep(&done)?;
        }
    }
    if done.runs.is_empty() {
        bail!("none of the alternatives could run");
    }
    Ok(done)
}

impl Done {
    /// One alternative in one pass. What cannot run is noted; an error is what ends all.
    fn turn(&mut self, terms: &Terms<'_>, alternative: Alternative, pass: Pass, position: u32) -> Result<()> {
        let failure = match terms.run(alternative, pass, position) {
            Ok((_, Some(observed))) => {
                eprintln!("{alternative:<14} {pass}  done: {}", text::observed(&observed));
                self.observed.push((alternative, Ok(observed)));
                return Ok(());
            }
            Ok((run, None)) => {
                eprintln!("{alternative:<14} {pass}  done: {}", text::line(&run));
                self.runs.push((alternative, run));
                return Ok(());
            }
            Err(error) if terms.stop.load(Ordering::Relaxed) || refused(&error) => return Err(error),
            Err(error) => format!("{error:#}"),
        };
        // The others still say something; this one is named.
        eprintln!("{alternative:<14} {pass}  could not run: {failure}");
        match pass {
            Pass::Round(_) => self.failed.push(NotRun { alternative, why: failure }),
            Pass::Observed => self.observed.push((alternative, Err(failure))),
        }
        Ok(())
    }
}

/// The order of a pass: each one starts with the next alternative, so that nobody always comes first.
fn order(all: &[Alternative], pass: Pass) -> Vec<Alternative> {
    let mut all = all.to_vec();
    let first = usize::try_from(pass.before()).unwrap_or(0) % all.len().max(1);
    all.rotate_left(first);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_as_many_rounds_as_alternatives_each_is_once_at_each_place() {
        let all = [Alternative::Stock, Alternative::Static, Alternative::Guard];
        let rounds: Vec<_> = (1..=4).map(|round| order(&all, Pass::Round(round))).collect();
        assert_eq!(rounds[0], all);
        assert_eq!(rounds[1], [Alternative::Static, Alternative::Guard, Alternative::Stock]);
        assert_eq!(rounds[3], rounds[0]);
        for place in 0..3 {
            assert!(all.iter().all(|one| rounds[..3].iter().any(|round| round[place] == *one)));
        }
    }
}
