//! Skips steady loops exactly. When everything that later times depend on is as it was some iterations ago, only later, the
//! machine will go on repeating what it did in between, for as long as no loop ends and nothing that depends on a loop's
//! variable changes. Those repetitions are counted instead of carried out.

use super::clock::Ticks;
use super::code::{Fixed, LoopCode};
use super::engine::{Active, Next, Simulation, unchanged_until};
use super::report::Counters;
use crate::program::{Index, Term};
use smallvec::SmallVec;
use std::collections::BTreeMap;

/// For each engine, the loop level that moved and by how many iterations.
type Moves = [Option<(usize, u64)>; 5];

/// What was seen at loops, to compare with.
#[derive(Debug, Default)]
pub(super) struct Watch {
    call: usize,
    seen: BTreeMap<u32, Reference>,
    scratch: Vec<u64>,
    /// Periods that were not carried out.
    pub(super) skipped: u64,
}

/// The state of the machine at the end of an iteration.
#[derive(Debug)]
struct Reference {
    visits: u64,
    relative: Vec<u64>,
    loops: [SmallVec<[Active; 8]>; 5],
    now: Ticks,
    counters: Counters,
}

/// After so many visits to a loop without a repetition, only every sixteenth is compared.
const PATIENCE: u64 = 256;

impl Simulation<'_> {
    /// Called when the primary engine begins another iteration of its innermost active loop.
    pub(super) fn look_for_steady_state(&mut self, engine: usize) {
        let call = self.engines[engine].call;
        if self.watch.call != call {
            self.watch.call = call;
            self.watch.seen.clear();
        }
        let Some(active) = self.engines[engine].loops.last() else { return };
        let (key, iteration) = (active.index, active.iteration);
        if let Some(reference) = self.watch.seen.get_mut(&key) {
            reference.visits += 1;
            if reference.visits > PATIENCE && !iteration.is_multiple_of(16) {
                return;
            }
        }
        let mut relative = std::mem::take(&mut self.watch.scratch);
        relative.clear();
        self.describe(&mut relative);
        let found = self.watch.seen.get(&key);
        let repeats = found
            .filter(|reference| reference.relative == relative)
            .and_then(|reference| self.repetitions(reference));
        if let Some((times, moves)) = repeats {
            self.skip(key, times, &moves);
            self.watch.seen.remove(&key);
            self.watch.scratch = relative;
            return;
        }
        let visits = self.watch.seen.get(&key).map_or(0, |reference| reference.visits);
        if visits == 0 || visits.is_power_of_two() || iteration.is_power_of_two() {
            let reference = Reference {
                visits: visits.max(1),
                relative: relative.clone(),
                loops: std::array::from_fn(|at| self.engines[at].loops.clone()),
                now: self.now,
                counters: self.counters.clone(),
            };
            self.watch.seen.insert(key, reference);
        }
        self.watch.scratch = relative;
    }

    /// Everything that later times depend on, as seen from now. Times in the past are all alike.
    fn describe(&self, into: &mut Vec<u64>) {
        let now = self.now;
        let since = |time: Ticks| time.saturating_sub(now);
        for runner in &self.engines {
            into.extend([runner.call as u64, u64::from(runner.entered), u64::from(runner.pc)]);
            into.extend(
                runner.loops.iter().flat_map(|active| [u64::from(active.index), active.trips]),
            );
            let earliest = now.saturating_sub(self.timing().longest_load);
            let began = runner.began.max(earliest).wrapping_sub(now);
            into.extend([since(runner.free), began, since(runner.complete)]);
        }
        into.extend(self.queues.iter().map(|&time| since(time)));
        into.extend(self.dma.iter().map(|&time| since(time)));
        for pending in &self.pending {
            let place = [pending.call as u64, pending.engine as u64, u64::from(pending.timed)];
            into.extend(place);
            into.push(since(pending.data));
        }
        into.extend([since(self.hbm), since(self.finish)]);
        for (time, engine) in [self.sbuf_port, self.psum_port] {
            into.extend([since(time), engine as u64]);
        }
        self.throttle.describe(now, into);
        into.push(self.functions.map_or(u64::MAX, u64::from));
        into.extend([self.oldest as u64, self.calls.len() as u64]);
        for call in &self.calls[self.oldest..] {
            into.extend([
                u64::from(call.open),
                u64::from(call.pending),
                since(call.floor),
                since(call.latest),
            ]);
            for &earlier in call.space.iter().chain(call.data.iter().flatten()) {
                into.push(self.calls[earlier].completed.map_or(u64::MAX, since));
            }
            for tokens in &call.tokens {
                into.push(tokens.len() as u64);
                into.extend(tokens.iter().map(|&time| since(time)));
            }
        }
    }

    /// How often what happened since the reference can be repeated, and by how many iterations each engine's loops moved.
    fn repetitions(&self, reference: &Reference) -> Option<(u64, Moves)> {
        let mut times = u64::MAX;
        let mut moves = [None; 5];
        for (engine, moves) in moves.iter_mut().enumerate() {
            let (now, then) = (&self.engines[engine].loops, &reference.loops[engine]);
            if now.len() != then.len() {
                return None;
            }
            let pairs = now.iter().zip(then).enumerate();
            let mut differ = pairs.filter(|(_, (now, then))| now.iteration != then.iteration);
            let Some((level, (active, before))) = differ.next() else { continue };
            if differ.next().is_some() || active.iteration < before.iteration {
                return None;
            }
            let moved = active.iteration - before.iteration;
            let code = &self.code[self.calls[self.engines[engine].call].kernel];
            let info = &code.streams[engine].loops[active.index as usize];
            let mut last = active.trips - 1;
            for fixed in &info.fixed {
                if let Fixed::Turns(turns) = fixed
                    && !moved.is_multiple_of(*turns)
                {
                    return None;
                }
                let line = |index: &Index| self.line(engine, info, active, before.iteration, index);
                last = last.min(unchanged_until(fixed, before.iteration, &line));
            }
            times = times.min(last.checked_sub(active.iteration)? / moved);
            *moves = Some((level, moved));
        }
        (times > 0 && times < u64::MAX).then_some((times, moves))
    }

    /// The value of an index at an iteration of a loop, and what each further one adds.
    fn line(
        &self,
        engine: usize,
        info: &LoopCode<'_>,
        active: &Active,
        iteration: u64,
        index: &Index,
    ) -> (i64, i64) {
        let own = index.terms.iter().filter(|(term, _)| match term {
            Term::Var(var) => usize::from(var.0) == info.var,
            Term::Turn(..) => false,
        });
        let slope = own.fold(0i64, |sum, &(_, f)| sum.saturating_add(f.saturating_mul(info.step)));
        let back = i64::try_from(active.iteration - iteration).unwrap_or(i64::MAX);
        let value = self.engines[engine].value(index);
        (value.saturating_sub(slope.saturating_mul(back)), slope)
    }

    fn skip(&mut self, key: u32, times: u64, moves: &[Option<(usize, u64)>; 5]) {
        let Some(reference) = self.watch.seen.get(&key) else { return };
        let shift = (self.now - reference.now).saturating_mul(times);
        self.counters.repeat(&reference.counters, times);
        let now = self.now;
        let later = |time: &mut Ticks| *time = time.saturating_add(shift);
        for (engine, moved) in moves.iter().enumerate() {
            let runner = &mut self.engines[engine];
            later(&mut runner.free);
            later(&mut runner.began);
            later(&mut runner.complete);
            let Some((level, moved)) = *moved else { continue };
            let code = &self.code[self.calls[runner.call].kernel];
            let active = &mut runner.loops[level];
            let iterations = moved.saturating_mul(times);
            active.iteration += iterations;
            let info = &code.streams[engine].loops[active.index as usize];
            runner.iterations[info.var] = active.iteration;
            let far = info.step.saturating_mul(i64::try_from(iterations).unwrap_or(i64::MAX));
            runner.values[info.var] = runner.values[info.var].saturating_add(far);
        }
        self.queues.iter_mut().chain(&mut self.dma).for_each(later);
        self.pending.iter_mut().for_each(|pending| later(&mut pending.data));
        later(&mut self.hbm);
        later(&mut self.finish);
        later(&mut self.sbuf_port.0);
        later(&mut self.psum_port.0);
        self.throttle.shift(shift);
        for call in &mut self.calls[self.oldest..] {
            if call.latest > now || call.completed.is_none() {
                later(&mut call.latest);
            }
            call.tokens.iter_mut().flatten().for_each(later);
        }
        later(&mut self.now);
        for runner in &mut self.engines {
            runner.next = match runner.next {
                Next::Ready(timed, _) | Next::Blocked(timed) => Next::Found(timed),
                Next::Found(_) | Next::Unknown | Next::Idle => runner.next,
            };
        }
        self.watch.skipped += times;
    }
}
