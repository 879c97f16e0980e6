//! Reads description files: machines, systems, whatever is a set of numbers that come from somewhere.
//!
//! A description is TOML. Every number has its unit in its key's name, and its mark and source beside it:
//!
//! ```toml
//! inherit = "other"                       # a variant states only what differs
//!
//! [sources]
//! C2 = "https://example.com/page"
//!
//! [hbm]
//! hbm_gbs = { value = 2900, mark = "documented", source = "C2" }
//! pad_ns = { value = 50, mark = "inferred", note = "as for the generation before" }
//!
//! [[tier]]                                # tables of an array are known by their `name`
//! name = "rack"
//! link_gbs = 64                           # a bare value is the user's own
//! ```
//!
//! [`File::parse`] reads the text, [`File::set`] replaces single values (`--set hbm.hbm_gbs=4000`), and a [`Reader`] asks
//! for what it knows, key by key. Whatever is missing, ill-typed, out of range or unknown is collected, with its place,
//! and [`Reader::finish`] tells all of it at once; until then a getter that fails gives a harmless value of the right type.
//!
//! No input makes this crate panic, and none makes it take more memory than a small multiple of the text.

#![forbid(unsafe_code)]

mod file;
mod number;
mod problem;
mod reader;
mod tree;

pub use file::File;
pub use number::{Mark, Number};
pub use problem::{Place, Problem, Problems};
pub use reader::{Allowed, Reader};
