//! The pure half as the daemon uses it: policy files in, samples in, plans out.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking, in their helpers too")]

mod closed_loop;
mod documentation;
mod golden;
mod policy_files;
mod properties;
mod table;
