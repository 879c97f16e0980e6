//! The event-driven simulator: values and time of a program.
