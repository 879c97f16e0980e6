//! Memory that generated code reads and writes: aligned to cache lines, zero at first.
#![expect(
    unsafe_code,
    reason = "memory is taken from the allocator with an alignment, and shared as bytes"
)]

use bytes::Bytes;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

const ALIGNMENT: usize = 64;

/// A block of bytes.
pub(crate) struct Block {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the block owns its memory, as a box does.
unsafe impl Send for Block {}
// SAFETY: shared access only reads; writing goes through raw addresses under the rules of `run`.
unsafe impl Sync for Block {}

impl Block {
    /// A block of that size; `None` where there is no memory for it.
    pub(crate) fn new(bytes: usize) -> Option<Block> {
        let layout = Layout::from_size_align(bytes.max(1), ALIGNMENT).ok()?;
        // SAFETY: the size is not zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        Some(Block { start, bytes })
    }

    /// A block that starts with those bytes.
    pub(crate) fn copy_of(data: &[u8]) -> Option<Block> {
        let mut block = Block::new(data.len())?;
        block.write(data);
        Some(block)
    }

    /// Writes those bytes to its start; there are no more than it has.
    pub(crate) fn write(&mut self, data: &[u8]) {
        assert!(data.len() <= self.bytes, "{} bytes into a block of {}", data.len(), self.bytes);
        // SAFETY: the block has as many bytes, and it is not shared.
        unsafe { self.start.as_ptr().copy_from_nonoverlapping(data.as_ptr(), data.len()) };
    }

    /// How many bytes it has.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The address of the first byte.
    pub(crate) fn address(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// The block as shared bytes.
    pub(crate) fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the bytes were initialised when the block was made, and nobody writes while it is shared as a slice.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let layout = Layout::from_size_align(self.bytes.max(1), ALIGNMENT)
            .expect("it was made with this layout");
        // SAFETY: the memory was taken with this layout.
        unsafe { dealloc(self.start.as_ptr(), layout) };
    }
}
