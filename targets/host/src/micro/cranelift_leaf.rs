//! The micro-kernel that Cranelift makes, for machines without one of their own: a tile of 6 rows by 8 columns in twelve
//! 128-bit accumulators. It is emitted in the order in which it should run, and compiled without optimisation, which
//! would move loads away from their use and spill the accumulators.

use super::tile::{LEAF_COLUMNS, LEAF_ROWS, Leaf};
use cranelift_codegen::Context;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    AbiParam, BlockArg, Function, InstBuilder, MemFlagsData, Signature, Value, types,
};
use cranelift_codegen::isa::{self, CallConv, OwnedTargetIsa, TargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{Linkage, Module, default_libcall_names};
use std::sync::LazyLock;

const LANES: usize = 4;
const VECTORS: usize = LEAF_COLUMNS / LANES;
/// Steps of `k` in one turn of the main loop.
const UNROLL: usize = 4;
const F32_BYTES: usize = size_of::<f32>();

/// Whether the leaf may use fused multiply-add.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fused {
    /// Multiply, round, add.
    No,
    /// One rounding; on x86-64 this needs AVX and FMA.
    Yes,
}

/// The leaf for this machine's architecture, compiled at the first call and kept for the life of the process; `None`
/// where Cranelift has no code for the architecture.
pub(super) fn host_leaf(fused: Fused) -> Option<Leaf> {
    static LEAVES: [LazyLock<Option<Leaf>>; 2] =
        [LazyLock::new(|| compile(Fused::No).ok()), LazyLock::new(|| compile(Fused::Yes).ok())];
    match fused {
        Fused::No => *LEAVES[0],
        Fused::Yes => *LEAVES[1],
    }
}

fn compile(fused: Fused) -> Result<Leaf, String> {
    let isa = unoptimised_isa(std::env::consts::ARCH, fused)?;
    let mut module = JITModule::new(JITBuilder::with_isa(isa.clone(), default_libcall_names()));
    let signature = signature(isa.default_call_conv());
    let id = module
        .declare_function("systole_contract_leaf", Linkage::Local, &signature)
        .map_err(|error| error.to_string())?;
    let mut context = Context::for_function(emit(isa.as_ref(), fused));
    module.define_function(id, &mut context).map_err(|error| error.to_string())?;
    module.finalize_definitions().map_err(|error| error.to_string())?;
    let address = module.get_finalized_function(id);
    // The code stays for the life of the process.
    std::mem::forget(module);
    // SAFETY: the code was made with the signature of a leaf and the platform's C convention.
    Ok(unsafe { std::mem::transmute::<*const u8, Leaf>(address) })
}

/// The target for an architecture (`x86_64`, `aarch64`), set to keep the order of instructions.
fn unoptimised_isa(architecture: &str, fused: Fused) -> Result<OwnedTargetIsa, String> {
    let mut flags = settings::builder();
    flags.set("opt_level", "none").map_err(|error| error.to_string())?;
    flags.set("is_pic", "false").map_err(|error| error.to_string())?;
    let mut builder = isa::lookup_by_name(&format!("{architecture}-unknown-unknown"))
        .map_err(|error| error.to_string())?;
    if architecture == "x86_64" && fused == Fused::Yes {
        for feature in
            ["has_sse3", "has_ssse3", "has_sse41", "has_sse42", "has_avx", "has_avx2", "has_fma"]
        {
            builder.enable(feature).map_err(|error| error.to_string())?;
        }
    }
    builder.finish(settings::Flags::new(flags)).map_err(|error| error.to_string())
}

/// `(k, a_panel, b_panel, acc, acc_row_stride, add)`, as [`Leaf`].
fn signature(convention: CallConv) -> Signature {
    let mut signature = Signature::new(convention);
    signature.params.extend([AbiParam::new(types::I64); 6]);
    signature
}

/// The leaf as Cranelift's code, for any target of 64 bits.
fn emit(isa: &dyn TargetIsa, fused: Fused) -> Function {
    let mut function = Function::new();
    function.signature = signature(isa.default_call_conv());
    let mut context = FunctionBuilderContext::new();
    let mut builder = FunctionBuilder::new(&mut function, &mut context);
    let b = &mut builder;
    let entry = b.create_block();
    b.append_block_params_for_function_params(entry);
    b.switch_to_block(entry);
    let [k, a, panel, acc, stride, add] = b.block_params(entry).to_vec()[..] else {
        unreachable!("the signature has six parameters");
    };
    let zero = b.ins().f32const(0.0);
    let zero = b.ins().splat(types::F32X4, zero);
    let start = State { left: k, a, b: panel, sums: vec![zero; LEAF_ROWS * VECTORS] };
    let state = counted_loop(b, start, UNROLL, fused);
    let state = counted_loop(b, state, 1, fused);
    store(b, &state.sums, acc, stride, add);
    b.ins().return_(&[]);
    b.seal_all_blocks();
    builder.finalize(isa.frontend_config());
    function
}

