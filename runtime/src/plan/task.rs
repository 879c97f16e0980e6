//! What is planned: a model, a workload and its sizes.

use systole_compiler::import::llm::Config;

/// What the system does with the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// One step of training: forward, backward, optimizer.
    Train,
    /// Reading prompts.
    Prefill,
    /// One more token for every sequence.
    Decode,
}

impl Work {
    /// How it is written.
    pub fn name(self) -> &'static str {
        match self {
            Work::Train => "train",
            Work::Prefill => "prefill",
            Work::Decode => "decode",
        }
    }
}

/// In which type products are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say what they are")]
pub enum Precision {
    F32,
    F16,
    BF16,
    F8,
    F4,
}

impl Precision {
    /// How it is written, and how a system's peaks name it.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::F16 => "f16",
            Precision::BF16 => "bf16",
            Precision::F8 => "f8",
            Precision::F4 => "f4",
        }
    }

    /// Bytes of a weight when it serves; those of narrow types carry their scales.
    pub fn weight_bytes(self) -> f64 {
        match self {
            Precision::F32 => 4.0,
            Precision::F16 | Precision::BF16 => 2.0,
            Precision::F8 => 1.0 + 1.0 / 32.0,
            Precision::F4 => 0.5 + 1.0 / 32.0,
        }
    }

    /// Bytes of an element of hidden states, and of the weights that training keeps: never narrower than 16 bits.
    pub fn state_bytes(self) -> f64 {
        match self {
            Precision::F32 => 4.0,
            Precision::F16 | Precision::BF16 | Precision::F8 | Precision::F4 => 2.0,
        }
    }

    /// The type in which attention itself is computed.
    pub fn attention_name(self) -> &'static str {
        match self {
            Precision::F32 | Precision::F16 | Precision::BF16 => self.name(),
            Precision::F8 | Precision::F4 => "bf16",
        }
    }

    /// Bytes of an element of a cache of keys and values.
    pub fn cache_bytes(self) -> f64 {
        match self {
            Precision::F32 => 4.0,
            Precision::F16 | Precision::BF16 => 2.0,
            Precision::F8 | Precision::F4 => 1.0,
        }
    }
}

/// How attention goes about its scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scores {
    /// Block by block, so that none reaches memory.
    Fused,
    /// All of them in memory, as before attention was fused.
    Kept,
}

/// A question for the planner.
#[derive(Clone, Debug)]
pub struct Task {
    /// The model.
    pub config: Config,
    /// What is done.
    pub work: Work,
    /// How many sequences, over the whole system.
    pub batch: usize,
    /// How long each is; of decoding, how many positions are seen.
    pub length: usize,
    /// In which type.
    pub precision: Precision,
    /// How attention goes about its scores.
    pub scores: Scores,
}

impl Task {
    /// How many tokens a step takes or makes.
    pub fn tokens(&self) -> f64 {
        match self.work {
            Work::Train | Work::Prefill => self.batch as f64 * self.length as f64,
            Work::Decode => self.batch as f64,
        }
    }
}
