//! What this kernel offers: struct layouts from BTF, loading and attaching the programs, and what is missing and why.

mod btf;
mod credit;
pub mod ctnetlink;
mod error;
mod events;
mod hooks;
mod kernel_log;
mod namespaces;
mod object;
mod patch;
mod perf;
mod refused;
mod selftest;
mod signals;
mod slots;
pub mod support;
mod symbols;
mod sys;

pub use error::Error;
pub use hooks::{Attached, Hooks, Options};
pub use selftest::strayed;
pub use signals::{BackEnd, Signal, Walk};
pub use support::Support;
