//! For every piece of a memory, who wrote it last and who has read it since.

use super::footprint::Region;
use smallvec::SmallVec;

/// What is known of a piece of memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    /// The execution that wrote it last.
    pub(super) writer: Option<u32>,
    /// Bytes of the elements that were written; 0 where any will do.
    pub(super) width: u8,
    /// All that was written with it.
    pub(super) extent: Option<Box<Region>>,
    /// Executions that have read it since.
    pub(super) readers: SmallVec<[u32; 4]>,
}

/// The shadow of one memory: the number of a state for each granule of each piece of partitions.
#[derive(Debug)]
pub(super) struct Shadow {
    granule: i64,
    /// Where pieces of partitions begin, and the end of the last.
    cuts: Vec<i64>,
    granules: usize,
    cells: Vec<u32>,
    states: Vec<State>,
}

/// The pieces a memory is cut into, found from all regions before anything is followed.
#[derive(Clone, Debug, Default)]
pub(super) struct Pieces {
    granule: u64,
    cuts: std::collections::BTreeSet<i64>,
    high: i64,
}

impl Pieces {
    pub(super) fn see(&mut self, region: &Region) {
        self.granule = region.granule(self.granule);
        self.cuts.insert(region.first);
        self.cuts.insert(region.end);
        self.high = self.high.max(region.hull().1);
    }

    /// How many cells a shadow of these takes.
    pub(super) fn cells(&self) -> i64 {
        let granules = self.high / self.granule.max(1) as i64 + 1;
        granules.saturating_mul(self.cuts.len().saturating_sub(1).max(1) as i64)
    }

    pub(super) fn shadow(&self) -> Shadow {
        let granule = self.granule.max(1) as i64;
        let granules = (self.high / granule + 1).max(0) as usize;
        let cuts: Vec<i64> = self.cuts.iter().copied().collect();
        let pieces = cuts.len().saturating_sub(1);
        let states = vec![State::default()];
        Shadow { granule, cuts, granules, cells: vec![0; pieces * granules], states }
    }
}

impl Shadow {
    /// The different states in a region.
    pub(super) fn states_in(&self, region: &Region) -> SmallVec<[u32; 8]> {
        let mut found: SmallVec<[u32; 8]> = SmallVec::new();
        let mut last = u32::MAX;
        for piece in self.pieces(region) {
            let row = &self.cells[piece * self.granules..(piece + 1) * self.granules];
            region.each_run(&mut |start| {
                for &state in &row[self.range(start, region.run)] {
                    if state != last {
                        last = state;
                        if !found.contains(&state) {
                            found.push(state);
                        }
                    }
                }
            });
        }
        found
    }

    pub(super) fn state(&self, number: u32) -> &State {
        &self.states[number as usize]
    }

    /// Adds a reader to all of a region. `before` are the states in it.
    pub(super) fn read(
        &mut self,
        region: &Region,
        before: &[u32],
        reader: u32,
        keeps: &impl Fn(u32) -> bool,
    ) {
        let mut after: SmallVec<[(u32, u32); 8]> = SmallVec::new();
        for &number in before {
            let mut state = self.states[number as usize].clone();
            if state.readers.contains(&reader) {
                continue;
            }
            state.readers.retain(|other| keeps(*other));
            state.readers.push(reader);
            after.push((number, self.push(state)));
        }
        self.replace(region, |state| {
            after.iter().find(|(old, _)| *old == state).map_or(state, |&(_, new)| new)
        });
    }

    /// Makes an execution the writer of a region; whether it reached a place twice.
    pub(super) fn write(&mut self, region: &Region, writer: u32, width: u8) -> bool {
        let extent = Some(Box::new(region.clone()));
        let new =
            self.push(State { writer: Some(writer), width, extent, readers: SmallVec::new() });
        let mut twice = false;
        self.replace(region, |state| {
            twice |= state == new;
            new
        });
        twice
    }

    fn push(&mut self, state: State) -> u32 {
        self.states.push(state);
        (self.states.len() - 1) as u32
    }

    /// Forgets states that no cell has, where there are many. Numbers of states change.
    pub(super) fn tidy(&mut self) {
        if self.states.len() < 1 << 20 {
            return;
        }
        let mut place = vec![u32::MAX; self.states.len()];
        let mut kept = Vec::new();
        place[0] = 0;
        kept.push(State::default());
        for cell in &mut self.cells {
            let old = *cell as usize;
            if place[old] == u32::MAX {
                place[old] = kept.len() as u32;
                kept.push(self.states[old].clone());
            }
            *cell = place[old];
        }
        self.states = kept;
    }

    fn replace(&mut self, region: &Region, mut change: impl FnMut(u32) -> u32) {
        for piece in self.pieces(region) {
            let base = piece * self.granules;
            let mut runs: SmallVec<[std::ops::Range<usize>; 4]> = SmallVec::new();
            region.each_run(&mut |start| runs.push(self.range(start, region.run)));
            let row = &mut self.cells[base..base + self.granules];
            for run in runs {
                for cell in &mut row[run] {
                    *cell = change(*cell);
                }
            }
        }
    }

    fn range(&self, start: i64, run: i64) -> std::ops::Range<usize> {
        let first = (start / self.granule) as usize;
        first..first + (run / self.granule) as usize
    }

    fn pieces(&self, region: &Region) -> std::ops::Range<usize> {
        let find = |at: i64| self.cuts.binary_search(&at).unwrap_or_else(|place| place);
        find(region.first)..find(region.end)
    }
}
