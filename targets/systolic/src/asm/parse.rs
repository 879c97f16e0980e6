//! Reads programs: recursive descent, which goes on behind a mistake with the next line, so that all of them are told.

use super::exchange;
use super::field::{Field, read_operation};
use super::lexer::{Token, TokenKind, tokens};
use crate::isa::Op;
use crate::program::{
    Bound, Dma, Engine, Index, Indirect, Instruction, Item, Kernel, Operand, Program, Semaphore,
    SemaphoreInfo, Side, Step, Tensor, Test, Value, VarInfo,
};
use smallvec::SmallVec;
use systole_compiler::diagnostic::{Code, Diagnostic, Diagnostics, Span};
use systole_compiler::kernel::Combine;
use systole_compiler::types::DType;

const MAX_BYTES: usize = 256 << 20;
const MAX_PROBLEMS: usize = 50;
const MAX_DEPTH: usize = 32;

/// A mistake has been noted; whoever gets this goes on with the next line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failed;

/// What names mean.
#[derive(Debug, Default)]
pub(super) struct Scope {
    tensors: Vec<String>,
    kernels: Vec<String>,
    operands: Vec<String>,
    pub(super) vars: Vec<String>,
    semaphores: Vec<String>,
}

pub(super) struct Parser<'s> {
    source: &'s str,
    tokens: Vec<Token>,
    at: usize,
    scope: Scope,
    problems: Diagnostics,
}

/// The program that a text describes, or everything that is wrong with the text. Whether a machine can run it is for
/// [`crate::isa::check_program`] to say.
pub fn parse(source: &str) -> Result<Program, Diagnostics> {
    if source.len() > MAX_BYTES {
        let message = format!("the text has {} bytes; at most {MAX_BYTES} are read", source.len());
        return Err(Diagnostic::error(Code::TooLarge, message).into());
    }
    let mut parser = Parser {
        source,
        tokens: tokens(source),
        at: 0,
        scope: Scope::default(),
        problems: Diagnostics::default(),
    };
    let program = parser.program();
    parser.problems.into_result(program)
}

