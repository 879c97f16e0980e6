//! Modules from text: names become ids, written layouts digits, written constants tensors.

use super::super::Place;
use super::ast::{self, At, Name};
use super::resolve;
use crate::diagnostic::{Code, Diagnostic, Diagnostics, Span};
use crate::module::{
    Buffer, BufferId, KernelId, Layout, Lifetime, Module, Piece, ScalarSource, Step,
};
use crate::op::{self, AttrReader, AttrValue, Kind, Op};
use crate::text::ast::Value;
use crate::text::literal;
use crate::types::{DType, MAX_TENSOR_BYTES, Shape, TensorType};
use std::collections::{BTreeMap, BTreeSet};

/// The module of a parsed text.
pub(super) fn module(
    ast: &ast::Module<'_>,
    taken: &BTreeSet<String>,
    diagnostics: &mut Diagnostics,
) -> Module {
    let mut resolver = Resolver {
        module: Module { name: ast.name.item.as_ref().to_owned(), ..Module::default() },
        diagnostics,
        buffers: BTreeMap::new(),
        kernels: BTreeMap::new(),
        splat_bytes: literal::SPLAT_BYTES,
    };
    for buffer in &ast.buffers {
        resolver.buffer(buffer);
    }
    resolver.aliases(&ast.buffers);
    for kernel in &ast.kernels {
        let resolved = resolve::kernel(kernel, taken, resolver.diagnostics);
        let id = resolver.module.kernels.push(resolved);
        if resolver.kernels.insert(kernel.name.item.as_ref().to_owned(), id).is_some() {
            let message = format!("@{} is defined already", kernel.name.item);
            resolver.error(Code::DuplicateName, message, kernel.name.span);
        }
    }
    resolver.signature(ast);
    resolver.module.load_steps = resolver.steps(&ast.load);
    resolver.module.steps = resolver.steps(&ast.run);
    resolver.module
}

struct Resolver<'a> {
    module: Module,
    diagnostics: &'a mut Diagnostics,
    buffers: BTreeMap<String, BufferId>,
    kernels: BTreeMap<String, KernelId>,
    splat_bytes: usize,
}

