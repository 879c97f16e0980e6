//! Attention: a product of the weights of a softmax, whose scores are a product too, with values. Whole, it keeps a score
//! for every query and key. [`apply`] makes it a loop over blocks of keys that carries, for every query, the largest score
//! so far, the sum of the powers below it, and the sum of the values so weighted; a larger score in a later block scales
//! down what was summed before. Division by the sum comes last.
//!
//! The carried largest score starts from the lowest finite number. So a row gives what the whole softmax gives for it:
//! scores that are all the lowest finite number weigh all values alike, scores that are all −∞ give NaN, and −∞ beside a
//! finite score weighs nothing.
//!
//! Where positions alone hide keys behind a query, the loop ends with the last key that a query of the tile sees. What is
//! hidden behind it would weigh nothing, as long as each query sees a key of finite score.

mod causal;
mod online;
mod roles;

pub use online::apply;
pub use roles::{Attention, find};
