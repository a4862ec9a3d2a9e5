//! The guard on a real kernel. Needs root and a machine of its own: `cargo xtask test` runs it in a guest, one test at a
//! time.

mod daemon;
mod hooks;
mod kernel;
