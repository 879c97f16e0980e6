//! Compiles functions and puts them into executable memory, and prints them.
#![expect(unsafe_code, reason = "code made at run time is called through its address, and freed")]

use crate::executable::HostError;
use crate::function;
use crate::helpers::TABLE;
use crate::pool::Pool;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::Function;
use cranelift_codegen::isa::TargetIsa;
use cranelift_codegen::{CompiledCode, Context};
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{FuncId, Linkage, Module, ModuleReloc, default_libcall_names};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What a listing shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    /// Cranelift's intermediate code.
    Clif,
    /// The machine's assembly text.
    Asm,
}

/// A compiled kernel: operands, scalars, first and last position, scratch.
pub(crate) type Entry = unsafe extern "C" fn(*const *mut u8, *const i64, i64, i64, *mut u8);

/// Functions in executable memory, which is freed with this.
pub(crate) struct Code {
    module: Option<JITModule>,
    entries: Vec<Entry>,
}

// SAFETY: after it is finished, the module is only freed, by its one owner; the functions are plain code, and reading
// their addresses changes nothing.
unsafe impl Send for Code {}
// SAFETY: see above.
unsafe impl Sync for Code {}

impl Drop for Code {
    fn drop(&mut self) {
        if let Some(module) = self.module.take() {
            // SAFETY: entries are called only by the executable that owns this, and it is gone.
            unsafe { module.free_memory() };
        }
    }
}

impl Code {
    /// The function of that number.
    pub(crate) fn entry(&self, number: usize) -> Entry {
        self.entries[number]
    }
}

/// Declares the helpers, in the order of their table, so that their numbers are their places.
pub(crate) fn declare_helpers(module: &mut dyn Module) -> Result<(), String> {
    let convention = module.isa().default_call_conv();
    for helper in TABLE.iter() {
        module
            .declare_function(helper.name, Linkage::Import, &helper.signature(convention))
            .map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// The machine code of a function.
struct Compiled {
    bytes: Vec<u8>,
    alignment: u64,
    relocations: Vec<ModuleReloc>,
}

/// The number of the first function that is not a helper.
pub(crate) fn first_number() -> u32 {
    u32::try_from(TABLE.len()).expect("there are few helpers")
}

/// Compiles functions, each made by `make` with its number and something to keep, on the threads of a pool, and makes
/// them callable.
pub(crate) fn compile<N: Send>(
    isa: &Arc<dyn TargetIsa>,
    count: usize,
    make: &(dyn Fn(usize, u32) -> (Function, N) + Sync),
    pool: &dyn Pool,
    threads: usize,
    cancelled: Option<&(dyn Fn() -> bool + Sync)>,
) -> Result<(Code, Vec<N>), HostError> {
    let unsupported =
        |error: cranelift_module::ModuleError| HostError::Unsupported(error.to_string());
    let mut builder = JITBuilder::with_isa(isa.clone(), default_libcall_names());
    for helper in TABLE.iter() {
        builder.symbol(helper.name, helper.address);
    }
    let mut module = JITModule::new(builder);
    declare_helpers(&mut module).map_err(HostError::Unsupported)?;
    let compiled = compile_all(isa.as_ref(), count, make, pool, threads, cancelled)?;
    let signature = function::signature(isa.default_call_conv());
    let mut numbers: Vec<FuncId> = Vec::new();
    let mut kept = Vec::new();
    for (index, (compiled, keep)) in compiled.into_iter().enumerate() {
        let id = module
            .declare_function(&format!("kernel{index}"), Linkage::Local, &signature)
            .map_err(unsupported)?;
        module
            .define_function_bytes(id, compiled.alignment, &compiled.bytes, &compiled.relocations)
            .map_err(unsupported)?;
        numbers.push(id);
        kept.push(keep);
    }
    module.finalize_definitions().map_err(unsupported)?;
    let entries = numbers
        .iter()
        .map(|&id| {
            let address = module.get_finalized_function(id);
            // SAFETY: the function was compiled with this very signature and the C calling convention.
            unsafe { std::mem::transmute::<*const u8, Entry>(address) }
        })
        .collect();
    Ok((Code { module: Some(module), entries }, kept))
}

/// A compiled function and what was kept of it.
type Made<N> = (Compiled, N);
/// Such functions, each with its number, as they come.
type Unsorted<N> = Vec<(usize, Result<Made<N>, String>)>;

fn compile_all<N: Send>(
    isa: &dyn TargetIsa,
    count: usize,
    make: &(dyn Fn(usize, u32) -> (Function, N) + Sync),
    pool: &dyn Pool,
    threads: usize,
    cancelled: Option<&(dyn Fn() -> bool + Sync)>,
) -> Result<Vec<Made<N>>, HostError> {
    let next = AtomicUsize::new(0);
    let all: Mutex<Unsorted<N>> = Mutex::new(Vec::new());
    let is_over = || cancelled.is_some_and(|cancelled| cancelled());
    let work = |_: usize| {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count || is_over() {
                return;
            }
            let number = first_number() + u32::try_from(index).expect("there are few kernels");
            let (function, keep) = make(index, number);
            let made = compile_one(isa, function).map(|compiled| (compiled, keep));
            all.lock().unwrap_or_else(PoisonError::into_inner).push((index, made));
        }
    };
    if threads > 1 && count > 1 {
        pool.run(threads.min(count), &work);
    }
    // All of it, or what the pool left undone.
    work(0);
    let mut all = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    if all.len() < count {
        return Err(HostError::Cancelled);
    }
    all.sort_by_key(|(index, _)| *index);
    all.into_iter().map(|(_, made)| made.map_err(HostError::Unsupported)).collect()
}

fn machine_code(
    isa: &dyn TargetIsa,
    function: Function,
    disassemble: bool,
) -> Result<(Context, CompiledCode), String> {
    let mut context = Context::for_function(function);
    context.set_disasm(disassemble);
    context
        .compile(isa, &mut ControlPlane::default())
        .map_err(|error| format!("{:?}", error.inner))?;
    let compiled = context.take_compiled_code().ok_or("no code was made")?;
    Ok((context, compiled))
}

fn compile_one(isa: &dyn TargetIsa, function: Function) -> Result<Compiled, String> {
    let (context, compiled) = machine_code(isa, function, false)?;
    let id = FuncId::from_u32(0);
    let relocations = compiled
        .buffer
        .relocs()
        .iter()
        .map(|relocation| ModuleReloc::from_mach_reloc(relocation, &context.func, id))
        .collect();
    let alignment = u64::from(compiled.buffer.alignment)
        .max(u64::from(isa.function_alignment().minimum))
        .max(isa.symbol_alignment());
    Ok(Compiled { bytes: compiled.code_buffer().to_vec(), alignment, relocations })
}

/// A function as text.
pub(crate) fn print(
    isa: &dyn TargetIsa,
    function: Function,
    listing: Listing,
) -> Result<String, String> {
    match listing {
        Listing::Clif => Ok(function.display().to_string()),
        Listing::Asm => {
            let (_, compiled) = machine_code(isa, function, true)?;
            Ok(compiled.vcode.unwrap_or_default())
        }
    }
}
