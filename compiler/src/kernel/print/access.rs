//! Positions in loads, stores and views. A dimension whose axis the tile has, and which no position mentions, gets that
//! axis by itself: what this rule restores is left out, and what it would add wrongly is written as `0*axis`.

use super::super::{Affine, Axis, OperandId, Term, TileId};
use super::Printer;

/// For some dimensions, the tile with the position.
pub(super) type Index<'a> = &'a [(usize, TileId)];

impl Printer<'_> {
    /// Positions in an operand, without brackets.
    pub(super) fn operand_access(
        self,
        operand: OperandId,
        at: &[Affine],
        index: Index<'_>,
        tile: Option<TileId>,
    ) -> String {
        let operand = self.kernel.operands.get(operand);
        let called: Vec<Option<Axis>> = (0..at.len())
            .map(|dim| operand.and_then(|operand| operand.dims.get(dim)).map(|&(axis, _)| axis))
            .collect();
        let positions = (0..at.len()).map(|dim| {
            let position = self.position(at, &called, index, tile, dim);
            match index.iter().find(|&&(other, _)| other == dim) {
                None => position,
                Some(&(_, index)) if position == "0" => self.value(index),
                Some(&(_, index)) if position.starts_with('-') => {
                    let rest = position[1..].to_owned();
                    format!("{} - {rest}", self.value(index))
                }
                Some(&(_, index)) => format!("{} + {position}", self.value(index)),
            }
        });
        positions.collect::<Vec<String>>().join(", ")
    }

    /// Positions in a tile, by axis, without brackets. Those that are zero but for the rule are left out.
    pub(super) fn view_access(self, viewed: TileId, at: &[Affine], tile: Option<TileId>) -> String {
        let dims = self.kernel.tiles.get(viewed).map(|tile| tile.dims.clone()).unwrap_or_default();
        let called: Vec<Option<Axis>> =
            (0..at.len()).map(|dim| dims.get(dim).map(|&(axis, _)| axis)).collect();
        let entries = (0..at.len()).filter_map(|dim| {
            let position = self.position(at, &called, &[], tile, dim);
            let axis = called[dim].map_or("?".to_owned(), |axis| self.names.axis(axis));
            (position != "0").then(|| format!("{axis} = {position}"))
        });
        entries.collect::<Vec<String>>().join(", ")
    }

    /// The position along one dimension, without what the rule restores.
    fn position(
        self,
        at: &[Affine],
        called: &[Option<Axis>],
        index: Index<'_>,
        tile: Option<TileId>,
        dim: usize,
    ) -> String {
        let plain = self.affine(&at[dim]);
        let Some(axis) = called[dim] else { return plain };
        let has_axis = tile
            .and_then(|tile| self.kernel.tiles.get(tile))
            .is_some_and(|tile| tile.extent(axis).is_some());
        let indexed = |dim: usize| index.iter().any(|&(other, _)| other == dim);
        let first = (0..dim).all(|other| called[other] != Some(axis) || indexed(other));
        if !has_axis || indexed(dim) || !first {
            return plain;
        }
        let term = Term::Axis(axis);
        let mentioned = |dim: usize| at[dim].coefficient(term) != 0;
        if (0..at.len()).any(|other| other != dim && mentioned(other)) {
            return plain;
        }
        match at[dim].coefficient(term) {
            1 => self.affine(&at[dim].plus(&Affine::axis(axis), -1)),
            0 if plain == "0" => format!("0*{}", self.names.axis(axis)),
            0 => format!("0*{} + {plain}", self.names.axis(axis)),
            _ => plain,
        }
    }

    /// `h*2 + r + %i - 1`
    pub(super) fn affine(self, affine: &Affine) -> String {
        let mut terms = affine.terms().to_vec();
        terms.sort_by_key(|&(term, _)| self.names.rank(term));
        let mut text = String::new();
        let mut add = |sign: i64, magnitude: String| {
            let joined = match (text.is_empty(), sign < 0) {
                (true, true) => "-",
                (true, false) => "",
                (false, true) => " - ",
                (false, false) => " + ",
            };
            text += joined;
            text += &magnitude;
        };
        for (term, coefficient) in terms {
            let name = match term {
                Term::Axis(axis) => self.names.axis(axis),
                Term::Var(var) => format!("%{}", self.names.var(var)),
            };
            let times = match coefficient.unsigned_abs() {
                1 => name,
                factor => format!("{name}*{factor}"),
            };
            add(coefficient, times);
        }
        if affine.constant != 0 || affine.terms().is_empty() {
            add(affine.constant, affine.constant.unsigned_abs().to_string());
        }
        text
    }
}