impl Resolver<'_> {
    fn error(&mut self, code: Code, message: impl Into<String>, span: Span) {
        self.diagnostics.push(Diagnostic::error(code, message).at(span));
    }

    fn size(&mut self, size: i128, span: Span) -> usize {
        match usize::try_from(size) {
            Ok(size) if size <= MAX_TENSOR_BYTES => size,
            Ok(_) | Err(_) => {
                self.error(Code::TooLarge, format!("{size} is more than any memory"), span);
                0
            }
        }
    }

    fn lookup(&mut self, name: &Name<'_>) -> Option<BufferId> {
        let found = self.buffers.get(name.item.as_ref()).copied();
        if found.is_none() {
            self.error(Code::UnknownName, format!("no buffer is called %{}", name.item), name.span);
        }
        found
    }

    fn buffer(&mut self, ast: &ast::Buffer<'_>) {
        let span = ast.name.span;
        let name = ast.name.item.as_ref().to_owned();
        let dtype = DType::from_name(ast.dtype.item);
        if dtype.is_none() {
            let message = format!("there is no element type {}", ast.dtype.item);
            self.error(Code::UnknownOp, message, ast.dtype.span);
        }
        let shape: Shape = ast.shape.iter().map(|&size| self.size(size, span)).collect();
        let mut ty = TensorType { dtype: dtype.unwrap_or(DType::F32), shape };
        if ty.checked_count().is_none() {
            self.error(Code::TooLarge, format!("{ty} is larger than any memory"), span);
            ty.shape.clear();
        }
        let layout = match &ast.layout {
            None => Layout::row_major(&ty.shape),
            Some(pieces) => self.layout(pieces, &ty.shape),
        };
        let lifetime = match &ast.lifetime.item {
            ast::Lifetime::Input => Lifetime::Input,
            ast::Lifetime::Parameter(name) => Lifetime::Parameter(name.as_ref().to_owned()),
            ast::Lifetime::Loaded => Lifetime::Loaded,
            ast::Lifetime::State => Lifetime::State,
            ast::Lifetime::Temporary => Lifetime::Temporary,
            ast::Lifetime::Constant(value) => {
                match literal::read(value, &ty, &mut self.splat_bytes) {
                    Ok(value) => Lifetime::Constant(value),
                    Err(diagnostic) => {
                        self.diagnostics.push(diagnostic.at(ast.lifetime.span));
                        Lifetime::Temporary
                    }
                }
            }
        };
        let offset = ast.offset.as_ref().map(|offset| self.size(offset.item, offset.span));
        let place = if ast.is_near { Place::Near } else { Place::Far };
        let buffer =
            Buffer { name: name.clone(), ty, layout, place, lifetime, alias: None, offset };
        let id = self.module.buffers.push(buffer);
        if self.buffers.insert(name, id).is_some() {
            let message = format!("%{} is defined already", ast.name.item);
            self.error(Code::DuplicateName, message, span);
        }
    }

    fn aliases(&mut self, buffers: &[ast::Buffer<'_>]) {
        for (position, buffer) in buffers.iter().enumerate() {
            if let Some(alias) = &buffer.alias {
                let id = crate::arena::Id::from_index(position);
                self.module.buffers[id].alias = self.lookup(alias);
            }
        }
    }

    /// The digits: the lowest of a dimension stands last.
    fn layout(&mut self, ast: &[At<ast::Piece<'_>>], shape: &[usize]) -> Layout {
        let mut pieces: Vec<Piece> = Vec::new();
        let mut below: Vec<usize> = vec![1; shape.len()];
        for At { span, item } in ast.iter().rev() {
            let dim = usize::try_from(item.dim).ok().filter(|&dim| dim < shape.len());
            let Some(dim) = dim else {
                self.error(Code::OpType, format!("there is no dimension {}", item.dim), *span);
                continue;
            };
            let written = item.below.unwrap_or(1);
            if i128::try_from(below[dim]) != Ok(written) {
                let message =
                    format!("the digits behind take {} values, not {written}", below[dim]);
                self.error(Code::OpType, message, *span);
                continue;
            }
            let size = match &item.size {
                None => shape[dim].div_ceil(below[dim].max(1)),
                Some(size) => match size.parse::<usize>() {
                    Ok(size) if size > 0 && size <= MAX_TENSOR_BYTES => size,
                    Ok(_) | Err(_) => {
                        self.error(Code::OpType, format!("%{size} is not a digit's size"), *span);
                        continue;
                    }
                },
            };
            below[dim] = below[dim].saturating_mul(size);
            pieces.push(Piece { dim, size });
        }
        pieces.reverse();
        Layout { pieces: pieces.into() }
    }

    fn signature(&mut self, ast: &ast::Module<'_>) {
        if let Some(arena) = &ast.arena {
            self.module.arena_bytes = self.size(arena.item, arena.span);
        }
        for input in &ast.inputs {
            let buffer = self.lookup(input);
            self.module.inputs.extend(buffer);
        }
        for (position, output) in ast.outputs.iter().enumerate() {
            let Some(buffer) = self.lookup(&output.buffer) else { continue };
            self.module.outputs.push((output.name.as_ref().to_owned(), buffer));
            for state in &output.states {
                let Some(buffer) = self.lookup(state) else { continue };
                match self.module.inputs.iter().position(|&input| input == buffer) {
                    Some(input) => self.module.state.push((input, position)),
                    None => {
                        let message = format!("%{} is not an input", state.item);
                        self.error(Code::OpType, message, state.span);
                    }
                }
            }
        }
    }

    /// A list of names, where all are known.
    fn all(&mut self, names: &[Name<'_>]) -> Option<Vec<BufferId>> {
        let found: Vec<Option<BufferId>> = names.iter().map(|name| self.lookup(name)).collect();
        found.into_iter().collect()
    }

    fn steps(&mut self, ast: &[At<ast::Step<'_>>]) -> Vec<Step> {
        ast.iter().filter_map(|step| self.step(step)).collect()
    }

    fn step(&mut self, ast: &At<ast::Step<'_>>) -> Option<Step> {
        match &ast.item {
            ast::Step::Call { kernel, operands, scalars, origins } => {
                let operands = self.all(operands);
                let scalars: Vec<Option<ScalarSource>> =
                    scalars.iter().map(|scalar| self.scalar(scalar)).collect();
                let Some(&id) = self.kernels.get(kernel.item.as_ref()) else {
                    let message = format!("no kernel is called @{}", kernel.item);
                    self.error(Code::UnknownName, message, kernel.span);
                    return None;
                };
                let mut origins: Vec<String> =
                    origins.iter().map(|origin| origin.as_ref().to_owned()).collect();
                origins.sort();
                let scalars = scalars.into_iter().collect::<Option<_>>()?;
                Some(Step::Kernel { kernel: id, operands: operands?, scalars, origins })
            }
            ast::Step::Copy { from, to } => {
                let (from, to) = (self.lookup(from), self.lookup(to));
                Some(Step::Copy { from: from?, to: to? })
            }
            ast::Step::Exchange { op, operands, result, attributes, origins } => {
                let operands = self.all(operands);
                let result = self.lookup(result);
                let op = self.collective(op, attributes)?;
                let mut origins: Vec<String> =
                    origins.iter().map(|origin| origin.as_ref().to_owned()).collect();
                origins.sort();
                Some(Step::Collective { op, operands: operands?, result: result?, origins })
            }
            ast::Step::If { condition, then, otherwise } => {
                let condition = self.lookup(condition);
                let (then, otherwise) = (self.steps(then), self.steps(otherwise));
                Some(Step::If { condition: condition?, then, otherwise })
            }
            ast::Step::While { condition, before, body } => {
                let condition = self.lookup(condition);
                let (before, body) = (self.steps(before), self.steps(body));
                Some(Step::While { before, condition: condition?, body })
            }
            ast::Step::For { counter, start, end, body } => {
                let counter = self.lookup(counter);
                if start.item != 0 {
                    self.error(Code::OpType, "a counter starts at 0", start.span);
                }
                let count = self.size(end.item, end.span);
                let body = self.steps(body);
                Some(Step::For { count, counter: counter?, body })
            }
        }
    }

    fn collective(&mut self, name: &At<&str>, attributes: &[(At<&str>, Value<'_>)]) -> Option<Op> {
        let is_collective = |row: &&(&str, Kind, &str, op::Sampler)| row.1 == Kind::Collective;
        if !op::CATALOG.iter().filter(is_collective).any(|row| row.0 == name.item) {
            let message = format!("there is no collective {}", name.item);
            self.error(Code::UnknownOp, message, name.span);
            return None;
        }
        let mut read = Vec::new();
        for (key, value) in attributes {
            let Some(value) = attribute(value) else {
                let message = "this is not the value of an attribute";
                self.error(Code::Attribute, message, key.span);
                return None;
            };
            read.push(op::Attribute { key: key.item.to_owned(), value, span: key.span });
        }
        let mut reader = AttrReader::new(&read, name.span);
        let op = Op::read(name.item, &mut reader);
        let problems = reader.finish();
        let wrong = problems.has_errors();
        self.diagnostics.0.extend(problems.0);
        op.filter(|_| !wrong)
    }

    fn scalar(&mut self, ast: &ast::Scalar<'_>) -> Option<ScalarSource> {
        match ast {
            ast::Scalar::Buffer(name) => self.lookup(name).map(ScalarSource::Buffer),
            ast::Scalar::Number(At { span, item }) => match i64::try_from(*item) {
                Ok(value) => Some(ScalarSource::Constant(value)),
                Err(_) => {
                    self.error(Code::TooLarge, format!("{item} has more than 64 bits"), *span);
                    None
                }
            },
        }
    }
}

/// The value of a collective's attribute: numbers, words and lists of them.
fn attribute(value: &Value<'_>) -> Option<AttrValue> {
    match value {
        Value::Int(value) => i64::try_from(*value).ok().map(AttrValue::Int),
        Value::Float(value) => Some(AttrValue::Float(*value)),
        Value::Word(word) => Some(AttrValue::Word((*word).to_owned())),
        Value::Text(text) => Some(AttrValue::Text(text.to_string())),
        Value::List(items) => {
            items.iter().map(attribute).collect::<Option<Vec<_>>>().map(AttrValue::List)
        }
        Value::Type(_) | Value::Call(..) => None,
    }
}
