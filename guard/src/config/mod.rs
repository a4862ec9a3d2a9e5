//! What the operator wrote → a valid [`Policy`]; every error at once, each with file, line and key.

mod policy;

pub use policy::{Bounds, Hash, MemoryLimit, Mode, Policy, Table};
