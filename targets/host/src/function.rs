//! Makes a function of a plan: `extern "C" fn(operands, scalars, begin, end, scratch)`. `operands` holds the address of
//! every operand and then of every product's plan; positions `begin..end` of the flattened range are computed.

use crate::code::Code;
use crate::emit::{self, Bound, Frame, affine, begin, end};
use crate::helpers;
use crate::plan::{Action, Address, Flat, Plan};
use cranelift_codegen::ir::{
    AbiParam, Function, InstBuilder, MemFlagsData, Signature, UserFuncName, Value, types,
};
use cranelift_codegen::isa::{CallConv, TargetIsa};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use systole_compiler::kernel::{Affine, Kernel, VarKind};

/// The signature of every kernel's function.
pub(crate) fn signature(convention: CallConv) -> Signature {
    let mut signature = Signature::new(convention);
    signature.params.extend([AbiParam::new(types::I64); 5]);
    signature
}

/// The function of a plan of `kernel`; its name has the number given.
pub(crate) fn build(
    kernel: &Kernel,
    plan: Plan,
    isa: &dyn TargetIsa,
    fma: bool,
    number: u32,
) -> Function {
    let convention = isa.default_call_conv();
    let mut function =
        Function::with_name_signature(UserFuncName::user(0, number), signature(convention));
    let mut context = FunctionBuilderContext::new();
    let mut builder = FunctionBuilder::new(&mut function, &mut context);
    let entry = builder.create_block();
    builder.append_block_params_for_function_params(entry);
    builder.switch_to_block(entry);
    let parameters = builder.block_params(entry).to_vec();
    let mut code = Code::new(builder, convention, fma);
    let mut frame =
        Frame { operands: Vec::new(), scratch: parameters[4], vars: vec![None; kernel.vars.len()] };
    let operands = kernel.operands.len();
    for index in 0..operands + plan.products.len() {
        let offset = i32::try_from(index * 8).expect("a kernel has few operands");
        let address = code.b.ins().load(types::I64, MemFlagsData::trusted(), parameters[0], offset);
        frame.operands.push(address);
    }
    let mut position = 0;
    for (var, declared) in kernel.vars.iter() {
        if let VarKind::Scalar(..) = declared.kind {
            let value =
                code.b.ins().load(types::I64, MemFlagsData::trusted(), parameters[1], position * 8);
            frame.vars[var.index()] = Some(value);
            position += 1;
        }
    }
    let Plan { range, before, body, .. } = plan;
    actions(&mut code, &mut frame, operands, before);
    if range.is_empty() {
        actions(&mut code, &mut frame, operands, body);
    } else {
        let (first, last) = (Bound::Dynamic(parameters[2]), Bound::Dynamic(parameters[3]));
        let (open, counter, _) =
            begin(&mut code, first, last, 1, &[]).expect("the ends are not known");
        set_range(&mut code, &mut frame, &range, counter);
        actions(&mut code, &mut frame, operands, body);
        end(&mut code, open, Vec::new());
    }
    code.b.ins().return_(&[]);
    code.b.seal_all_blocks();
    code.b.finalize(isa.frontend_config());
    function
}

/// Gives the variables of the flattened loops their values at a position of the range.
fn set_range(code: &mut Code<'_>, frame: &mut Frame, range: &[Flat], counter: Value) {
    let mut rest = counter;
    for (index, flat) in range.iter().enumerate().rev() {
        let start = affine(code, frame, &[], &flat.start);
        let step = flat.step as i64;
        let mut place = rest;
        if index > 0 {
            let stop = affine(code, frame, &[], &flat.end);
            let span = code.b.ins().isub(stop, start);
            let span = code.b.ins().iadd_imm_s(span, step - 1);
            let step = code.int(step);
            let count = code.b.ins().sdiv(span, step);
            let one = code.int(1);
            let count = code.b.ins().smax(count, one);
            place = code.b.ins().srem(rest, count);
            rest = code.b.ins().sdiv(rest, count);
        }
        frame.vars[flat.var.index()] = Some(emit::add_scaled(code, start, place, step));
    }
}

