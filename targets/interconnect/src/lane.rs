//! Where a group lies on the fabric: for each tier that it uses, how many members and how far apart.

use crate::error::CollectiveError;
use crate::group::Group;
use crate::system::{System, Tier, TierKind};

/// What a group uses of one axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Which axis of the tier.
    pub axis: usize,
    /// How many members take part.
    pub count: usize,
    /// How far apart they are, in members.
    pub stride: usize,
    /// Whether the last reaches the first as any other its next.
    pub ring: bool,
    /// Whether links work both ways.
    pub both_ways: bool,
    /// What its link moves in one direction.
    pub line_gbs: f64,
    /// What a rank gets of its link in one direction, where all groups of this form work at once.
    pub gbs: f64,
}

/// What a group uses of one tier: the axes on which it has more than one member.
#[derive(Clone, Debug, PartialEq)]
pub struct Lane<'s> {
    /// The tier.
    pub tier: &'s Tier,
    /// Which tier of the system.
    pub index: usize,
    /// The axes in use.
    pub spans: Vec<Span>,
}

/// Where a group lies.
#[derive(Clone, Debug, PartialEq)]
pub struct Lanes<'s> {
    /// The tiers in use, innermost first.
    pub lanes: Vec<Lane<'s>>,
    /// Whether the group is a full sub-mesh: every combination of the members that it has on each axis.
    pub regular: bool,
    /// How many ranks it has.
    pub ranks: usize,
}

impl Lane<'_> {
    /// How many members take part.
    pub fn count(&self) -> usize {
        self.spans.iter().map(|span| span.count).product()
    }

    /// What a rank sends at most in all directions together, if it has its links for itself.
    pub fn injection_gbs(&self) -> f64 {
        let span = |span: &Span| match self.tier.kind {
            TierKind::Torus if span.both_ways && !(span.count == 2 && span.stride == 1) => {
                2.0 * span.line_gbs
            }
            TierKind::Torus | TierKind::Switch => span.line_gbs,
            TierKind::Mesh => span.line_gbs * (span.count - 1) as f64,
        };
        self.spans.iter().map(span).sum()
    }

    /// What one step to a neighbour takes in crossings.
    pub fn neighbour_us(&self) -> f64 {
        let far = self.spans.iter().map(|span| span.stride).max().unwrap_or(1);
        let far = if self.tier.kind == TierKind::Torus { far as f64 } else { 1.0 };
        self.tier.hop_us * self.tier.crossings * far
    }

    /// What one step from any member to any other takes in crossings, at most.
    pub fn farthest_us(&self) -> f64 {
        let hops: usize = match self.tier.kind {
            TierKind::Torus => {
                let axis = |span: &Span| match span.ring && span.both_ways {
                    true => span.count / 2 * span.stride,
                    false => (span.count - 1) * span.stride,
                };
                self.spans.iter().map(axis).sum()
            }
            TierKind::Switch | TierKind::Mesh => 1,
        };
        self.tier.hop_us * self.tier.crossings * hops as f64
    }
}

/// Finds where a group lies, or what is wrong with it.
pub(crate) fn lanes<'s>(system: &'s System, group: &Group) -> Result<Lanes<'s>, CollectiveError> {
    let chips = system.chips();
    let ranks = group.ranks();
    if ranks < 2 {
        return Err(CollectiveError::TooFewRanks(ranks));
    }
    if ranks > chips {
        let system = system.name.clone();
        return Err(CollectiveError::TooManyRanks { ranks, chips, system });
    }
    let mut seen = vec![false; chips];
    for (rank, &chip) in group.chips().iter().enumerate() {
        let chip = chip as usize;
        if seen.get(chip).copied().unwrap_or(true) {
            let system = system.name.clone();
            return Err(CollectiveError::BadChip { rank, chip, chips, system });
        }
        seen[chip] = true;
    }
    // Which places are in use on each axis.
    let sizes: Vec<usize> =
        system.tiers.iter().flat_map(|tier| &tier.axes).map(|axis| axis.size).collect();
    let mut used: Vec<Vec<bool>> = sizes.iter().map(|&size| vec![false; size]).collect();
    for &chip in group.chips() {
        let mut rest = chip as usize;
        for (used, &size) in used.iter_mut().zip(&sizes) {
            used[rest % size] = true;
            rest /= size;
        }
    }
    let mut regular = true;
    let mut product = 1usize;
    let mut lanes = Vec::new();
    let mut at = 0;
    for (index, tier) in system.tiers.iter().enumerate() {
        let mut spans = Vec::new();
        for (axis, description) in tier.axes.iter().enumerate() {
            let places: Vec<usize> = (0..description.size).filter(|&p| used[at][p]).collect();
            at += 1;
            let count = places.len();
            product = product.saturating_mul(count);
            if count < 2 {
                continue;
            }
            let stride = places[1] - places[0];
            let even = places.windows(2).all(|pair| pair[1] - pair[0] == stride);
            regular &= even;
            let torus = tier.kind == TierKind::Torus;
            let closes = count * stride == description.size;
            // Groups of the same form that lie between the members share every link that a stride runs over.
            let share = if torus && even { stride as f64 } else { 1.0 };
            let line = description.link_gbs / tier.oversubscription;
            spans.push(Span {
                axis,
                count,
                stride,
                ring: !torus || (description.wraps && even && closes),
                both_ways: description.both_ways,
                line_gbs: line,
                gbs: line / share,
            });
        }
        if !spans.is_empty() {
            lanes.push(Lane { tier, index, spans });
        }
    }
    regular &= product == ranks;
    Ok(Lanes { lanes, regular, ranks })
}
