//! What this kernel offers: struct layouts from BTF, loading and attaching the programs, and what is missing and why.

mod btf;
mod error;
mod hooks;
mod slots;
pub mod support;
mod sys;

pub use error::Error;
pub use hooks::{Hooks, Programs};
pub use support::Support;
