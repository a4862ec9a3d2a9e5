//! What the operator wrote → a valid [`Policy`]; every error at once, each with file, line and key.

mod errors;
mod keys;
mod parse;
mod policy;
mod section;
mod warnings;

pub use errors::{Errors, Position, Problem};
pub use keys::KEYS;
pub use parse::{load, parse};
pub use policy::{Bounds, Flood, Hash, MemoryLimit, Mode, Policy, Relax, Restore, Stop, Table, Timeouts, Window};
pub use warnings::warnings;
