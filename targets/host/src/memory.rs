//! Memory that generated code reads and writes: aligned to cache lines, zero at first. Large blocks lie in huge pages
//! where the system has them, so that walking over them does not wait for page tables.
#![expect(
    unsafe_code,
    reason = "memory is taken from the allocator or the system with an alignment, and shared as bytes"
)]

use bytes::Bytes;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

const ALIGNMENT: usize = 64;

/// A block of bytes.
pub(crate) struct Block {
    start: NonNull<u8>,
    bytes: usize,
    /// Where it was mapped, and how many bytes; otherwise it is the allocator's.
    #[cfg(target_os = "linux")]
    mapped: Option<(NonNull<u8>, usize)>,
}

// SAFETY: the block owns its memory, as a box does.
unsafe impl Send for Block {}
// SAFETY: shared access only reads; writing goes through raw addresses under the rules of `run`.
unsafe impl Sync for Block {}

/// The size and alignment of a huge page; smaller blocks are the allocator's.
#[cfg(target_os = "linux")]
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Maps zeroed memory that starts with a huge page: its start, and the whole mapping. Nothing is taken before it is
/// touched, and no more than the bytes that are asked for.
#[cfg(target_os = "linux")]
fn map(bytes: usize) -> Option<(NonNull<u8>, NonNull<u8>, usize)> {
    let length = bytes.checked_add(HUGE_PAGE_BYTES)?;
    // SAFETY: a new private mapping touches nothing that exists.
    let place = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if place == libc::MAP_FAILED {
        return None;
    }
    let place = NonNull::new(place.cast::<u8>())?;
    let start = place.as_ptr().wrapping_add(place.as_ptr().align_offset(HUGE_PAGE_BYTES));
    // SAFETY: the advice is about a part of the mapping; a system without huge pages refuses it, which changes nothing.
    unsafe { libc::madvise(start.cast(), bytes, libc::MADV_HUGEPAGE) };
    Some((NonNull::new(start)?, place, length))
}

impl Block {
    /// A block of that size; `None` where there is no memory for it.
    pub(crate) fn new(bytes: usize) -> Option<Block> {
        #[cfg(target_os = "linux")]
        if bytes >= HUGE_PAGE_BYTES {
            let (start, place, length) = map(bytes)?;
            return Some(Block { start, bytes, mapped: Some((place, length)) });
        }
        let layout = Layout::from_size_align(bytes.max(1), ALIGNMENT).ok()?;
        // SAFETY: the size is not zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        Some(Block {
            start,
            bytes,
            #[cfg(target_os = "linux")]
            mapped: None,
        })
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
        #[cfg(target_os = "linux")]
        if let Some((place, length)) = self.mapped {
            // SAFETY: the block owns the mapping, which nobody uses any more.
            unsafe { libc::munmap(place.as_ptr().cast(), length) };
            return;
        }
        let layout = Layout::from_size_align(self.bytes.max(1), ALIGNMENT)
            .expect("it was made with this layout");
        // SAFETY: the memory was taken with this layout.
        unsafe { dealloc(self.start.as_ptr(), layout) };
    }
}
