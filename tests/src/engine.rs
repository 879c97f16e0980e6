//! The table of engines: every way to the values of a program. What each does is in `execute.rs`.

/// A way to the values of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// The level's own evaluator.
    Reference,
    /// Printed, parsed, evaluated.
    Roundtrip,
    /// After the passes of its level, evaluated.
    Optimized,
    /// The compiled module, evaluated.
    Kernels,
    /// Machine code.
    Host,
    /// The program of a modeled accelerator, checked and simulated.
    Trn2,
}

impl Engine {
    /// Every engine.
    pub const ALL: [Engine; 6] = [
        Engine::Reference,
        Engine::Roundtrip,
        Engine::Optimized,
        Engine::Kernels,
        Engine::Host,
        Engine::Trn2,
    ];

    /// What test names and skips call it.
    pub fn name(self) -> &'static str {
        match self {
            Engine::Reference => "reference",
            Engine::Roundtrip => "roundtrip",
            Engine::Optimized => "optimized",
            Engine::Kernels => "kernels",
            Engine::Host => "host",
            Engine::Trn2 => "trn2",
        }
    }
}
