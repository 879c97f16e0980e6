//! Instructions for scalar values and vectors of four: types in registers, constants, loads, stores, conversions.
//!
//! In a register a bool is 0 or 1 (an all-ones or zero lane in a vector), an integer of up to 32 bits an extended i32, a
//! narrow float an f32. Values of 64-bit types have no vector form: four scalars stand for it (see [`Val::Lanes`]).

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a form that is not named is none of those asked for"
)]

use crate::helpers::{self, TABLE};
use crate::shape::Shape;
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::immediates::V128Imm;
use cranelift_codegen::ir::{
    self, ConstantData, Endianness, FuncRef, InstBuilder, MemFlagsData, Type, Value, types,
};
use cranelift_codegen::isa::CallConv;
use cranelift_frontend::FunctionBuilder;
use std::collections::BTreeMap;
use systole_compiler::expr::Scalar;
use systole_compiler::types::{Class, DType};

/// How many elements a vector holds.
pub(crate) const LANES: usize = 4;

/// A function under construction.
pub(crate) struct Code<'f> {
    /// Where instructions go.
    pub(crate) b: FunctionBuilder<'f>,
    /// Whether the machine multiplies and adds with one rounding.
    pub(crate) fma: bool,
    convention: CallConv,
    helpers: BTreeMap<usize, FuncRef>,
}