fn actions(code: &mut Code<'_>, frame: &mut Frame, operands: usize, list: Vec<Action>) {
    for action in list {
        match action {
            Action::Nest(nest) => emit::emit(code, frame, nest),
            Action::For(flat, body) => {
                let known = |expression: &Affine| expression.terms().is_empty();
                let bound = |code: &mut Code<'_>, frame: &Frame, expression: &Affine| {
                    if known(expression) {
                        Bound::Static(expression.constant)
                    } else {
                        Bound::Dynamic(affine(code, frame, &[], expression))
                    }
                };
                let first = bound(code, frame, &flat.start);
                let last = bound(code, frame, &flat.end);
                let Some((open, counter, _)) = begin(code, first, last, flat.step as i64, &[])
                else {
                    continue;
                };
                let outer = frame.vars[flat.var.index()].replace(counter);
                actions(code, frame, operands, body);
                frame.vars[flat.var.index()] = outer;
                end(code, open, Vec::new());
            }
            Action::Product { plan, extents, a, b, b_scale, to, row_stride, add, scratch } => {
                let helper = helpers::find("systole_contract").expect("the helper is in the table");
                around(code, frame, &extents, &mut |code, frame, counters| {
                    let plan = frame.operands[operands + plan];
                    let a = address(code, frame, counters, &a);
                    let b = address(code, frame, counters, &b);
                    let b_scale = match &b_scale {
                        Some(scale) => address(code, frame, counters, scale),
                        None => code.int(0),
                    };
                    let to = address(code, frame, counters, &to);
                    let stride = code.int(row_stride as i64);
                    let add = code.int(i64::from(add));
                    let scratch = code.b.ins().iadd_imm_s(frame.scratch, scratch as i64);
                    code.call_helper(helper, &[plan, a, b, b_scale, to, stride, add, scratch]);
                });
            }
            Action::Sort { dtype, descending, count, extents, from, keys, positions } => {
                let helper = helpers::find("systole_sort").expect("the helper is in the table");
                around(code, frame, &extents, &mut |code, frame, counters| {
                    let dtype = code.int(dtype as i64);
                    let descending = code.int(i64::from(descending));
                    let count = code.int(count as i64);
                    let source = address(code, frame, counters, &from.0);
                    let source_stride = code.int(from.1);
                    let zero = code.int(0);
                    let place = |code: &mut Code<'_>, target: &Option<(Address, i64)>| match target
                    {
                        None => (zero, zero),
                        Some((target, stride)) => {
                            (address(code, frame, counters, target), code.int(*stride))
                        }
                    };
                    let keys = place(code, &keys);
                    let positions = place(code, &positions);
                    let arguments = [
                        dtype,
                        descending,
                        count,
                        source,
                        source_stride,
                        keys.0,
                        keys.1,
                        positions.0,
                        positions.1,
                    ];
                    code.call_helper(helper, &arguments);
                });
            }
        }
    }
}

/// What stands inside loops: it gets their counters.
type Body<'b> = &'b mut dyn FnMut(&mut Code<'_>, &Frame, &[Option<Value>]);

/// Loops around a call.
fn around(code: &mut Code<'_>, frame: &Frame, extents: &[usize], body: Body<'_>) {
    let mut opened = Vec::new();
    let mut counters = Vec::new();
    for &extent in extents {
        let end = Bound::Static(extent as i64);
        let Some((open, counter, _)) = begin(code, Bound::Static(0), end, 1, &[]) else {
            // A product without elements; nothing has been opened that needs code.
            for open in opened.into_iter().rev() {
                emit::end(code, open, Vec::new());
            }
            return;
        };
        opened.push(open);
        counters.push(Some(counter));
    }
    body(code, frame, &counters);
    for open in opened.into_iter().rev() {
        end(code, open, Vec::new());
    }
}

fn address(
    code: &mut Code<'_>,
    frame: &Frame,
    counters: &[Option<Value>],
    address: &Address,
) -> Value {
    let start = emit::base(code, frame, address.base);
    let offset = affine(code, frame, counters, &address.offset);
    code.b.ins().iadd(start, offset)
}
