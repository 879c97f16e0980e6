//! The allocator of the binary: the system's, with a count of what is live. Where a limit would be passed, or the system
//! has no more, the process ends with exit code 6 and one prepared message.
#![expect(
    unsafe_code,
    reason = "a global allocator cannot be written without; the argument stands at each block"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static LIMIT: AtomicUsize = AtomicUsize::new(usize::MAX);
static ENDING: AtomicBool = AtomicBool::new(false);
static LAST_WORDS: OnceLock<LastWords> = OnceLock::new();

/// What is written where a limit ends the process. It is made ahead, because nothing can be allocated then.
#[derive(Debug)]
pub(super) struct LastWords {
    /// For standard error.
    pub(super) text: String,
    /// For standard output, where JSON was asked for.
    pub(super) json: Option<String>,
}

/// Sets the limit for the rest of the process. Only the first call's words are kept.
pub(super) fn set_limit(bytes: usize, words: LastWords) {
    let _ = LAST_WORDS.set(words);
    LIMIT.store(bytes, Ordering::Relaxed);
}

/// Writes the words and ends the process with that code, without running anything else: other threads may hold locks,
/// so neither destructors nor the buffers of standard output can be trusted.
pub(super) fn end(words: &LastWords, code: i32) -> ! {
    // Several threads may find the limit passed; the first one speaks, and its exit ends the others.
    if ENDING.swap(true, Ordering::Relaxed) {
        loop {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    write_all(2, words.text.as_bytes());
    if let Some(json) = &words.json {
        write_all(1, json.as_bytes());
    }
    // SAFETY: `_exit` takes any code and does not return; it touches no memory of ours.
    unsafe { libc::_exit(code) }
}

fn write_all(file: i32, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        // SAFETY: the pointer and length are those of a live slice, which `write` only reads.
        let written = unsafe { libc::write(file, bytes.as_ptr().cast(), bytes.len()) };
        match usize::try_from(written) {
            Ok(written) if written > 0 => bytes = &bytes[written.min(bytes.len())..],
            _ => return,
        }
    }
}

#[cold]
fn out_of_memory() -> ! {
    match LAST_WORDS.get() {
        Some(words) => end(words, 6),
        None => {
            write_all(2, b"error[limit]: out of memory\n");
            // SAFETY: as in `end`.
            unsafe { libc::_exit(6) }
        }
    }
}

fn grow(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
    if live > LIMIT.load(Ordering::Relaxed) {
        out_of_memory();
    }
}

fn shrink(bytes: usize) {
    LIVE.fetch_sub(bytes, Ordering::Relaxed);
}

fn checked(pointer: *mut u8) -> *mut u8 {
    if pointer.is_null() {
        out_of_memory();
    }
    pointer
}

// SAFETY: every call goes to the system's allocator with the very arguments that came, and gives back its very answer,
// so its guarantees are ours; counting touches only atomics and neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller's promise about `layout` is passed on.
        checked(unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller's promise about `layout` is passed on.
        checked(unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        shrink(layout.size());
        // SAFETY: the caller's promise that `pointer` came from here with `layout` is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Growing may copy, and then both blocks are live for a moment; only the larger is counted.
        if size > layout.size() {
            grow(size - layout.size());
        } else {
            shrink(layout.size() - size);
        }
        // SAFETY: the caller's promises about `pointer`, `layout` and `size` are passed on.
        checked(unsafe { System.realloc(pointer, layout, size) })
    }
}
