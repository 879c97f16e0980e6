//! How a model is divided among chips, and how that is written: `dp=64,tp=8,pp=16`.

use super::platform::Axes;
use std::fmt;

/// How a model is divided. The product of `dp`, `tp` and `pp` is the number of chips.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mesh {
    /// Data parallel: copies of the model, each of which gets a part of the sequences.
    pub dp: usize,
    /// Tensor parallel: parts of every weight; tokens between the products are divided too (sequence parallel).
    pub tp: usize,
    /// Pipeline parallel: groups of layers.
    pub pp: usize,
    /// Expert parallel: how many of the data-parallel copies share the experts among them.
    pub ep: usize,
    /// Sequences that go through a pipeline together.
    pub microbatch: usize,
    /// Groups of layers on each chip: more of them make the pipeline's bubble smaller.
    pub interleave: usize,
    /// What the backward pass computes anew.
    pub recompute: Recompute,
    /// What data-parallel copies share of weights, gradients and optimizer.
    pub shard: Shard,
    /// Which dimension lies nearer, behind tensor parallel.
    pub order: Order,
}

/// What the backward pass computes anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Recompute {
    /// The scores of attention, and what is cheap: norms, and products of gates.
    Attention,
    /// Every layer, from its input.
    Layers,
}

/// What data-parallel copies share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shard {
    /// The state of the optimizer.
    Optimizer,
    /// Weights and gradients too: they are gathered layer by layer.
    Weights,
}

/// Which dimension of a mesh lies nearer, behind tensor parallel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// The pipeline's neighbours are near, copies of the model are far.
    PipelineInside,
    /// Copies are near, the pipeline's neighbours are far.
    DataInside,
}

impl Mesh {
    /// How many chips it has.
    pub fn chips(&self) -> usize {
        self.dp * self.tp * self.pp
    }

    /// The chips that share every weight.
    pub(super) fn tensor_axes(&self) -> Axes {
        vec![(self.tp, 1)]
    }

    fn data_stride(&self) -> usize {
        match self.order {
            Order::PipelineInside => self.tp * self.pp,
            Order::DataInside => self.tp,
        }
    }

    /// The copies of the model.
    pub(super) fn data_axes(&self) -> Axes {
        vec![(self.dp, self.data_stride())]
    }

    /// The copies that share the experts.
    pub(super) fn expert_axes(&self) -> Axes {
        vec![(self.ep, self.data_stride())]
    }

    /// The copies of one expert.
    pub(super) fn expert_copy_axes(&self) -> Axes {
        vec![(self.dp / self.ep, self.data_stride() * self.ep)]
    }

    /// Two neighbours of a pipeline.
    pub(super) fn pipeline_axes(&self) -> Axes {
        let stride = match self.order {
            Order::PipelineInside => self.tp,
            Order::DataInside => self.tp * self.dp,
        };
        if self.pp > 1 { vec![(2, stride)] } else { Vec::new() }
    }
}

impl fmt::Display for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dp={},tp={},pp={}", self.dp, self.tp, self.pp)?;
        if self.ep > 1 { write!(f, ",ep={}", self.ep) } else { Ok(()) }
    }
}

impl Recompute {
    /// How it is written.
    pub fn name(self) -> &'static str {
        match self {
            Recompute::Attention => "attention",
            Recompute::Layers => "layers",
        }
    }
}

impl Shard {
    /// How it is written.
    pub fn name(self) -> &'static str {
        match self {
            Shard::Optimizer => "optimizer",
            Shard::Weights => "weights",
        }
    }
}

/// What a user fixes of a mesh; the search decides the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are those of a mesh")]
pub struct Fixed {
    pub dp: Option<usize>,
    pub tp: Option<usize>,
    pub pp: Option<usize>,
    pub ep: Option<usize>,
    pub microbatch: Option<usize>,
    pub interleave: Option<usize>,
    pub recompute: Option<Recompute>,
    pub shard: Option<Shard>,
}

impl Fixed {
    /// Reads `dp=64,tp=8,pp=16,microbatch=1,interleave=3,recompute=layers,shard=weights`, any part of it.
    pub fn parse(text: &str) -> Result<Fixed, String> {
        let mut fixed = Fixed::default();
        for part in text.split(',') {
            let (key, value) = part
                .split_once('=')
                .ok_or_else(|| format!("`{part}` is not KEY=VALUE, such as tp=8"))?;
            let (key, value) = (key.trim(), value.trim());
            let size = || match value.parse::<usize>() {
                Ok(size) if (1..=1 << 24).contains(&size) => Ok(Some(size)),
                Ok(_) | Err(_) => {
                    Err(format!("{key} is `{value}`, not a whole number from 1 to {}", 1 << 24))
                }
            };
            match key {
                "dp" => fixed.dp = size()?,
                "tp" => fixed.tp = size()?,
                "pp" => fixed.pp = size()?,
                "ep" => fixed.ep = size()?,
                "microbatch" => fixed.microbatch = size()?,
                "interleave" => fixed.interleave = size()?,
                "recompute" => {
                    fixed.recompute = match value {
                        "attention" => Some(Recompute::Attention),
                        "layers" => Some(Recompute::Layers),
                        _ => {
                            return Err(format!("recompute is `{value}`, not attention or layers"));
                        }
                    }
                }
                "shard" => {
                    fixed.shard = match value {
                        "optimizer" => Some(Shard::Optimizer),
                        "weights" => Some(Shard::Weights),
                        _ => return Err(format!("shard is `{value}`, not optimizer or weights")),
                    }
                }
                _ => {
                    return Err(format!(
                        "`{key}` is not a part of a mesh; they are dp, tp, pp, ep, microbatch, interleave, recompute, \
                         shard"
                    ));
                }
            }
        }
        Ok(fixed)
    }
}