impl<'f> Code<'f> {
    /// Builds into `b`.
    pub(crate) fn new(b: FunctionBuilder<'f>, convention: CallConv, fma: bool) -> Code<'f> {
        Code { b, fma, convention, helpers: BTreeMap::new() }
    }

    /// Calls the helper at that position of the table.
    pub(crate) fn call_helper(&mut self, helper: usize, arguments: &[Value]) -> Option<Value> {
        let function = match self.helpers.get(&helper) {
            Some(&function) => function,
            None => {
                let signature = TABLE[helper].signature(self.convention);
                let signature = self.b.import_signature(signature);
                // The module declares the helpers first, in the order of the table.
                let name = self.b.func.declare_imported_user_function(ir::UserExternalName {
                    namespace: 0,
                    index: u32::try_from(helper).expect("there are few helpers"),
                });
                let function = self.b.import_function(ir::ExtFuncData {
                    name: ir::ExternalName::user(name),
                    signature,
                    colocated: false,
                    patchable: false,
                });
                self.helpers.insert(helper, function);
                function
            }
        };
        let call = self.b.ins().call(function, arguments);
        self.b.inst_results(call).first().copied()
    }

    fn helper_value(&mut self, helper: Option<usize>, arguments: &[Value]) -> Value {
        let helper = helper.expect("every such helper is in the table");
        self.call_helper(helper, arguments).expect("these helpers have a result")
    }

    /// An integer for addresses and counters.
    pub(crate) fn int(&mut self, value: i64) -> Value {
        self.b.ins().iconst(types::I64, value)
    }

    /// A number minus an integer.
    pub(crate) fn subtract_from(&mut self, number: i64, value: Value) -> Value {
        let number = self.int(number);
        self.b.ins().isub(number, value)
    }

    /// An integer's bits, or each lane's, moved up.
    pub(crate) fn shift_left(&mut self, value: Value, bits: i64) -> Value {
        let bits = self.b.ins().iconst(types::I32, bits);
        self.b.ins().ishl(value, bits)
    }

    /// An integer's bits, or each lane's, moved down.
    pub(crate) fn shift_right(&mut self, value: Value, bits: i64) -> Value {
        let bits = self.b.ins().iconst(types::I32, bits);
        self.b.ins().ushr(value, bits)
    }

    /// An integer's bits, or each lane's, moved down, keeping the sign.
    pub(crate) fn shift_right_signed(&mut self, value: Value, bits: i64) -> Value {
        let bits = self.b.ins().iconst(types::I32, bits);
        self.b.ins().sshr(value, bits)
    }

    /// An f32, in every lane.
    pub(crate) fn f32(&mut self, shape: Shape, value: f32) -> Value {
        match shape {
            Shape::Scalar => self.b.ins().f32const(value),
            Shape::Vector => self.vector_constant(value.to_bits()),
        }
    }

    /// An i32, in every lane.
    pub(crate) fn i32(&mut self, shape: Shape, value: i32) -> Value {
        match shape {
            Shape::Scalar => self.b.ins().iconst(types::I32, i64::from(value.cast_unsigned())),
            Shape::Vector => {
                let floats = self.vector_constant(value.cast_unsigned());
                self.cast(types::I32X4, floats)
            }
        }
    }

    fn vector_constant(&mut self, bits: u32) -> Value {
        let mut bytes = [0; 16];
        for lane in bytes.chunks_exact_mut(4) {
            lane.copy_from_slice(&bits.to_le_bytes());
        }
        let data = ConstantData::from(V128Imm(bytes).0.to_vec());
        let constant = self.b.func.dfg.constants.insert(data);
        self.b.ins().vconst(types::F32X4, constant)
    }

    /// The same bits as another type of the same size.
    pub(crate) fn cast(&mut self, ty: Type, value: Value) -> Value {
        if self.b.func.dfg.value_type(value) == ty {
            return value;
        }
        self.b.ins().bitcast(ty, MemFlagsData::new().with_endianness(Endianness::Little), value)
    }

    /// The bits of f32 as i32.
    pub(crate) fn bits(&mut self, shape: Shape, value: Value) -> Value {
        self.cast(shape.of(types::I32), value)
    }

    /// The bits of i32 as f32.
    pub(crate) fn float(&mut self, shape: Shape, value: Value) -> Value {
        self.cast(shape.of(types::F32), value)
    }

    /// A scalar in every lane; `dtype` is its type.
    pub(crate) fn splat(&mut self, dtype: DType, value: Value) -> Value {
        let value = match dtype.class() {
            Class::Bool => {
                let wide = self.b.ins().uextend(types::I32, value);
                self.b.ins().ineg(wide)
            }
            Class::Signed | Class::Unsigned | Class::Float => value,
        };
        let ty = Shape::Vector.register(dtype).expect("only 32-bit registers are splat");
        self.b.ins().splat(ty, value)
    }

    /// One lane as a scalar; `dtype` is its type.
    pub(crate) fn lane(&mut self, dtype: DType, vector: Value, lane: usize) -> Value {
        let lane = u8::try_from(lane).expect("there are four lanes");
        let value = self.b.ins().extractlane(vector, lane);
        match dtype.class() {
            Class::Bool => self.b.ins().icmp_imm_s(IntCC::NotEqual, value, 0),
            Class::Signed | Class::Unsigned | Class::Float => value,
        }
    }

    /// Four scalars as a vector; `dtype` is their type.
    pub(crate) fn gather_lanes(&mut self, dtype: DType, lanes: [Value; LANES]) -> Value {
        let mut vector = self.splat(dtype, lanes[0]);
        for (lane, &value) in lanes.iter().enumerate().skip(1) {
            let value = match dtype.class() {
                Class::Bool => {
                    let wide = self.b.ins().uextend(types::I32, value);
                    self.b.ins().ineg(wide)
                }
                Class::Signed | Class::Unsigned | Class::Float => value,
            };
            let lane = u8::try_from(lane).expect("there are four lanes");
            vector = self.b.ins().insertlane(vector, value, lane);
        }
        vector
    }

    /// A constant of a type.
    pub(crate) fn constant(&mut self, value: Scalar) -> Value {
        match value.dtype.class() {
            Class::Bool => self.b.ins().iconst(types::I8, i64::from(value.bits != 0)),
            Class::Signed | Class::Unsigned if value.dtype.bits() == 64 => {
                self.int(value.bits.cast_signed())
            }
            Class::Signed | Class::Unsigned => self.i32(Shape::Scalar, value.bits as u32 as i32),
            Class::Float if value.dtype == DType::F64 => {
                self.b.ins().f64const(f64::from_bits(value.bits))
            }
            Class::Float => self.f32(Shape::Scalar, f64::from_bits(value.bits) as f32),
        }
    }

    /// Reads one element.
    pub(crate) fn load(&mut self, dtype: DType, address: Value, offset: i32) -> Value {
        let flags = flags();
        let b = &mut self.b;
        match dtype {
            DType::Bool => {
                let byte = b.ins().load(types::I8, flags, address, offset);
                b.ins().icmp_imm_s(IntCC::NotEqual, byte, 0)
            }
            DType::I8 => b.ins().sload8(types::I32, flags, address, offset),
            DType::I16 => b.ins().sload16(types::I32, flags, address, offset),
            DType::U8 => b.ins().uload8(types::I32, flags, address, offset),
            DType::U16 => b.ins().uload16(types::I32, flags, address, offset),
            DType::I32 | DType::U32 => b.ins().load(types::I32, flags, address, offset),
            DType::I64 | DType::U64 => b.ins().load(types::I64, flags, address, offset),
            DType::F32 => b.ins().load(types::F32, flags, address, offset),
            DType::F64 => b.ins().load(types::F64, flags, address, offset),
            DType::I4 | DType::U4 => {
                let byte = b.ins().uload8(types::I32, flags, address, offset);
                self.wrap(Shape::Scalar, dtype, byte)
            }
            DType::F16 | DType::BF16 => {
                let code = b.ins().uload16(types::I32, flags, address, offset);
                self.decode(Shape::Scalar, dtype, code)
            }
            DType::F8E4M3 | DType::F8E5M2 | DType::F4E2M1 => {
                let code = b.ins().uload8(types::I32, flags, address, offset);
                self.decode(Shape::Scalar, dtype, code)
            }
        }
    }

    /// Reads four neighbours, where the type has a vector form.
    pub(crate) fn load_vector(
        &mut self,
        dtype: DType,
        address: Value,
        offset: i32,
    ) -> Option<Value> {
        let flags = flags();
        Some(match dtype {
            DType::F32 => self.b.ins().load(types::F32X4, flags, address, offset),
            DType::I32 | DType::U32 => self.b.ins().load(types::I32X4, flags, address, offset),
            DType::I16 => self.b.ins().sload16x4(flags, address, offset),
            DType::U16 => self.b.ins().uload16x4(flags, address, offset),
            DType::F16 | DType::BF16 => {
                let codes = self.b.ins().uload16x4(flags, address, offset);
                self.decode(Shape::Vector, dtype, codes)
            }
            DType::Bool | DType::I8 | DType::U8 | DType::I4 | DType::U4 => {
                let packed = self.b.ins().load(types::I32, flags, address, offset);
                let packed = self.b.ins().scalar_to_vector(types::I32X4, packed);
                let bytes = self.cast(types::I8X16, packed);
                let wide = if dtype == DType::I8 {
                    let half = self.b.ins().swiden_low(bytes);
                    self.b.ins().swiden_low(half)
                } else {
                    let half = self.b.ins().uwiden_low(bytes);
                    self.b.ins().uwiden_low(half)
                };
                match dtype {
                    DType::Bool => {
                        let zero = self.i32(Shape::Vector, 0);
                        self.b.ins().icmp(IntCC::NotEqual, wide, zero)
                    }
                    _ => self.wrap(Shape::Vector, dtype, wide),
                }
            }
            DType::I64
            | DType::U64
            | DType::F64
            | DType::F8E4M3
            | DType::F8E5M2
            | DType::F4E2M1 => return None,
        })
    }

    /// Reads four elements of 32 bits, each two after the one before; nothing beyond the last is touched.
    pub(crate) fn load_every_second(&mut self, dtype: DType, address: Value, offset: i32) -> Value {
        let flags = flags();
        let low = self.b.ins().load(types::I8X16, flags, address, offset);
        let high = self.b.ins().load(types::I8X16, flags, address, offset + 12);
        let mask = [0, 1, 2, 3, 8, 9, 10, 11, 20, 21, 22, 23, 28, 29, 30, 31];
        let mask = self.b.func.dfg.immediates.push(ConstantData::from(mask.to_vec()));
        let words = self.b.ins().shuffle(low, high, mask);
        let ty = Shape::Vector.register(dtype).expect("words have vectors");
        self.cast(ty, words)
    }

    /// Writes one element.
    pub(crate) fn store(&mut self, dtype: DType, value: Value, address: Value, offset: i32) {
        let flags = flags();
        let value = match dtype {
            DType::F16 | DType::BF16 | DType::F8E4M3 | DType::F8E5M2 | DType::F4E2M1 => {
                self.encode(Shape::Scalar, dtype, value)
            }
            _ => value,
        };
        match dtype.bytes() {
            1 if dtype == DType::Bool => self.b.ins().store(flags, value, address, offset),
            1 => self.b.ins().istore8(flags, value, address, offset),
            2 => self.b.ins().istore16(flags, value, address, offset),
            _ => self.b.ins().store(flags, value, address, offset),
        };
    }

    /// Writes four neighbours; the type has a vector form.
    pub(crate) fn store_vector(&mut self, dtype: DType, value: Value, address: Value, offset: i32) {
        let value = match dtype {
            DType::F16 | DType::BF16 => self.encode(Shape::Vector, dtype, value),
            DType::Bool => {
                let one = self.i32(Shape::Vector, 1);
                self.b.ins().band(value, one)
            }
            _ => value,
        };
        let packed = match dtype.bytes() {
            1 => {
                let low = self.shuffle(value, [0, 4, 8, 12]);
                let words = self.cast(types::I32X4, low);
                self.b.ins().extractlane(words, 0)
            }
            2 => {
                let low = self.shuffle(value, [0, 1, 4, 5, 8, 9, 12, 13]);
                let words = self.cast(types::I64X2, low);
                self.b.ins().extractlane(words, 0)
            }
            _ => value,
        };
        self.b.ins().store(flags(), packed, address, offset);
    }

    fn shuffle<const N: usize>(&mut self, value: Value, bytes: [u8; N]) -> Value {
        let mut mask = [0; 16];
        mask[..N].copy_from_slice(&bytes);
        let value = self.cast(types::I8X16, value);
        let mask = self.b.func.dfg.immediates.push(ConstantData::from(mask.to_vec()));
        self.b.ins().shuffle(value, value, mask)
    }

    /// The f32 of a narrow float's code.
    fn decode(&mut self, shape: Shape, dtype: DType, code: Value) -> Value {
        match dtype {
            DType::BF16 => {
                let bits = self.shift_left(code, 16);
                self.float(shape, bits)
            }
            DType::F16 => self.decode_f16(shape, code),
            _ => self.helper_value(helpers::decoder(dtype), &[code]),
        }
    }

    /// The code of a narrow float that is nearest to an f32.
    fn encode(&mut self, shape: Shape, dtype: DType, value: Value) -> Value {
        match dtype {
            DType::BF16 => self.encode_bf16(shape, value),
            DType::F16 => self.encode_f16(shape, value),
            _ => {
                let wide = self.b.ins().fpromote(types::F64, value);
                self.helper_value(helpers::encoder(dtype), &[wide])
            }
        }
    }

    fn decode_f16(&mut self, shape: Shape, code: Value) -> Value {
        let sign = self.and_imm(shape, code, 0x8000);
        let sign = self.shift_left(sign, 16);
        let magnitude = self.and_imm(shape, code, 0x7fff);
        let shifted = self.shift_left(magnitude, 13);
        // Moves the exponent's bias, and makes denormals normal, in one exact product.
        let small = self.float(shape, shifted);
        let scale = self.f32(shape, f32::from_bits((127 + 112) << 23));
        let scaled = self.b.ins().fmul(small, scale);
        let scaled = self.bits(shape, scaled);
        let top = self.i32(shape, 0x7f80_0000);
        let special = self.b.ins().bor(shifted, top);
        let limit = self.i32(shape, 0x7bff);
        let beyond = self.icmp(shape, IntCC::SignedGreaterThan, magnitude, limit);
        let finite = self.choose(shape, beyond, special, scaled);
        let bits = self.b.ins().bor(finite, sign);
        self.float(shape, bits)
    }

    fn encode_f16(&mut self, shape: Shape, value: Value) -> Value {
        let bits = self.bits(shape, value);
        let magnitude = self.and_imm(shape, bits, 0x7fff_ffff);
        let sign = self.shift_right(bits, 16);
        let sign = self.and_imm(shape, sign, 0x8000);
        // A normal result: the bias moves, and half a unit (less one where the last bit is even) is added.
        let last = self.shift_right(magnitude, 13);
        let last = self.and_imm(shape, last, 1);
        let move_bias = self.i32(shape, (-112 << 23) + 0xfff);
        let normal = self.b.ins().iadd(magnitude, move_bias);
        let normal = self.b.ins().iadd(normal, last);
        let normal = self.shift_right(normal, 13);
        // A denormal result: adding 0.5 makes the hardware round at the right bit.
        let half = self.f32(shape, 0.5);
        let plain = self.float(shape, magnitude);
        let sum = self.b.ins().fadd(plain, half);
        let sum = self.bits(shape, sum);
        let half_bits = self.i32(shape, 0.5f32.to_bits().cast_signed());
        let denormal = self.b.ins().isub(sum, half_bits);
        let smallest = self.i32(shape, (127 - 14) << 23);
        let is_small = self.icmp(shape, IntCC::SignedLessThan, magnitude, smallest);
        let finite = self.choose(shape, is_small, denormal, normal);
        // 65520 is the first magnitude that rounds to infinity.
        let infinity = self.i32(shape, 0x7c00);
        let overflow = self.i32(shape, 65519.996f32.to_bits().cast_signed());
        let is_large = self.icmp(shape, IntCC::SignedGreaterThan, magnitude, overflow);
        let code = self.choose(shape, is_large, infinity, finite);
        let quiet = self.shift_right(magnitude, 13);
        let quiet = self.and_imm(shape, quiet, 0x3ff);
        let nan_bits = self.i32(shape, 0x7e00);
        let nan = self.b.ins().bor(quiet, nan_bits);
        let top = self.i32(shape, 0x7f80_0000);
        let is_nan = self.icmp(shape, IntCC::SignedGreaterThan, magnitude, top);
        let code = self.choose(shape, is_nan, nan, code);
        self.b.ins().bor(code, sign)
    }

    fn encode_bf16(&mut self, shape: Shape, value: Value) -> Value {
        let bits = self.bits(shape, value);
        let high = self.shift_right(bits, 16);
        let last = self.and_imm(shape, high, 1);
        let half = self.i32(shape, 0x7fff);
        let rounded = self.b.ins().iadd(bits, half);
        let rounded = self.b.ins().iadd(rounded, last);
        let rounded = self.shift_right(rounded, 16);
        let quiet = self.i32(shape, 0x40);
        let nan = self.b.ins().bor(high, quiet);
        let is_nan = self.fcmp(shape, FloatCC::Unordered, value, value);
        self.choose(shape, is_nan, nan, rounded)
    }

    /// The bits that a mask keeps.
    pub(crate) fn and_imm(&mut self, shape: Shape, value: Value, mask: i32) -> Value {
        let mask = self.i32(shape, mask);
        self.b.ins().band(value, mask)
    }

    /// An integer register reduced to the values of its type.
    pub(crate) fn wrap(&mut self, shape: Shape, dtype: DType, value: Value) -> Value {
        let bits = dtype.bits();
        match dtype.class() {
            Class::Signed if bits < 32 => {
                let shift = 32 - bits as i64;
                let high = self.shift_left(value, shift);
                self.shift_right_signed(high, shift)
            }
            Class::Unsigned if bits < 32 => self.and_imm(shape, value, (1 << bits) - 1),
            Class::Signed | Class::Unsigned | Class::Bool | Class::Float => value,
        }
    }

    /// A value in the arithmetic of its type rounded or wrapped to the type; `None` where vectors cannot.
    pub(crate) fn round(&mut self, shape: Shape, dtype: DType, value: Value) -> Option<Value> {
        Some(match dtype {
            DType::F16 | DType::BF16 => {
                let code = self.encode(shape, dtype, value);
                self.decode(shape, dtype, code)
            }
            DType::F8E4M3 | DType::F8E5M2 | DType::F4E2M1 => match shape {
                Shape::Vector => return None,
                Shape::Scalar => {
                    let code = self.encode(shape, dtype, value);
                    self.decode(shape, dtype, code)
                }
            },
            _ => self.wrap(shape, dtype, value),
        })
    }

    /// Compares integers: a bool in a register.
    pub(crate) fn icmp(&mut self, _shape: Shape, condition: IntCC, x: Value, y: Value) -> Value {
        self.b.ins().icmp(condition, x, y)
    }

    /// Compares floats: a bool in a register.
    pub(crate) fn fcmp(&mut self, _shape: Shape, condition: FloatCC, x: Value, y: Value) -> Value {
        self.b.ins().fcmp(condition, x, y)
    }

    /// The first value where a bool in a register is true, else the second.
    pub(crate) fn choose(&mut self, shape: Shape, condition: Value, x: Value, y: Value) -> Value {
        match shape {
            Shape::Scalar => self.b.ins().select(condition, x, y),
            Shape::Vector => {
                let ty = self.b.func.dfg.value_type(x);
                let condition = self.cast(ty, condition);
                self.b.ins().bitselect(condition, x, y)
            }
        }
    }

    /// `x * y + z`, rounded once where the machine can.
    pub(crate) fn multiply_add(&mut self, x: Value, y: Value, z: Value) -> Value {
        if self.fma {
            return self.b.ins().fma(x, y, z);
        }
        let product = self.b.ins().fmul(x, y);
        self.b.ins().fadd(product, z)
    }

    /// A value in another type; `None` where vectors cannot.
    pub(crate) fn convert(
        &mut self,
        shape: Shape,
        from: DType,
        to: DType,
        value: Value,
    ) -> Option<Value> {
        if shape == Shape::Vector && (from.bits() == 64 || to.bits() == 64) {
            return None;
        }
        match (from.class(), to.class()) {
            (Class::Float, Class::Float) => self.convert_float(shape, from, to, value),
            (Class::Float, Class::Bool) => {
                let zero = self.zero(shape, from);
                Some(self.fcmp(shape, FloatCC::NotEqual, value, zero))
            }
            (Class::Float, Class::Signed | Class::Unsigned) => match shape {
                Shape::Vector => None,
                Shape::Scalar => Some(self.truncate(from, to, value)),
            },
            (Class::Bool, Class::Bool) => Some(value),
            (Class::Bool, Class::Signed | Class::Unsigned | Class::Float) => {
                let integer = match shape {
                    Shape::Vector => self.and_imm(shape, value, 1),
                    Shape::Scalar => self.b.ins().uextend(types::I32, value),
                };
                self.convert(shape, DType::U8, to, integer)
            }
            (Class::Signed | Class::Unsigned, Class::Bool) => {
                let zero = self.zero(shape, from);
                Some(self.icmp(shape, IntCC::NotEqual, value, zero))
            }
            (Class::Signed | Class::Unsigned, Class::Signed | Class::Unsigned) => {
                let value = match (from.bits(), to.bits()) {
                    (64, 64) => value,
                    (64, _) => self.b.ins().ireduce(types::I32, value),
                    (_, 64) if from.class() == Class::Signed => {
                        self.b.ins().sextend(types::I64, value)
                    }
                    (_, 64) => self.b.ins().uextend(types::I64, value),
                    (_, _) => value,
                };
                if to.bits() == 64 { Some(value) } else { Some(self.wrap(shape, to, value)) }
            }
            (Class::Signed | Class::Unsigned, Class::Float) => {
                self.integer_to_float(shape, from, to, value)
            }
        }
    }

    fn convert_float(
        &mut self,
        shape: Shape,
        from: DType,
        to: DType,
        value: Value,
    ) -> Option<Value> {
        if from == to {
            return Some(value);
        }
        if from != DType::F64 && to == DType::F64 {
            return Some(self.b.ins().fpromote(types::F64, value));
        }
        if from != DType::F64 {
            return self.round(shape, to, value);
        }
        if to == DType::F32 {
            return Some(self.b.ins().fdemote(types::F32, value));
        }
        let code = self.helper_value(helpers::encoder(to), &[value]);
        Some(self.decode(shape, to, code))
    }

    fn truncate(&mut self, from: DType, to: DType, value: Value) -> Value {
        let signed = self.b.ins().fcvt_to_sint_sat(types::I64, value);
        if to.bits() < 64 {
            let low = self.b.ins().ireduce(types::I32, signed);
            return self.wrap(Shape::Scalar, to, low);
        }
        if to == DType::I64 {
            return signed;
        }
        let unsigned = self.b.ins().fcvt_to_uint_sat(types::I64, value);
        let zero = self.zero(Shape::Scalar, from);
        let negative = self.b.ins().fcmp(FloatCC::LessThan, value, zero);
        self.b.ins().select(negative, signed, unsigned)
    }

    fn integer_to_float(
        &mut self,
        shape: Shape,
        from: DType,
        to: DType,
        value: Value,
    ) -> Option<Value> {
        let narrow = !matches!(to, DType::F32 | DType::F64);
        if narrow && from.bits() >= 32 {
            // Through f64, so that the value rounds once more only.
            if shape == Shape::Vector {
                return None;
            }
            let wide = self.integer_to_float(shape, from, DType::F64, value)?;
            return self.convert_float(shape, DType::F64, to, wide);
        }
        let signed = from.class() == Class::Signed || from.bits() < 32;
        let ty = if to == DType::F64 { types::F64 } else { shape.of(types::F32) };
        let float = if signed {
            self.b.ins().fcvt_from_sint(ty, value)
        } else {
            self.b.ins().fcvt_from_uint(ty, value)
        };
        if narrow { self.round(shape, to, float) } else { Some(float) }
    }

    /// Zero of a type.
    pub(crate) fn zero(&mut self, shape: Shape, dtype: DType) -> Value {
        match dtype.class() {
            Class::Float if dtype == DType::F64 => self.b.ins().f64const(0.0),
            Class::Float => self.f32(shape, 0.0),
            Class::Signed | Class::Unsigned if dtype.bits() == 64 => self.int(0),
            Class::Signed | Class::Unsigned => self.i32(shape, 0),
            Class::Bool => match shape {
                Shape::Scalar => self.b.ins().iconst(types::I8, 0),
                Shape::Vector => self.i32(shape, 0),
            },
        }
    }
}

/// Memory is always there, and not always aligned.
fn flags() -> MemFlagsData {
    let mut flags = MemFlagsData::new();
    flags.set_notrap();
    flags
}
