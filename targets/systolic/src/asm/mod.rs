//! Assembly text of programs: [`print()`] and [`parse()`] are each other's inverse.
//!
//! ```text
//! program "mlp" for "trn2"
//! tensor %x: f32 1024
//! tensor %y: f32 1024
//! input %x
//! output "y" = %y
//! kernel @square(reads %a: f32 1024, writes %b: f32 1024) sbuf 64 psum 0 {
//!   semaphore $full = 0
//!   semaphore $done = 0
//!   stream scalar {
//!     activation function=square input=sbuf(f32, 0, 128, 0, [1:8]) scale=1.0 bias=0.0 out=sbuf(f32, 0, 128, 32, [1:8]) reduce=none wait [$full] signal [$done]
//!   }
//!   stream sync {
//!     dma f32 [128, 8] from far(%a, 0, [8, 1]) to near(sbuf, 0, 0, [1:0, 0:1]) calls [%a] signal [$full]
//!     dma f32 [128, 8] from near(sbuf, 0, 32, [1:0, 0:1]) to far(%b, 0, [8, 1]) wait [$done] calls [%b]
//!   }
//! }
//! run {
//!   call @square(%x, %y)
//! }
//! ```
//!
//! An access is `memory(type, first partition, partitions, first byte, [stride:size, …])`. A number of a sequencer is a sum such as
//! `64 + 512*%i + 128*turn(%i, 2)`. `%#3` is the third (from 0) of what has no name of its own. A kernel that exchanges with other
//! ranks has a line instead of streams: `exchange all-reduce f32[8] to f32[8] {combine = sum, groups = [[0, 1]]}`.

mod exchange;
mod field;
mod lexer;
mod parse;
mod print;
#[cfg(test)]
mod tests;

pub use parse::parse;
pub use print::print;
