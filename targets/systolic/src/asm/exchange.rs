//! Exchanges as text: `exchange all-reduce f32[8, 16] to f32[8, 16] {combine = sum, groups = [[0, 1]]}`.

use super::field::Field;
use super::lexer::TokenKind;
use super::parse::{Failed, Parser};
use crate::program::Exchange;
use systole_compiler::op::{AttrReader, AttrValue, AttrWriter, Attribute, Kind, Op};
use systole_compiler::types::{DType, TensorType};

/// Lists are nested no deeper.
const MAX_DEPTH: usize = 8;

/// One line, without its indentation.
pub(super) fn text(exchange: &Exchange) -> String {
    let mut text = format!("exchange {} ", exchange.op.name());
    if let Some(operand) = &exchange.operand {
        text.push_str(&format!("{operand} "));
    }
    text.push_str(&format!("to {} {{", exchange.result));
    let mut writer = AttrWriter::default();
    exchange.op.write(&mut writer);
    for (position, (key, value)) in writer.attributes.iter().enumerate() {
        let comma = if position > 0 { ", " } else { "" };
        text.push_str(&format!("{comma}{key} = {}", attribute(value)));
    }
    text.push('}');
    text
}

fn attribute(value: &AttrValue) -> String {
    match value {
        AttrValue::Int(number) => number.to_string(),
        AttrValue::Word(word) | AttrValue::Text(word) => word.clone(),
        AttrValue::Bool(value) => value.to_string(),
        AttrValue::List(items) => {
            let items: Vec<String> = items.iter().map(attribute).collect();
            format!("[{}]", items.join(", "))
        }
        AttrValue::Float(_) | AttrValue::Type(_) | AttrValue::Tensor(_) => {
            unreachable!("collectives have numbers, words and lists of them")
        }
    }
}

/// What stands behind `exchange`.
pub(super) fn read(parser: &mut Parser<'_>) -> Result<Exchange, Failed> {
    let name = parser.any_word("collective")?;
    let known = systole_compiler::op::CATALOG.iter();
    if !known.filter(|row| row.1 == Kind::Collective).any(|row| row.0 == name) {
        return Err(parser.wrong_before(format!("there is no collective `{name}`")));
    }
    let operand = if parser.at_word("to") { None } else { Some(tensor_type(parser)?) };
    parser.word("to")?;
    let result = tensor_type(parser)?;
    parser.sign("{")?;
    let mut attributes = Vec::new();
    while !parser.accept_sign("}") {
        if !attributes.is_empty() {
            parser.sign(",")?;
        }
        let (key, span) = (parser.any_word("attribute")?, parser.span_before());
        parser.sign("=")?;
        attributes.push(Attribute { key, value: value(parser, 0)?, span });
    }
    let mut reader = AttrReader::new(&attributes, parser.span_before());
    let op = Op::read(&name, &mut reader);
    let problems = reader.finish();
    if let Some(problem) = problems.0.first() {
        return Err(parser.wrong_before(problem.message.clone()));
    }
    let op = op.ok_or_else(|| parser.wrong_before(format!("{name} wants other attributes")))?;
    Ok(Exchange { op, operand, result })
}

fn tensor_type(parser: &mut Parser<'_>) -> Result<TensorType, Failed> {
    let dtype = DType::read(parser)?;
    let shape: Vec<usize> = parser.list(|parser| u32::read(parser).map(|size| size as usize))?;
    let ty = TensorType::new(dtype, &shape);
    let bytes = shape
        .iter()
        .try_fold(dtype.bytes(), |all, &size| all.checked_mul(size))
        .filter(|&bytes| bytes <= systole_compiler::types::MAX_TENSOR_BYTES);
    match bytes {
        Some(_) => Ok(ty),
        None => Err(parser.wrong_before("a tensor that is too large")),
    }
}

fn value(parser: &mut Parser<'_>, depth: usize) -> Result<AttrValue, Failed> {
    if depth > MAX_DEPTH {
        return Err(parser.wrong_before(format!("nested deeper than {MAX_DEPTH}")));
    }
    match parser.peek() {
        TokenKind::Number(_) => i64::read(parser).map(AttrValue::Int),
        TokenKind::Sign("[") => parser.list(|parser| value(parser, depth + 1)).map(AttrValue::List),
        TokenKind::Sign(_)
        | TokenKind::Word(_)
        | TokenKind::Text(_)
        | TokenKind::Name(..)
        | TokenKind::Position(..)
        | TokenKind::Wrong(_)
        | TokenKind::End => match parser.any_word("value")?.as_str() {
            "true" => Ok(AttrValue::Bool(true)),
            "false" => Ok(AttrValue::Bool(false)),
            word => Ok(AttrValue::Word(word.to_owned())),
        },
    }
}
