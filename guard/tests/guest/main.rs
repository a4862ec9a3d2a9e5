//! The guard on a real kernel. Needs root and a machine of its own: `cargo xtask test` runs it in a guest, one test at a
//! time.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking, in their helpers too")]

mod btf;
mod causes;
mod census;
mod credit;
mod daemon;
mod fallback;
mod flood;
mod hooks;
mod journal;
mod kernel;
mod leak;
mod lockdown;
mod module;
mod namespaces;
mod pause;
mod recorded;
mod reload;
mod restore;
mod scenarios;
mod selftest;
mod skew;
mod statistics;
mod status;
mod strayed;
mod timeouts;
