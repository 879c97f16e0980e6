//! Real routes: which links a message crosses, by dimension order.

use crate::system::{System, TierKind};

/// Every directed link of a system, numbered. A chip has, on every tier: two ways along each axis of a torus, one port out and
/// one in at a switch, one link to every other member of a mesh.
#[derive(Debug)]
pub(crate) struct Links<'s> {
    system: &'s System,
    /// The first number of each axis of each tier, for chip 0.
    bases: Vec<Vec<usize>>,
    /// How many links a chip has.
    per_chip: usize,
    /// The rate of each of them.
    rates: Vec<f64>,
}

/// What a message crosses.
#[derive(Debug, Default)]
pub(crate) struct Route {
    /// Links, by number.
    pub(crate) links: Vec<usize>,
    /// What crossing them takes.
    pub(crate) crossing_us: f64,
}

impl<'s> Links<'s> {
    pub(crate) fn new(system: &'s System) -> Links<'s> {
        let mut per_chip = 0;
        let mut bases = Vec::new();
        let mut rates = Vec::new();
        for tier in &system.tiers {
            let mut of_tier = Vec::new();
            for axis in &tier.axes {
                of_tier.push(per_chip);
                per_chip += match tier.kind {
                    TierKind::Torus | TierKind::Switch => 2,
                    TierKind::Mesh => axis.size,
                };
                rates.resize(per_chip, axis.link_gbs * 1e3 / tier.oversubscription);
            }
            bases.push(of_tier);
        }
        Links { system, bases, per_chip, rates }
    }

    /// How many numbers there are.
    pub(crate) fn count(&self) -> usize {
        self.system.chips() * self.per_chip
    }

    /// The rate of a link in bytes a microsecond.
    pub(crate) fn rate(&self, link: usize) -> f64 {
        self.rates[link % self.per_chip]
    }

    fn number(&self, chip: usize, tier: usize, axis: usize, way: usize) -> usize {
        chip * self.per_chip + self.bases[tier][axis] + way
    }

    /// Out of a chip into its switch and back: what a message crosses that the switch adds up or copies.
    pub(crate) fn turn(&self, chip: usize, tier: usize) -> Route {
        let links = vec![self.number(chip, tier, 0, 0), self.number(chip, tier, 0, 1)];
        let tier = &self.system.tiers[tier];
        Route { links, crossing_us: tier.hop_us * tier.crossings }
    }

    /// From one chip to another: over the outermost tier on which they differ first. A switch reaches every chip behind it.
    pub(crate) fn route(&self, from: usize, to: usize) -> Route {
        let mut route = Route::default();
        let mut at = from;
        while at != to {
            let Some((index, stride)) = self.outermost(at, to) else { return route };
            let tier = &self.system.tiers[index];
            match tier.kind {
                TierKind::Switch => {
                    route.links.push(self.number(at, index, 0, 0));
                    route.links.push(self.number(to, index, 0, 1));
                    route.crossing_us += tier.hop_us * tier.crossings;
                    at = to;
                }
                TierKind::Mesh => {
                    let size = tier.axes[0].size;
                    let (here, there) = (at / stride % size, to / stride % size);
                    route.links.push(self.number(at, index, 0, there));
                    route.crossing_us += tier.hop_us * tier.crossings;
                    at = at - here * stride + there * stride;
                }
                TierKind::Torus => at = self.along(index, stride, at, to, &mut route),
            }
        }
        route
    }

    /// The outermost tier on which two chips differ, and how far apart in numbers its neighbours are.
    fn outermost(&self, a: usize, b: usize) -> Option<(usize, usize)> {
        let mut stride = 1;
        let mut found = None;
        for (index, tier) in self.system.tiers.iter().enumerate() {
            let size = tier.size();
            if a / stride % size != b / stride % size {
                found = Some((index, stride));
            }
            stride *= size;
        }
        found
    }

    /// Walks all axes of a torus, the shorter way round each.
    fn along(
        &self,
        index: usize,
        stride: usize,
        from: usize,
        to: usize,
        route: &mut Route,
    ) -> usize {
        let tier = &self.system.tiers[index];
        let mut at = from;
        let mut stride = stride;
        for (number, axis) in tier.axes.iter().enumerate() {
            let size = axis.size;
            let (mut here, there) = (at / stride % size, to / stride % size);
            let forth = (there + size - here) % size;
            let back = size - forth;
            let up = match (axis.wraps, axis.both_ways) {
                (_, false) => true,
                (false, true) => there > here,
                // Half-way round, places with even numbers go one way and the others the other.
                (true, true) if forth == back => here.is_multiple_of(2),
                (true, true) => forth < back,
            };
            while here != there {
                route.links.push(self.number(at, index, number, usize::from(!up)));
                route.crossing_us += tier.hop_us * tier.crossings;
                let next = if up { (here + 1) % size } else { (here + size - 1) % size };
                at = at - here * stride + next * stride;
                here = next;
            }
            stride *= size;
        }
        at
    }
}
