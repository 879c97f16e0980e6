//! The memory of a run: arena, scratch, results, and the tables of addresses. It serves one run after another, so that
//! those after the first allocate nothing.
#![expect(unsafe_code, reason = "tables of raw addresses move between threads with their memory")]

use crate::executable::{Executable, HostError, Place, Spot};
use crate::memory::Block;
use crate::run::Given;
use bytes::Bytes;
use systole_compiler::tensor::Tensor;
use systole_compiler::types::TensorType;

/// Memory that runs of one executable use, one after another. Afterwards it holds the results of the last.
pub struct Workspace {
    /// Which executable it fits.
    owner: u64,
    pub(crate) arena: Block,
    /// One block a thread.
    pub(crate) scratch: Vec<Block>,
    /// The results that have memory of their own; taken ones are made again.
    blocks: Vec<Option<Block>>,
    /// Copies of inputs, by position, where a step writes to them or they are not aligned.
    copies: Vec<Option<Block>>,
    /// Results that lie elsewhere or in another order, by position.
    read: Vec<Option<Block>>,
    /// The address of each buffer.
    pub(crate) addresses: Vec<*mut u8>,
    /// The operands of one call.
    pub(crate) table: Vec<*mut u8>,
    /// The scalars of one call.
    pub(crate) scalars: Vec<i64>,
}

// SAFETY: the addresses are of this workspace's own blocks, of constants that the executable owns, and of inputs that
// live as long as the run that put them there; they are only followed during a run, which has the workspace to itself.
unsafe impl Send for Workspace {}
// SAFETY: shared access reads results only, and nobody writes them meanwhile.
unsafe impl Sync for Workspace {}

impl std::fmt::Debug for Workspace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workspace")
            .field("arena_bytes", &self.arena.bytes())
            .field("threads", &self.scratch.len())
            .finish_non_exhaustive()
    }
}

/// Results that left a workspace.
pub(crate) struct Taken {
    /// Those that have memory of their own.
    pub(crate) blocks: Vec<Bytes>,
    /// The copies of inputs.
    pub(crate) copies: Vec<Option<Bytes>>,
}

fn block(bytes: usize) -> Result<Block, HostError> {
    Block::new(bytes).ok_or(HostError::Memory(bytes))
}

impl Executable {
    /// A workspace for runs of this executable.
    pub fn workspace(&self) -> Result<Workspace, HostError> {
        let none = |count: usize| (0..count).map(|_| None).collect();
        Ok(Workspace {
            owner: self.id,
            arena: block(self.arena_bytes)?,
            scratch: Vec::new(),
            blocks: none(self.output_bytes.len()),
            copies: none(self.input_count()),
            read: none(self.output_count()),
            addresses: Vec::with_capacity(self.places.len()),
            table: Vec::new(),
            scalars: Vec::new(),
        })
    }
}

impl Workspace {
    /// A workspace for the steps that compute constants. Inputs and results have no memory then, and a verified module
    /// does not touch them.
    pub(crate) fn for_load(executable: &Executable, threads: usize) -> Result<Self, HostError> {
        let mut workspace = executable.workspace()?;
        workspace.add_scratch(executable, threads)?;
        let arena = workspace.arena.address();
        let address = |place: &Place| match place.spot {
            Spot::Constant(index) => executable.constants[index].as_ptr().cast_mut(),
            Spot::Arena(offset) => arena.wrapping_add(offset),
            Spot::Input(_) | Spot::InputCopy(_) | Spot::Output(_) => std::ptr::null_mut(),
        };
        workspace.addresses.extend(executable.places.iter().map(address));
        Ok(workspace)
    }

    /// Makes it ready for a run: memory that is missing, copies of inputs, and the address of each buffer.
    pub(crate) fn prepare(
        &mut self,
        executable: &Executable,
        threads: usize,
        inputs: Given<'_>,
    ) -> Result<(), HostError> {
        if self.owner != executable.id {
            return Err(HostError::Input("the workspace is of another program".to_owned()));
        }
        self.add_scratch(executable, threads)?;
        for (kept, &bytes) in self.blocks.iter_mut().zip(&executable.output_bytes) {
            if kept.is_none() {
                *kept = Some(block(bytes)?);
            }
        }
        self.addresses.clear();
        for place in &executable.places {
            let address = match place.spot {
                Spot::Constant(index) => executable.constants[index].as_ptr().cast_mut(),
                Spot::Output(index) => {
                    self.blocks[index].as_ref().expect("it was just made").address()
                }
                Spot::Arena(offset) => self.arena.address().wrapping_add(offset),
                Spot::Input(index) => {
                    let input = inputs(index);
                    let data = input.bytes();
                    if data.as_ptr().align_offset(input.dtype().bytes()) == 0 {
                        data.as_ptr().cast_mut()
                    } else {
                        self.copied(place, index, input)?
                    }
                }
                Spot::InputCopy(index) => self.copied(place, index, inputs(index))?,
            };
            self.addresses.push(address);
        }
        Ok(())
    }

