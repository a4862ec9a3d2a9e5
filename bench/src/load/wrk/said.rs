//! What wrk says → what became of the load.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::load::{Failure, Outcome};

/// Reads the lines that wrk.lua printed among wrk's own.
pub(super) fn outcome(said: &str) -> Result<Outcome> {
    let counts = numbers(said, "wrk-counts ").next().context("wrk told no counts")??;
    let [requests, connect, read, write, status, timeout] = counts[..] else {
        anyhow::bail!("wrk told {} counts where 6 were asked for", counts.len());
    };
    let mut outcome = Outcome::new()?;
    // It counts among the answered ones those with an error status, and those that came after its timeout.
    outcome.made = requests.saturating_sub(status).saturating_sub(timeout);
    outcome.fail(Failure::ConnectFailed, connect);
    outcome.fail(Failure::Reset, read.saturating_add(write));
    outcome.fail(Failure::ErrorStatus, status);
    outcome.fail(Failure::RequestTimeout, timeout);
    outcome.started = outcome.made + outcome.failures();
    for line in numbers(said, "wrk-latency ") {
        let line = line?;
        ensure!(line.len() == 2, "a latency of wrk has {} numbers", line.len());
        outcome.request.record_many(Duration::from_micros(line[0]), line[1]);
    }
    Ok(outcome)
}

fn numbers<'t>(said: &'t str, prefix: &'t str) -> impl Iterator<Item = Result<Vec<u64>>> + 't {
    said.lines().filter_map(move |line| line.strip_prefix(prefix)).map(|rest| {
        let number =
            |word: &str| word.parse().with_context(|| format!("wrk told `{word}` where a number was asked for"));
        rest.split_whitespace().map(number).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_answered_is_made_but_for_errors_and_latencies_keep_their_counts() {
        let said = "Running 2s test @ http://198.18.0.9:8000/\n  1 threads and 3 connections\n\
                    wrk-counts 100 1 2 3 10 4\nwrk-latency 50 90\nwrk-latency 4000 10\n";
        let outcome = outcome(said).unwrap();
        assert_eq!((outcome.started, outcome.made, outcome.failures()), (106, 86, 20));
        assert_eq!((outcome.failed[&Failure::ErrorStatus], outcome.failed[&Failure::Reset]), (10, 5));
        assert_eq!((outcome.request.count(), outcome.request.at(0.5)), (100, Duration::from_micros(50)));
        assert!(outcome.request.max() >= Duration::from_millis(4));
    }

    #[test]
    fn a_result_that_is_not_there_or_not_understood_is_an_error() {
        for (said, why) in [
            ("  0 requests in 2.00s\n", "no counts"),
            ("wrk-counts 1 2\n", "2 counts"),
            ("wrk-counts 1 0 0 0 0 0\nwrk-latency 1 x\n", "`x`"),
        ] {
            assert!(outcome(said).unwrap_err().to_string().contains(why), "{said}");
        }
    }
}