/// What a loop over `k` carries.
struct State {
    left: Value,
    a: Value,
    b: Value,
    sums: Vec<Value>,
}

impl State {
    fn arguments(&self) -> Vec<BlockArg> {
        [self.left, self.a, self.b]
            .into_iter()
            .chain(self.sums.iter().copied())
            .map(BlockArg::Value)
            .collect()
    }

    fn parameters(values: &[Value]) -> State {
        State { left: values[0], a: values[1], b: values[2], sums: values[3..].to_vec() }
    }
}

/// Takes `steps` of `k` at a time while there are as many.
fn counted_loop(b: &mut FunctionBuilder<'_>, start: State, steps: usize, fused: Fused) -> State {
    let [head, body, exit] = [(); 3].map(|()| b.create_block());
    for block in [head, body, exit] {
        for _ in 0..3 {
            b.append_block_param(block, types::I64);
        }
        for _ in 0..LEAF_ROWS * VECTORS {
            b.append_block_param(block, types::F32X4);
        }
    }
    b.ins().jump(head, &start.arguments());
    b.switch_to_block(head);
    let state = State::parameters(b.block_params(head));
    let least = b.ins().iconst(types::I64, steps as i64);
    let enough = b.ins().icmp(IntCC::UnsignedGreaterThanOrEqual, state.left, least);
    b.ins().brif(enough, body, &state.arguments(), exit, &state.arguments());
    b.switch_to_block(body);
    let mut state = State::parameters(b.block_params(body));
    for step in 0..steps {
        multiply(b, &mut state, step, fused);
    }
    state.left = b.ins().iadd_imm_s(state.left, -(steps as i64));
    state.a = b.ins().iadd_imm_s(state.a, (steps * LEAF_ROWS * F32_BYTES) as i64);
    state.b = b.ins().iadd_imm_s(state.b, (steps * LEAF_COLUMNS * F32_BYTES) as i64);
    b.ins().jump(head, &state.arguments());
    b.switch_to_block(exit);
    State::parameters(b.block_params(exit))
}

/// Adds the products of one `k`.
fn multiply(b: &mut FunctionBuilder<'_>, state: &mut State, step: usize, fused: Fused) {
    let columns: Vec<Value> = (0..VECTORS)
        .map(|vector| {
            let offset = (step * LEAF_COLUMNS + vector * LANES) * F32_BYTES;
            b.ins().load(types::F32X4, flags(), state.b, offset as i32)
        })
        .collect();
    for row in 0..LEAF_ROWS {
        let factor = b.ins().load(
            types::F32,
            flags(),
            state.a,
            ((step * LEAF_ROWS + row) * F32_BYTES) as i32,
        );
        let factor = b.ins().splat(types::F32X4, factor);
        for (vector, column) in columns.iter().enumerate() {
            let sum = &mut state.sums[row * VECTORS + vector];
            *sum = match fused {
                Fused::Yes => b.ins().fma(factor, *column, *sum),
                Fused::No => {
                    let product = b.ins().fmul(factor, *column);
                    b.ins().fadd(*sum, product)
                }
            };
        }
    }
}

/// Writes the sums, or adds them to what is there.
fn store(b: &mut FunctionBuilder<'_>, sums: &[Value], acc: Value, stride: Value, add: Value) {
    let [overwrite, accumulate, exit] = [(); 3].map(|()| b.create_block());
    let row_bytes = b.ins().imul_imm_s(stride, F32_BYTES as i64);
    b.ins().brif(add, accumulate, &[], overwrite, &[]);
    for block in [overwrite, accumulate] {
        b.switch_to_block(block);
        let mut target = acc;
        for row in sums.chunks(VECTORS) {
            for (vector, sum) in row.iter().enumerate() {
                let offset = (vector * LANES * F32_BYTES) as i32;
                let mut value = *sum;
                if block == accumulate {
                    let before = b.ins().load(types::F32X4, flags(), target, offset);
                    value = b.ins().fadd(before, value);
                }
                b.ins().store(flags(), value, target, offset);
            }
            target = b.ins().iadd(target, row_bytes);
        }
        b.ins().jump(exit, &[]);
    }
    b.switch_to_block(exit);
}

/// Accesses that do not trap; nothing is known of their alignment.
fn flags() -> MemFlagsData {
    MemFlagsData::new().with_notrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_architecture_has_code() {
        for (architecture, fused) in
            [("x86_64", Fused::No), ("x86_64", Fused::Yes), ("aarch64", Fused::Yes)]
        {
            let isa =
                unoptimised_isa(architecture, fused).expect("the architecture is compiled in");
            let mut context = Context::for_function(emit(isa.as_ref(), fused));
            let compiled = context
                .compile(isa.as_ref(), &mut Default::default())
                .map(|code| code.code_buffer().len());
            assert!(compiled.is_ok_and(|bytes| bytes > 0), "{architecture} {fused:?}");
        }
    }
}
