//! Devices that nobody compiles for: each kernel takes what its products take at the device's peak, or its tensors at the
//! bandwidth of its memory, whichever is longer; kernels run one after another, exchanges beside them.

use crate::carrier::Carrier;
use crate::error::{Error, ErrorKind};
use crate::profile::{self, Work};
use crate::timeline::Span;
use std::collections::BTreeMap;
use systole_compiler::diagnostic::Code;
use systole_compiler::module::{BufferId, Module, Step};
use systole_interconnect::Device;

/// No run has more calls.
const MOST_SPANS: usize = 1 << 20;

/// What happens when on one rank.
pub(crate) fn spans(
    module: &Module,
    device: &Device,
    carrier: &Carrier<'_>,
    scalars: &BTreeMap<String, i64>,
) -> Result<Vec<Span>, Error> {
    let work: Vec<Work> = module.kernels.iter().map(|(_, kernel)| profile::work(kernel)).collect();
    let mut walk = Walk {
        module,
        device,
        carrier,
        scalars,
        work,
        spans: Vec::new(),
        written: BTreeMap::new(),
        read: BTreeMap::new(),
        last_call: None,
        last_exchange: None,
    };
    walk.steps(&module.steps)?;
    Ok(walk.spans)
}

struct Walk<'a> {
    module: &'a Module,
    device: &'a Device,
    carrier: &'a Carrier<'a>,
    scalars: &'a BTreeMap<String, i64>,
    work: Vec<Work>,
    spans: Vec<Span>,
    /// For each memory, the span that wrote it last, and those that read it since.
    written: BTreeMap<usize, usize>,
    read: BTreeMap<usize, Vec<usize>>,
    last_call: Option<usize>,
    last_exchange: Option<usize>,
}

impl Walk<'_> {
    fn steps(&mut self, steps: &[Step]) -> Result<(), Error> {
        for step in steps {
            if self.spans.len() > MOST_SPANS {
                return Err(Error::limit(format!("a run has more than {MOST_SPANS} calls")));
            }
            match step {
                Step::Kernel { kernel, operands, origins, .. } => {
                    let called = &self.module.kernels[*kernel];
                    let roles = called.operands.iter().map(|(_, operand)| operand.role);
                    let roles: Vec<_> = operands.iter().copied().zip(roles).collect();
                    let some = |wanted: bool| {
                        let all = roles.iter().filter(move |(_, role)| match wanted {
                            true => role.writes(),
                            false => role.reads(),
                        });
                        all.map(|(buffer, _)| *buffer).collect::<Vec<BufferId>>()
                    };
                    let (reads, writes) = (some(false), some(true));
                    let work = self.work[kernel.index()].clone();
                    self.call(&called.name, origins, work, &reads, &writes)?;
                }
                Step::Copy { from, to } => {
                    let bytes =
                        self.module.buffers[*from].bytes() + self.module.buffers[*to].bytes();
                    let work = Work { flops: BTreeMap::new(), bytes: bytes as f64 };
                    self.call("copy", &[], work, &[*from], &[*to])?;
                }
                Step::Collective { op, operands, result, origins } => {
                    let Some(&operand) = operands.first() else { continue };
                    let (needs, ready_us) = self.waits(&[operand], &[*result], self.last_exchange);
                    let ty = self.module.buffers[operand].ty.clone();
                    let carried = self
                        .carrier
                        .carry(op, &ty, ready_us)
                        .map_err(|why| Error::new(ErrorKind::Program, Code::Unsupported, why))?;
                    self.last_exchange = Some(self.spans.len());
                    self.note(&[operand], &[*result]);
                    self.spans.push(Span::of_exchange(&carried, origins.clone(), needs));
                }
                Step::If { condition, then, otherwise } => {
                    let taken = self.number(*condition)?;
                    self.steps(if taken != 0 { then } else { otherwise })?;
                }
                Step::While { before, condition, body } => {
                    for _ in 0..self.number(*condition)? {
                        self.steps(before)?;
                        self.steps(body)?;
                    }
                    self.steps(before)?;
                }
                Step::For { count, body, .. } => {
                    for _ in 0..*count {
                        self.steps(body)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The number of a tensor that decides the time.
    fn number(&self, buffer: BufferId) -> Result<i64, Error> {
        let name = &self.module.buffers[buffer].name;
        self.scalars.get(name).copied().ok_or_else(|| {
            let message = format!("the time depends on the value of %{name}");
            Error::new(ErrorKind::Input, Code::Input, message)
                .with_help(format!("give it with --scalar {name}=N"))
        })
    }

    fn call(
        &mut self,
        name: &str,
        origins: &[String],
        work: Work,
        reads: &[BufferId],
        writes: &[BufferId],
    ) -> Result<(), Error> {
        let (needs, start_us) = self.waits(reads, writes, self.last_call);
        let mut compute_us = 0.0;
        for (dtype, flops) in &work.flops {
            let peak = self.device.peak_tflops(dtype.name()).ok_or_else(|| {
                Error::unsupported(format!("{} states no peak for {dtype}", self.device.name))
            })?;
            compute_us += flops / (peak * 1e6 * self.device.compute_efficiency);
        }
        let rate = self.device.memory_gbs * 1e3 * self.device.memory_efficiency;
        let memory_us = work.bytes / rate;
        let cause = if compute_us >= memory_us { "compute" } else { "memory" };
        self.last_call = Some(self.spans.len());
        self.note(reads, writes);
        self.spans.push(Span {
            name: name.to_owned(),
            origins: origins.to_vec(),
            start_us,
            end_us: start_us + self.device.kernel_us + compute_us.max(memory_us),
            cause,
            needs,
            exchange: None,
        });
        Ok(())
    }

    /// What must be complete before buffers are read and written, and when it is.
    fn waits(
        &self,
        reads: &[BufferId],
        writes: &[BufferId],
        last: Option<usize>,
    ) -> (Vec<usize>, f64) {
        let memory = |buffer: &BufferId| self.module.memory(*buffer).index();
        let mut needs: Vec<usize> = last.into_iter().collect();
        needs.extend(
            reads.iter().chain(writes).filter_map(|buffer| self.written.get(&memory(buffer))),
        );
        needs.extend(
            writes.iter().filter_map(|buffer| self.read.get(&memory(buffer))).flatten().copied(),
        );
        needs.sort_unstable();
        needs.dedup();
        let ready = needs.iter().map(|&span| self.spans[span].end_us).fold(0.0, f64::max);
        (needs, ready)
    }

    /// Remembers that the next span reads and writes buffers.
    fn note(&mut self, reads: &[BufferId], writes: &[BufferId]) {
        let next = self.spans.len();
        for &buffer in reads {
            self.read.entry(self.module.memory(buffer).index()).or_default().push(next);
        }
        for &buffer in writes {
            let memory = self.module.memory(buffer).index();
            self.written.insert(memory, next);
            self.read.remove(&memory);
        }
    }
}
