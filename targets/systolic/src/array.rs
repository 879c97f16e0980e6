//! The classic systolic array without engines, as SCALE-Sim models it.