impl Parser<'_> {
    fn program(&mut self) -> Program {
        let mut program = Program::default();
        let mut aliases: Vec<(usize, Token)> = Vec::new();
        while !self.at_end() {
            let before = self.at;
            let read = self.declaration(&mut program, &mut aliases);
            self.recover(read, before);
        }
        let end = self.at;
        for (tensor, token) in aliases {
            // Tensors may name later ones, so names are looked up at the end.
            if let Some(at) = self.tokens.iter().position(|other| *other == token) {
                self.at = at;
                program.tensors[tensor].alias = self.tensor().ok();
            }
        }
        self.at = end;
        program
    }

    fn declaration(
        &mut self,
        program: &mut Program,
        aliases: &mut Vec<(usize, Token)>,
    ) -> Result<(), Failed> {
        let word = self.any_word("declaration")?;
        match word.as_str() {
            "program" => {
                program.name = self.text()?;
                self.word("for")?;
                program.machine = self.text()?;
            }
            "tensor" => {
                let name = self.name('%')?;
                self.sign(":")?;
                let dtype = DType::read(self)?;
                let elements = u64::read(self)?;
                if self.accept_word("alias") {
                    aliases.push((program.tensors.len(), self.tokens[self.at].clone()));
                    self.at += 1;
                }
                let constant = self.accept_word("constant");
                self.scope.tensors.push(name.clone());
                program.tensors.push(Tensor { name, dtype, elements, alias: None, constant });
            }
            "input" => program.inputs.push(self.tensor()?),
            "output" => {
                let name = self.text()?;
                self.sign("=")?;
                let tensor = self.tensor()?;
                program.outputs.push((name, tensor));
            }
            "kernel" => {
                let kernel = self.kernel()?;
                self.scope.kernels.push(kernel.name.clone());
                program.kernels.push(kernel);
            }
            "load" => program.load = self.steps(0)?,
            "run" => program.steps = self.steps(0)?,
            _ => {
                return Err(self.wrong_before(format!(
                    "`{word}` is no declaration; those are program, tensor, input, output, kernel, load, run"
                )));
            }
        }
        Ok(())
    }

    fn kernel(&mut self) -> Result<Kernel, Failed> {
        let mut kernel = Kernel { name: self.name('@')?, ..Kernel::default() };
        let Scope { operands, vars, semaphores, .. } = &mut self.scope;
        operands.clear();
        vars.clear();
        semaphores.clear();
        self.sign("(")?;
        while !self.accept_sign(")") {
            if !kernel.operands.is_empty() {
                self.sign(",")?;
            }
            let role = self.any_word("role of an operand")?;
            let (reads, writes) = match role.as_str() {
                "updates" => (true, true),
                "reads" => (true, false),
                "writes" => (false, true),
                "ignores" => (false, false),
                _ => {
                    return Err(self.wrong_before(format!(
                        "an operand reads, writes or updates, not `{role}`"
                    )));
                }
            };
            let name = self.name('%')?;
            self.sign(":")?;
            let dtype = DType::read(self)?;
            let elements = u64::read(self)?;
            self.scope.operands.push(name.clone());
            kernel.operands.push(Operand { name, dtype, elements, reads, writes });
        }
        self.word("sbuf")?;
        kernel.sbuf_bytes = u32::read(self)?;
        self.word("psum")?;
        kernel.psum_banks = u8::read(self)?;
        self.sign("{")?;
        while !self.accept_sign("}") {
            if self.at_end() {
                return Err(self.expected("`}`"));
            }
            let before = self.at;
            let read = self.part(&mut kernel);
            self.recover(read, before);
        }
        Ok(kernel)
    }

    fn part(&mut self, kernel: &mut Kernel) -> Result<(), Failed> {
        let word = self.any_word("part of a kernel")?;
        match word.as_str() {
            "var" => {
                let name = self.name('%')?;
                let mut range = None;
                if self.accept_word("from") {
                    let low = i64::read(self)?;
                    self.word("to")?;
                    range = Some((low, i64::read(self)?));
                }
                self.scope.vars.push(name.clone());
                kernel.vars.push(VarInfo { name, range });
            }
            "semaphore" => {
                let name = self.name('$')?;
                self.sign("=")?;
                let initial = u16::read(self)?;
                self.scope.semaphores.push(name.clone());
                kernel.semaphores.push(SemaphoreInfo { name, initial });
            }
            "source" => kernel.sources.push(self.text()?),
            "origin" => kernel.origins.push(self.text()?),
            "exchange" => kernel.exchange = Some(exchange::read(self)?),
            "stream" => {
                let engine = self.engine()?;
                let items = self.items(0)?;
                if kernel.streams.insert(engine, items).is_some() {
                    return Err(self.wrong_before(format!("a second stream of {engine:?}")));
                }
            }
            _ => {
                return Err(self.wrong_before(format!(
                    "`{word}` is no part of a kernel; those are var, semaphore, source, origin, exchange, stream"
                )));
            }
        }
        Ok(())
    }

    fn engine(&mut self) -> Result<Engine, Failed> {
        let word = self.any_word("engine")?;
        Ok(match word.as_str() {
            "tensor" => Engine::Tensor,
            "vector" => Engine::Vector,
            "scalar" => Engine::Scalar,
            "gpsimd" => Engine::GpSimd,
            "sync" => Engine::Sync,
            _ => return Err(self.wrong_before(format!("there is no engine `{word}`"))),
        })
    }

    fn items(&mut self, depth: usize) -> Result<Vec<Item>, Failed> {
        self.deep(depth)?;
        self.sign("{")?;
        let mut items = Vec::new();
        while !self.accept_sign("}") {
            if self.at_end() {
                return Err(self.expected("`}`"));
            }
            let before = self.at;
            match self.item(depth) {
                Ok(item) => items.push(item),
                Err(failed) => self.recover(Err(failed), before),
            }
        }
        Ok(items)
    }

    fn deep(&mut self, depth: usize) -> Result<(), Failed> {
        if depth > MAX_DEPTH {
            return Err(self.wrong_before(format!("nested deeper than {MAX_DEPTH}")));
        }
        Ok(())
    }

    fn item(&mut self, depth: usize) -> Result<Item, Failed> {
        let word = self.any_word("instruction")?;
        if word == "loop" {
            let var = self.var()?;
            self.word("from")?;
            let start = Index::read(self)?;
            self.word("to")?;
            let end = Index::read(self)?;
            self.word("step")?;
            let step = i64::read(self)?;
            if step < 1 {
                return Err(self.wrong_before(format!("a step of {step}, but it must be positive")));
            }
            return Ok(Item::Loop { var, start, end, step, body: self.items(depth + 1)? });
        }
        let op = match word.as_str() {
            "nop" => Op::Nop,
            "dma" => Op::Dma(Box::new(self.dma()?)),
            _ => match read_operation(&word, self) {
                Some(op) => op?,
                None => return Err(self.wrong_before(format!("there is no instruction `{word}`"))),
            },
        };
        self.surroundings(op).map(Item::Instruction)
    }

    fn surroundings(&mut self, op: Op) -> Result<Instruction, Failed> {
        let mut instruction = Instruction {
            op,
            when: None,
            waits: SmallVec::new(),
            calls: SmallVec::new(),
            after: false,
            signals: SmallVec::new(),
            source: 0,
        };
        if self.accept_word("when") {
            let word = self.any_word("test")?;
            let test = match word.as_str() {
                "zero" => Test::Zero,
                "nonzero" => Test::NonZero,
                "negative" => Test::Negative,
                "nonnegative" => Test::NonNegative,
                _ => return Err(self.wrong_before(format!("there is no test `{word}`"))),
            };
            instruction.when = Some((Index::read(self)?, test));
        }
        if self.accept_word("wait") {
            instruction.waits = self.list(Parser::semaphore)?.into_iter().collect();
        }
        if self.accept_word("calls") {
            instruction.calls = self.list(Parser::operand)?.into_iter().collect();
        }
        instruction.after = self.accept_word("after");
        if self.accept_word("signal") {
            instruction.signals = self.list(Parser::semaphore)?.into_iter().collect();
        }
        if self.accept_word("source") {
            instruction.source = u16::read(self)?;
        }
        Ok(instruction)
    }

    fn dma(&mut self) -> Result<Dma, Failed> {
        let dtype = DType::read(self)?;
        let sizes = SmallVec::read(self)?;
        self.word("from")?;
        let from = self.side()?;
        self.word("to")?;
        let to = self.side()?;
        let combine = if self.accept_word("combine") { Some(Combine::read(self)?) } else { None };
        let mut indirect = None;
        if self.accept_word("rows") {
            let rows = crate::program::Access::read(self)?;
            self.word("stride")?;
            let stride = i64::read(self)?;
            self.word("extent")?;
            indirect = Some(Indirect { rows, stride, extent: i64::read(self)? });
        }
        let transpose = self.accept_word("transposed");
        Ok(Dma { dtype, sizes, from, to, combine, indirect, transpose })
    }

    fn side(&mut self) -> Result<Side, Failed> {
        let word = self.any_word("side of a transfer")?;
        self.sign("(")?;
        let side = match word.as_str() {
            "far" => {
                let operand = self.operand()?;
                self.sign(",")?;
                let offset = Index::read(self)?;
                self.sign(",")?;
                let strides = SmallVec::read(self)?;
                let mut bounds = SmallVec::new();
                while self.accept_sign(",") {
                    self.word("inside")?;
                    self.sign("(")?;
                    let at = Index::read(self)?;
                    self.sign(",")?;
                    let dims = SmallVec::read(self)?;
                    self.sign(",")?;
                    bounds.push(Bound { at, dims, extent: i64::read(self)? });
                    self.sign(")")?;
                }
                Side::Far { operand, offset, strides, bounds }
            }
            "near" => {
                let space = Field::read(self)?;
                self.sign(",")?;
                let partition = Index::read(self)?;
                self.sign(",")?;
                let offset = Index::read(self)?;
                self.sign(",")?;
                Side::Near { space, partition, offset, steps: SmallVec::read(self)? }
            }
            _ => return Err(self.wrong_before(format!("a side is near or far, not `{word}`"))),
        };
        self.sign(")")?;
        Ok(side)
    }

    fn steps(&mut self, depth: usize) -> Result<Vec<Step>, Failed> {
        self.deep(depth)?;
        self.sign("{")?;
        let mut steps = Vec::new();
        while !self.accept_sign("}") {
            if self.at_end() {
                return Err(self.expected("`}`"));
            }
            let before = self.at;
            match self.step(depth) {
                Ok(step) => steps.push(step),
                Err(failed) => self.recover(Err(failed), before),
            }
        }
        Ok(steps)
    }

    fn step(&mut self, depth: usize) -> Result<Step, Failed> {
        let word = self.any_word("step")?;
        match word.as_str() {
            "call" => {
                let kernel = self.reference('@', "kernel", |scope| &scope.kernels)?;
                self.sign("(")?;
                let mut operands = Vec::new();
                while !self.accept_sign(")") {
                    if !operands.is_empty() {
                        self.sign(",")?;
                    }
                    operands.push(self.tensor()?);
                }
                let scalar = |parser: &mut Self| {
                    if matches!(parser.peek(), TokenKind::Number(_)) {
                        return i64::read(parser).map(Value::Constant);
                    }
                    parser.tensor().map(Value::Tensor)
                };
                let scalars =
                    if self.accept_word("with") { self.list(scalar)? } else { Vec::new() };
                let sbuf_base = if self.accept_word("sbuf") { u32::read(self)? } else { 0 };
                let psum_base = if self.accept_word("psum") { u8::read(self)? } else { 0 };
                let named = self.accept_word("from");
                let origins = if named { self.list(Parser::text)? } else { Vec::new() };
                let kernel = kernel as u32;
                Ok(Step::Call { kernel, operands, scalars, sbuf_base, psum_base, origins })
            }
            "if" => {
                let condition = self.tensor()?;
                let then = self.steps(depth + 1)?;
                self.word("else")?;
                Ok(Step::If { condition, then, otherwise: self.steps(depth + 1)? })
            }
            "while" => {
                let before = self.steps(depth + 1)?;
                self.word("test")?;
                let condition = self.tensor()?;
                Ok(Step::While { before, condition, body: self.steps(depth + 1)? })
            }
            "for" => {
                let count = u64::read(self)?;
                self.word("count")?;
                let counter = self.tensor()?;
                Ok(Step::For { count, counter, body: self.steps(depth + 1)? })
            }
            _ => Err(self.wrong_before(format!("there is no step `{word}`"))),
        }
    }

    fn tensor(&mut self) -> Result<u32, Failed> {
        self.reference('%', "tensor", |scope| &scope.tensors).map(|at| at as u32)
    }

    fn operand(&mut self) -> Result<u16, Failed> {
        let at = self.reference('%', "operand", |scope| &scope.operands)?;
        u16::try_from(at).map_err(|_| self.wrong_before("too many operands"))
    }

    fn semaphore(&mut self) -> Result<Semaphore, Failed> {
        let at = self.reference('$', "semaphore", |scope| &scope.semaphores)?;
        u16::try_from(at).map(Semaphore).map_err(|_| self.wrong_before("too many semaphores"))
    }

    /// What a name or a position means.
    pub(super) fn reference(
        &mut self,
        sign: char,
        what: &str,
        list: impl Fn(&Scope) -> &Vec<String>,
    ) -> Result<usize, Failed> {
        let token = self.tokens[self.at].kind.clone();
        let names = list(&self.scope);
        let found = match &token {
            TokenKind::Name(own, name) if *own == sign => {
                let mut all = names.iter().enumerate().filter(|(_, other)| *other == name);
                let first = all.next().map(|(at, _)| at);
                if all.next().is_some() {
                    self.at += 1;
                    return Err(self.unknown(format!(
                        "several of kind {what} are called {sign}{name}: say which by its number, as in {sign}#0"
                    )));
                }
                first
            }
            TokenKind::Position(own, at) if *own == sign => {
                Some(*at as usize).filter(|at| *at < names.len())
            }
            TokenKind::Name(..)
            | TokenKind::Position(..)
            | TokenKind::Text(_)
            | TokenKind::Word(_)
            | TokenKind::Number(_)
            | TokenKind::Sign(_)
            | TokenKind::Wrong(_)
            | TokenKind::End => return Err(self.expected(&format!("a {what}"))),
        };
        self.at += 1;
        found.ok_or_else(|| {
            let written = self.written(self.at - 1);
            self.unknown(format!("there is no {what} {written}"))
        })
    }

    /// A list in brackets.
    pub(super) fn list<T>(
        &mut self,
        mut each: impl FnMut(&mut Self) -> Result<T, Failed>,
    ) -> Result<Vec<T>, Failed> {
        self.sign("[")?;
        let mut items = Vec::new();
        while !self.accept_sign("]") {
            if !items.is_empty() {
                self.sign(",")?;
            }
            items.push(each(self)?);
        }
        Ok(items)
    }

    pub(super) fn peek(&self) -> &TokenKind {
        &self.tokens[self.at].kind
    }

    fn at_end(&self) -> bool {
        *self.peek() == TokenKind::End
    }

    pub(super) fn at_word(&self, word: &str) -> bool {
        matches!(self.peek(), TokenKind::Word(own) if own == word)
    }

    pub(super) fn accept_word(&mut self, word: &str) -> bool {
        let found = self.at_word(word);
        self.at += usize::from(found);
        found
    }

    pub(super) fn accept_sign(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), TokenKind::Sign(own) if *own == sign);
        self.at += usize::from(found);
        found
    }

    pub(super) fn word(&mut self, word: &str) -> Result<(), Failed> {
        if self.accept_word(word) { Ok(()) } else { Err(self.expected(&format!("`{word}`"))) }
    }

    pub(super) fn sign(&mut self, sign: &str) -> Result<(), Failed> {
        if self.accept_sign(sign) { Ok(()) } else { Err(self.expected(&format!("`{sign}`"))) }
    }

    pub(super) fn any_word(&mut self, what: &str) -> Result<String, Failed> {
        if let TokenKind::Word(word) = self.peek() {
            let word = word.clone();
            self.at += 1;
            return Ok(word);
        }
        Err(self.expected(&format!("a {what}")))
    }

    pub(super) fn number(&mut self) -> Result<String, Failed> {
        if let TokenKind::Number(text) = self.peek() {
            let text = text.clone();
            self.at += 1;
            return Ok(text);
        }
        Err(self.expected("a number"))
    }

    /// A number, `inf` or `-inf`.
    pub(super) fn number_or_infinity(&mut self) -> Result<String, Failed> {
        if self.accept_word("inf") {
            return Ok("inf".to_owned());
        }
        self.number()
    }

    pub(super) fn text(&mut self) -> Result<String, Failed> {
        if let TokenKind::Text(text) = self.peek() {
            let text = text.clone();
            self.at += 1;
            return Ok(text);
        }
        Err(self.expected("a text in quotes"))
    }

    fn name(&mut self, sign: char) -> Result<String, Failed> {
        if let TokenKind::Name(own, name) = self.peek()
            && *own == sign
        {
            let name = name.clone();
            self.at += 1;
            return Ok(name);
        }
        Err(self.expected(&format!("a name behind `{sign}`")))
    }

    fn written(&self, at: usize) -> &str {
        let Span { start, end } = self.tokens[at].span;
        self.source.get(start..end).unwrap_or_default()
    }

    fn expected(&mut self, what: &str) -> Failed {
        let found = if self.at_end() {
            "the end".to_owned()
        } else {
            format!("`{}`", self.written(self.at))
        };
        let span = self.tokens[self.at].span;
        self.note(Code::Syntax, format!("expected {what}, found {found}"), span)
    }

    /// Where the token is that was just read.
    pub(super) fn span_before(&self) -> Span {
        self.tokens[self.at.saturating_sub(1)].span
    }

    /// A mistake in the token that was just read.
    pub(super) fn wrong_before(&mut self, message: impl Into<String>) -> Failed {
        let span = self.tokens[self.at.saturating_sub(1)].span;
        self.note(Code::Syntax, message.into(), span)
    }

    fn unknown(&mut self, message: String) -> Failed {
        let span = self.tokens[self.at.saturating_sub(1)].span;
        self.note(Code::UnknownName, message, span)
    }

    fn note(&mut self, code: Code, message: String, span: Span) -> Failed {
        if self.problems.0.len() < MAX_PROBLEMS {
            self.problems.push(Diagnostic::error(code, message).at(span));
        }
        Failed
    }

    /// After a mistake, goes on with the next line or the end of the block.
    fn recover(&mut self, read: Result<(), Failed>, before: usize) {
        if read.is_ok() {
            return;
        }
        if self.at == before && !self.at_end() {
            self.at += 1;
        }
        let closes = |token: &Token| token.kind == TokenKind::Sign("}");
        while !self.at_end() && !self.tokens[self.at].leads && !closes(&self.tokens[self.at]) {
            self.at += 1;
        }
    }
}
