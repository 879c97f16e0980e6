//! Elementwise functions: one scalar function of operands of one shape. There is no implicit broadcast.

use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError};
use crate::scalar::ScalarFn;
use crate::tensor::{Tensor, Values, shape_text};
use crate::types::{DType, TensorType};
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Map {
    /// The function.
    pub function: ScalarFn,
}

impl OpDef for Map {
    const KIND: Kind = Kind::Map;

    fn read(_attributes: &mut AttrReader<'_>) -> Option<Self> {
        None
    }

    fn write(&self, _attributes: &mut AttrWriter) {}

    fn infer(&self, context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
        let types: Vec<DType> = context.operands.iter().map(|ty| ty.dtype).collect();
        let dtype = self.function.result(&types).map_err(TypeError::new)?;
        let first = &context.operands[0].shape;
        match context.operands.iter().find(|ty| ty.shape != *first) {
            Some(other) => Err(TypeError::new(format!(
                "operands have one shape, not {} and {}",
                shape_text(first),
                shape_text(&other.shape)
            ))),
            None => Ok(vec![TensorType { dtype, shape: first.clone() }]),
        }
    }

    fn evaluate(&self, operands: &[Tensor]) -> Vec<Tensor> {
        let types: Vec<DType> = operands.iter().map(Tensor::dtype).collect();
        let dtype = self.function.result(&types).expect("types were checked");
        let values: Vec<Values> = operands.iter().map(Tensor::values).collect();
        let values: Vec<&Values> = values.iter().collect();
        vec![Tensor::from_values(dtype, operands[0].shape(), &self.function.evaluate(&values))]
    }

    fn sample(u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        let (function, _) = *u.choose(ScalarFn::CATALOG)?;
        let shape = [u.int_in_range(1..=5)?, u.int_in_range(1..=9)?];
        let mut types = vec![TensorType::new(*u.choose(&DType::ALL)?, &shape); function.arity()];
        if function == ScalarFn::Select {
            types[0].dtype = DType::Bool;
        }
        let dtypes: Vec<DType> = types.iter().map(|ty| ty.dtype).collect();
        if function.result(&dtypes).is_err() {
            types.iter_mut().for_each(|ty| ty.dtype = if function.rule() == crate::scalar::Rule::Bits { DType::I32 } else { DType::F32 });
        }
        Ok((Map { function }, types))
    }
}
