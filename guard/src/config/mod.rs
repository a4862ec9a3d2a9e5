//! What the operator wrote → a valid [`Policy`]; every error at once, each with file, line and key.

mod errors;
mod field;
mod harms;
mod keys;
mod parse;
mod policy;
mod text;
mod unknown;
mod warnings;

pub use errors::{Errors, Position, Problem};
pub use keys::{Key, keys};
pub use parse::{load, parse, read};
pub use policy::{Bounds, Flood, Hash, MemoryLimit, Mode, Policy, Relax, Restore, Stop, Table, Timeouts, Window};
pub use text::{Difference, differences, example};
pub use warnings::warnings;
