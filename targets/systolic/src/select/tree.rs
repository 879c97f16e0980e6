//! Instructions as selection emits them: one tree of loops in the order of a single thread, with what each instruction
//! touches. `schedule` splits it into streams and derives the semaphores.

use crate::isa::Op;
use crate::limits::Limits;
use crate::program::{Access, Dma, Engine, Index, Space, Term, Var, VarInfo};
use smallvec::SmallVec;
use systole_compiler::types::DType;

/// A piece of the tree.
#[derive(Debug)]
pub(crate) enum Node {
    /// One instruction.
    Instruction(Box<Instruction>),
    /// A loop.
    Loop(Loop),
}

/// A loop over nodes.
#[derive(Debug)]
pub(crate) struct Loop {
    pub(crate) var: Var,
    pub(crate) start: Index,
    pub(crate) end: Index,
    pub(crate) step: i64,
    pub(crate) body: Vec<Node>,
}

/// An instruction with its effects.
#[derive(Debug)]
pub(crate) struct Instruction {
    pub(crate) engine: Engine,
    pub(crate) op: Op,
    pub(crate) touches: Vec<Touch>,
    /// Operands in HBM that it touches.
    pub(crate) calls: SmallVec<[u16; 1]>,
    pub(crate) source: u16,
}

/// Memory that an instruction reads or writes: bytes of some partitions of one turn of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Touch {
    pub(crate) buffer: usize,
    pub(crate) writes: bool,
    /// Adds to what is there, as the array does: ordered by the engine alone.
    pub(crate) accumulates: bool,
    pub(crate) low: u32,
    pub(crate) high: u32,
    pub(crate) first: u16,
    pub(crate) last: u16,
}

/// A piece of on-chip memory that no other buffer shares.
#[derive(Debug)]
pub(crate) struct Buffer {
    pub(crate) space: Space,
    /// Its first byte in each partition.
    pub(crate) base: u32,
    /// Bytes of one turn.
    pub(crate) bytes: u32,
    pub(crate) turns: u8,
    /// The loop with whose iterations it turns.
    pub(crate) turn: Option<Var>,
}

/// An access to a buffer, and to which.
#[derive(Clone, Debug)]
pub(crate) struct Ref {
    pub(crate) access: Access,
    pub(crate) buffer: usize,
}

/// A loop that is being built.
#[derive(Debug)]
struct Open {
    var: Var,
    start: Index,
    end: Index,
    step: i64,
    trips: Option<i64>,
    nodes: Vec<Node>,
}

/// What selection writes to.
#[derive(Debug)]
pub(crate) struct Builder<'a> {
    pub(crate) limits: &'a Limits,
    pub(crate) vars: Vec<VarInfo>,
    pub(crate) buffers: Vec<Buffer>,
    pub(crate) sources: Vec<String>,
    pub(crate) sbuf_used: u32,
    pub(crate) banks_used: u8,
    /// Predicted time of VectorE, ScalarE and GpSimdE, in nanoseconds.
    pub(crate) busy: [f64; 3],
    /// Whether every tile is kept once, so that as much as possible fits.
    pub(crate) single: bool,
    /// What lies in SBUF: names, bytes of one turn in each partition, turns.
    live: Vec<(String, u64, u8)>,
    /// The banks that all transposes share.
    scratch: Option<[usize; 2]>,
    open: Vec<Open>,
    nodes: Vec<Node>,
    source: u16,
}