    fn add_scratch(&mut self, executable: &Executable, threads: usize) -> Result<(), HostError> {
        while self.scratch.len() < threads {
            self.scratch.push(block(executable.scratch_bytes)?);
        }
        Ok(())
    }

    /// The address of a copy of an input, in the order in which its buffer wants it.
    fn copied(
        &mut self,
        place: &Place,
        index: usize,
        input: &Tensor,
    ) -> Result<*mut u8, HostError> {
        let packed;
        let data: &[u8] = if place.is_row_major() {
            input.bytes()
        } else {
            packed = place.layout.pack(input);
            &packed
        };
        let mut kept = match self.copies[index].take() {
            Some(kept) if kept.bytes() == data.len() => kept,
            Some(_) | None => block(data.len())?,
        };
        kept.write(data);
        Ok(self.copies[index].insert(kept).address())
    }

    /// Copies the results that lie elsewhere or in another order, after a run.
    pub(crate) fn read_results(
        &mut self,
        executable: &Executable,
        inputs: Given<'_>,
    ) -> Result<(), HostError> {
        for index in 0..self.read.len() {
            let place = executable.output(index);
            if self.lies_here(place) {
                continue;
            }
            let mut kept = match self.read[index].take() {
                Some(kept) => kept,
                None => block(place.ty.bytes())?,
            };
            let from: &[u8] = match place.spot {
                Spot::Input(index) => inputs(index).bytes(),
                Spot::InputCopy(_) | Spot::Constant(_) | Spot::Output(_) | Spot::Arena(_) => {
                    self.memory(executable, place)
                }
            };
            if place.is_row_major() {
                kept.write(&from[..place.ty.bytes()]);
            } else {
                kept.write(place.layout.unpack(&place.ty, from).bytes());
            }
            self.read[index] = Some(kept);
        }
        Ok(())
    }

    /// The type and the elements, in row-major order, of a result of the last run, which succeeded.
    ///
    /// # Panics
    /// If the workspace is of another executable, or there was no such run.
    pub fn result<'w>(
        &'w self,
        executable: &'w Executable,
        index: usize,
    ) -> (&'w TensorType, &'w [u8]) {
        assert_eq!(self.owner, executable.id, "the workspace is of another program");
        let place = executable.output(index);
        let data = if self.lies_here(place) {
            self.memory(executable, place)
        } else {
            self.read[index].as_ref().expect("the run has read it").as_ref()
        };
        (&place.ty, &data[..place.ty.bytes()])
    }

    /// Whether a result can be shown as it lies.
    fn lies_here(&self, place: &Place) -> bool {
        let kept = match place.spot {
            Spot::Output(_) | Spot::InputCopy(_) | Spot::Constant(_) => true,
            Spot::Input(_) | Spot::Arena(_) => false,
        };
        kept && place.is_row_major()
    }

    fn memory<'w>(&'w self, executable: &'w Executable, place: &Place) -> &'w [u8] {
        let kept = |block: &'w Option<Block>| block.as_ref().expect("a run has made it").as_ref();
        match place.spot {
            Spot::Output(index) => kept(&self.blocks[index]),
            Spot::InputCopy(index) => kept(&self.copies[index]),
            Spot::Constant(index) => &executable.constants[index],
            Spot::Input(_) | Spot::Arena(_) => {
                unreachable!("results lie in memory of their own, or in the caller's")
            }
        }
    }

    /// Gives the memory of results away; what is missing is made by the next run.
    pub(crate) fn take_results(&mut self) -> Taken {
        let taken = |block: &mut Option<Block>| block.take().map(Block::into_bytes);
        Taken {
            blocks: self.blocks.iter_mut().filter_map(taken).collect(),
            copies: self.copies.iter_mut().map(taken).collect(),
        }
    }
}