impl<'a> Builder<'a> {
    pub(crate) fn new(limits: &'a Limits, vars: Vec<VarInfo>) -> Builder<'a> {
        Builder {
            limits,
            vars,
            buffers: Vec::new(),
            sources: Vec::new(),
            sbuf_used: 0,
            banks_used: 0,
            busy: [0.0; 3],
            single: false,
            live: Vec::new(),
            scratch: None,
            open: Vec::new(),
            nodes: Vec::new(),
            source: 0,
        }
    }

    /// Instructions that follow come from the tile operation of that name.
    pub(crate) fn source(&mut self, name: &str) {
        let found = self.sources.iter().position(|other| other == name);
        let index = found.unwrap_or_else(|| {
            self.sources.push(name.to_owned());
            self.sources.len() - 1
        });
        self.source = u16::try_from(index).unwrap_or(u16::MAX);
    }

    /// How deep the loops around are.
    pub(crate) fn depth(&self) -> usize {
        self.open.len()
    }

    /// The trips of all loops around, multiplied.
    pub(crate) fn repeats(&self) -> f64 {
        self.open.iter().map(|open| open.trips.unwrap_or(4) as f64).product()
    }

    pub(crate) fn begin(&mut self, name: &str, start: Index, end: Index, step: i64) -> Var {
        let var = Var(u16::try_from(self.vars.len()).expect("a kernel has few variables"));
        self.vars.push(VarInfo { name: name.to_owned(), range: None });
        let constant = start.terms.is_empty() && end.terms.is_empty();
        let trips = constant.then(|| (end.constant - start.constant + step - 1).div_euclid(step));
        self.open.push(Open { var, start, end, step, trips, nodes: Vec::new() });
        var
    }

    pub(crate) fn end(&mut self) {
        let open = self.open.pop().expect("a loop is open");
        let node = Node::Loop(Loop {
            var: open.var,
            start: open.start,
            end: open.end,
            step: open.step,
            body: open.nodes,
        });
        self.list().push(node);
    }

    fn list(&mut self) -> &mut Vec<Node> {
        match self.open.last_mut() {
            Some(open) => &mut open.nodes,
            None => &mut self.nodes,
        }
    }

    pub(crate) fn finish(self) -> (Vec<Node>, Vec<Buffer>, Vec<VarInfo>, Vec<String>, u32, u8) {
        let used = (self.sbuf_used, self.banks_used);
        (self.nodes, self.buffers, self.vars, self.sources, used.0, used.1)
    }

    /// How many turns a buffer of the innermost loop may take, up to `most`: its turns must follow one another when an
    /// inner loop starts again.
    fn turns(&self, most: u8) -> (u8, Option<Var>) {
        let Some(open) = self.open.last() else { return (1, None) };
        let turns = match open.trips {
            Some(trips) if self.open.len() > 1 => {
                (1..=most).rev().find(|&turns| trips % i64::from(turns) == 0).unwrap_or(1)
            }
            Some(trips) => most.min(u8::try_from(trips.max(1)).unwrap_or(u8::MAX)),
            None if self.open.len() == 1 => most,
            None => 1,
        };
        if turns == 1 { (1, None) } else { (turns, Some(open.var)) }
    }

    /// New SBUF memory of so many bytes in each partition, in several turns of the innermost loop.
    pub(crate) fn sbuf(&mut self, bytes: u64, turns: u8, name: &str) -> Result<usize, String> {
        let (mut turns, mut turn) = self.turns(turns);
        let bytes = bytes.max(1).div_ceil(32) * 32;
        if self.single {
            (turns, turn) = (1, None);
        }
        let end = u64::from(self.sbuf_used) + bytes * u64::from(turns);
        if end > u64::from(self.limits.sbuf_bytes) {
            return Err(self.too_large(name, bytes, turns));
        }
        self.live.push((name.to_owned(), bytes, turns));
        let base = self.sbuf_used;
        self.sbuf_used = u32::try_from(end).expect("it is below the limit");
        let bytes = u32::try_from(bytes).expect("it is below the limit");
        self.buffers.push(Buffer { space: Space::Sbuf, base, bytes, turns, turn });
        Ok(self.buffers.len() - 1)
    }

    /// What does not fit, beside what, and how large it could be.
    fn too_large(&self, name: &str, bytes: u64, turns: u8) -> String {
        let size = |bytes: u64, turns: u8| match turns {
            1 => format!("{bytes} bytes"),
            turns => format!("{turns} x {bytes} bytes"),
        };
        let limit = u64::from(self.limits.sbuf_bytes);
        let free = limit - u64::from(self.sbuf_used);
        let mut live: Vec<&(String, u64, u8)> = self.live.iter().collect();
        // The largest first; of equals, the one that was there first.
        live.sort_by_key(|(_, bytes, turns)| std::cmp::Reverse(bytes * u64::from(*turns)));
        let mut beside = String::new();
        for (at, (name, bytes, turns)) in live.iter().take(MOST_TOLD).enumerate() {
            let word = if at == 0 { " beside" } else { "," };
            beside += &format!("{word} {} ({})", told(name), size(*bytes, *turns));
        }
        if live.len() > MOST_TOLD {
            beside += &format!(" and {} more", live.len() - MOST_TOLD);
        }
        let most = free / u64::from(turns.max(1)) / 32 * 32;
        format!(
            "{TOO_LARGE}{} takes {} of each SBUF partition, where {free} of {limit} are free{beside}; the largest tile that would fit takes {most} bytes a partition",
            told(name),
            size(bytes, turns)
        )
    }

    /// A new bank of PSUM.
    pub(crate) fn bank(&mut self, turns: u8) -> Result<usize, String> {
        let (turns, turn) = self.turns(turns);
        if self.banks_used + turns > self.limits.psum_banks {
            return Err(format!("{TOO_LARGE}more than {} banks of PSUM", self.limits.psum_banks));
        }
        let bytes = self.limits.psum_bank_bytes;
        let base = u32::from(self.banks_used) * bytes;
        self.banks_used += turns;
        self.buffers.push(Buffer { space: Space::Psum, base, bytes, turns, turn });
        Ok(self.buffers.len() - 1)
    }

    /// Two banks that all transposes take in turn.
    pub(crate) fn scratch(&mut self) -> Result<[usize; 2], String> {
        if let Some(banks) = self.scratch {
            return Ok(banks);
        }
        let banks = [self.bank(1)?, self.bank(1)?];
        self.scratch = Some(banks);
        Ok(banks)
    }

    /// An access to a buffer at a byte of the current turn.
    pub(crate) fn access(
        &self,
        buffer: usize,
        dtype: DType,
        byte: i64,
        partition: (u16, u16),
        dims: SmallVec<[(i32, u32); 4]>,
    ) -> Ref {
        let found = &self.buffers[buffer];
        let mut offset = Index::constant(i64::from(found.base) + byte);
        if let Some(var) = found.turn {
            let term = (Term::Turn(var, found.turns), i64::from(found.bytes));
            offset.terms.push(term);
        }
        let access = Access {
            space: found.space,
            dtype,
            partition: Index::constant(i64::from(partition.0)),
            partitions: partition.1,
            offset,
            dims,
        };
        Ref { access, buffer }
    }

    pub(crate) fn touch(&self, found: &Ref, writes: bool) -> Touch {
        let buffer = &self.buffers[found.buffer];
        let low = found.access.offset.constant - i64::from(buffer.base);
        let span: i64 = found
            .access
            .dims
            .iter()
            .map(|&(stride, size)| i64::from(stride) * (i64::from(size) - 1))
            .sum();
        let bytes = (span + 1) * found.access.dtype.bytes() as i64;
        let first = u16::try_from(found.access.partition.constant).expect("partitions are few");
        Touch {
            buffer: found.buffer,
            writes,
            accumulates: false,
            low: u32::try_from(low).expect("an access starts in its buffer"),
            high: u32::try_from(low + bytes).expect("an access ends in its buffer"),
            first,
            last: first + found.access.partitions,
        }
    }

    /// Adds an instruction that reads and writes on-chip memory.
    pub(crate) fn emit(&mut self, engine: Engine, op: Op, reads: &[&Ref], writes: &[&Ref]) {
        let accumulates = matches!(op, Op::Matmul { accumulate: true, .. });
        let mut touches: Vec<Touch> = reads.iter().map(|found| self.touch(found, false)).collect();
        for found in writes {
            touches.push(Touch { accumulates, ..self.touch(found, true) });
        }
        let source = self.source;
        let instruction = Instruction { engine, op, touches, calls: SmallVec::new(), source };
        self.list().push(Node::Instruction(Box::new(instruction)));
    }

    /// Adds a copy between HBM and on-chip memory, or within HBM.
    pub(crate) fn dma(&mut self, engine: Engine, dma: Dma, touches: Vec<Touch>, calls: &[u16]) {
        let source = self.source;
        let instruction = Instruction {
            engine,
            op: Op::Dma(Box::new(dma)),
            touches,
            calls: SmallVec::from_slice(calls),
            source,
        };
        self.list().push(Node::Instruction(Box::new(instruction)));
    }

    /// All bytes between two of a buffer, in some partitions.
    pub(crate) fn region(
        &self,
        buffer: usize,
        writes: bool,
        bytes: (u32, u32),
        partitions: (u16, u16),
    ) -> Touch {
        Touch {
            buffer,
            writes,
            accumulates: false,
            low: bytes.0,
            high: bytes.1,
            first: partitions.0,
            last: partitions.1,
        }
    }
}

/// A tile by its name; what has none is called what it is.
fn told(name: &str) -> String {
    if name.contains(' ') { name.to_owned() } else { format!("%{name}") }
}

/// So many buffers are told of where one does not fit.
const MOST_TOLD: usize = 12;

/// How a reason starts that a smaller tile would mend.
pub(crate) const TOO_LARGE: &str = "too large: ";
