//! Several ranks that run programs with collectives: what a collective gives, and how ranks meet.
//!
//! A collective is issued by every rank of a group; the k-th call of a group on one rank meets the k-th on the others.
//! Values join in the order in which the group lists its ranks, so results are the same on every run. A message of
//! `permute` waits for its receiver, not its sender for it. Ranks that cannot go on, because another failed or waits for
//! them in vain, end with an error that says where each stands; none waits for ever.

mod check;

pub use check::check;

use crate::evaluate::EvaluateError;
use crate::kernel::Combine;
use crate::op::{AttrValue, AttrWriter, Concat, Op, Slice};
use crate::tensor::{Tensor, shape_text};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// What a rank does with its collectives.
pub trait Exchange: Sync {
    /// Its number.
    fn rank(&self) -> usize;
    /// What a collective gives here. It waits for the others, or says why they do not come.
    fn exchange(&self, op: &Op, operand: &Tensor) -> Result<Tensor, String>;
}

/// The only rank there is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Exchange for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn exchange(&self, op: &Op, operand: &Tensor) -> Result<Tensor, String> {
        let parts = parts(op);
        match parts {
            Parts::Groups(groups) if groups.iter().all(|group| group.len() == 1) => {
                Ok(operand.clone())
            }
            Parts::Pairs(pairs) if pairs.iter().all(|pair| pair == &[0, 0]) => {
                let receives = !pairs.is_empty();
                Ok(if receives { operand.clone() } else { Tensor::zeros(operand.ty().clone()) })
            }
            Parts::Groups(_) | Parts::Pairs(_) => {
                Err(format!("{} over several ranks, but there is only one", op.name()))
            }
        }
    }
}

/// The value of a collective on a rank; `rank` is one too.
pub fn value(
    op: &Op,
    operands: &[Tensor],
    exchange: &dyn Exchange,
) -> Result<Tensor, EvaluateError> {
    match operands {
        [] => Ok(Tensor::scalar(exchange.rank() as i64)),
        [operand, ..] => exchange.exchange(op, operand).map_err(EvaluateError::Ranks),
    }
}

/// Who meets in a collective.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parts<'a> {
    /// The ranks of each group meet.
    Groups(&'a [Vec<usize>]),
    /// Senders and receivers.
    Pairs(&'a [Vec<usize>]),
}

/// Who meets in an op of kind `Collective` (nobody, in others).
#[expect(clippy::wildcard_enum_match_arm, reason = "only collectives name ranks")]
pub fn parts(op: &Op) -> Parts<'_> {
    match op {
        Op::AllReduce(op) => Parts::Groups(&op.groups),
        Op::AllGather(op) => Parts::Groups(&op.groups),
        Op::ReduceScatter(op) => Parts::Groups(&op.groups),
        Op::AllToAll(op) => Parts::Groups(&op.groups),
        Op::Permute(op) => Parts::Pairs(&op.pairs),
        _ => Parts::Groups(&[]),
    }
}

/// The results of one group's ranks, from their operands, both in the order of the group. The operands are of one type,
/// which the op takes.
#[expect(clippy::wildcard_enum_match_arm, reason = "the others have no groups")]
pub fn join(op: &Op, operands: &[Tensor]) -> Vec<Tensor> {
    let ranks = operands.len();
    match op {
        Op::AllReduce(op) => vec![combined(op.combine, operands); ranks],
        Op::AllGather(op) => {
            let whole = Op::from(Concat { axis: op.axis }).evaluate(operands).swap_remove(0);
            vec![whole; ranks]
        }
        Op::ReduceScatter(op) => {
            let whole = combined(op.combine, operands);
            (0..ranks).map(|rank| part(&whole, op.axis, rank, ranks)).collect()
        }
        Op::AllToAll(op) => {
            let received = |rank: usize| {
                let parts: Vec<Tensor> =
                    operands.iter().map(|operand| part(operand, op.split, rank, ranks)).collect();
                Op::from(Concat { axis: op.concat }).evaluate(&parts).swap_remove(0)
            };
            (0..ranks).map(received).collect()
        }
        _ => operands.to_vec(),
    }
}

/// Elements joined from first to last: narrow floats in f32, rounded once at the end.
fn combined(combine: Combine, operands: &[Tensor]) -> Tensor {
    let (first, others) = operands.split_first().expect("a group has a rank");
    let mut joined = first.values();
    for other in others {
        joined = combine.function().evaluate(&[&joined, &other.values()]);
    }
    Tensor::from_values(first.dtype(), first.shape(), &joined)
}

/// The part number `index` of `count` equal ones along an axis.
pub fn part(whole: &Tensor, axis: usize, index: usize, count: usize) -> Tensor {
    if count == 1 {
        return whole.clone();
    }
    let size = whole.shape()[axis] / count;
    let mut cut = Slice {
        start: vec![0; whole.shape().len()],
        limit: whole.shape().to_vec(),
        stride: vec![1; whole.shape().len()],
    };
    cut.start[axis] = index * size;
    cut.limit[axis] = (index + 1) * size;
    Op::from(cut).evaluate(std::slice::from_ref(whole)).swap_remove(0)
}

/// The attributes of a collective without its ranks, and the type of its operand: what the ranks of a group agree on.
pub fn agreement(op: &Op, operand: &crate::types::TensorType) -> String {
    let mut attributes = AttrWriter::default();
    op.write(&mut attributes);
    let mut text = format!("{} {operand}", op.name());
    for (key, value) in &attributes.attributes {
        if !matches!(*key, "groups" | "pairs") {
            match value {
                AttrValue::Word(word) => text.push_str(&format!(" {key} = {word}")),
                AttrValue::Int(number) => text.push_str(&format!(" {key} = {number}")),
                other @ (AttrValue::Float(_)
                | AttrValue::Bool(_)
                | AttrValue::Text(_)
                | AttrValue::List(_)
                | AttrValue::Type(_)
                | AttrValue::Tensor(_)) => text.push_str(&format!(" {key} = {other:?}")),
            }
        }
    }
    text
}

/// Where ranks meet that run on threads.
pub struct Meeting {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// By group, and by how many calls it had before.
    calls: BTreeMap<(Vec<usize>, usize), Call>,
    /// For each rank, how many calls each of its groups had.
    counts: Vec<BTreeMap<Vec<usize>, usize>>,
    /// Messages on their way, by sender and receiver.
    mail: BTreeMap<(usize, usize), VecDeque<Tensor>>,
    /// What each rank waits for.
    waiting: Vec<Option<Wait>>,
    /// Which ranks are done.
    done: Vec<bool>,
    /// The rank whose failure ends the run, and why.
    failure: Option<(usize, String)>,
}

enum Wait {
    Group(Vec<usize>, String),
    Message(usize),
}

struct Call {
    agreement: String,
    arrived: Vec<Option<Tensor>>,
    results: Option<Vec<Tensor>>,
    left: usize,
}

impl fmt::Debug for Meeting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meeting").finish_non_exhaustive()
    }
}

/// One rank of a meeting. Where it is dropped before it is done, its failure ends the run.
struct Member<'m> {
    meeting: &'m Meeting,
    rank: usize,
}

impl Meeting {
    fn new(ranks: usize) -> Meeting {
        let state = State {
            counts: vec![BTreeMap::new(); ranks],
            waiting: (0..ranks).map(|_| None).collect(),
            done: vec![false; ranks],
            ..State::default()
        };
        Meeting { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `ready` gives something.
    fn wait<T>(
        &self,
        rank: usize,
        wait: Wait,
        mut ready: impl FnMut(&mut State) -> Option<T>,
    ) -> Result<T, String> {
        let mut state = self.lock();
        let mut wait = Some(wait);
        loop {
            if let Some((_, why)) = &state.failure {
                return Err(why.clone());
            }
            if let Some(found) = ready(&mut state) {
                return Ok(found);
            }
            // Who makes it ready takes this back.
            if let Some(wait) = wait.take() {
                state.waiting[rank] = Some(wait);
                state.check_stuck(rank);
                if state.failure.is_some() {
                    self.changed.notify_all();
                    continue;
                }
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn finish(&self, rank: usize, failure: Option<String>) {
        let mut state = self.lock();
        state.done[rank] = true;
        match failure {
            Some(why) if state.failure.is_none() => state.failure = Some((rank, why)),
            Some(_) => {}
            None => state.check_stuck(rank),
        }
        self.changed.notify_all();
    }
}

impl State {
    /// Fails where every rank is done or waits.
    fn check_stuck(&mut self, rank: usize) {
        let stuck = self.done.iter().zip(&self.waiting).all(|(done, wait)| *done || wait.is_some());
        if !stuck || self.failure.is_some() || self.done.iter().all(|done| *done) {
            return;
        }
        let places: Vec<String> = self
            .done
            .iter()
            .zip(&self.waiting)
            .enumerate()
            .map(|(rank, (_, wait))| match wait {
                Some(Wait::Group(group, what)) => {
                    format!("rank {rank} waits for ranks {} in {what}", shape_text(group))
                }
                Some(Wait::Message(from)) => {
                    format!("rank {rank} waits for a message of rank {from}")
                }
                None => format!("rank {rank} is done"),
            })
            .collect();
        self.failure = Some((rank, format!("no rank can go on: {}", places.join("; "))));
    }
}

impl Exchange for Member<'_> {
    fn rank(&self) -> usize {
        self.rank
    }

    fn exchange(&self, op: &Op, operand: &Tensor) -> Result<Tensor, String> {
        match parts(op) {
            Parts::Groups(groups) => {
                let group = groups.iter().find(|group| group.contains(&self.rank));
                let Some(group) = group else {
                    return Err(format!(
                        "rank {} issues {}, but is in none of its groups",
                        self.rank,
                        op.name()
                    ));
                };
                if group.len() == 1 {
                    return Ok(join(op, std::slice::from_ref(operand)).swap_remove(0));
                }
                self.meet(op, group, operand)
            }
            Parts::Pairs(pairs) => self.send(pairs, operand),
        }
    }
}

impl Member<'_> {
    fn meet(&self, op: &Op, group: &[usize], operand: &Tensor) -> Result<Tensor, String> {
        let rank = self.rank;
        let mine = agreement(op, operand.ty());
        let place = group.iter().position(|&other| other == rank).expect("it is its group");
        let key = {
            let mut guard = self.meeting.lock();
            let state = &mut *guard;
            let count = state.counts[rank].entry(group.to_vec()).or_default();
            let key = (group.to_vec(), *count);
            *count += 1;
            let call = state.calls.entry(key.clone()).or_insert_with(|| Call {
                agreement: mine.clone(),
                arrived: vec![None; group.len()],
                results: None,
                left: 0,
            });
            if call.agreement != mine {
                let why = format!(
                    "rank {rank} issues `{mine}` where another rank of the group {} issues `{}`",
                    shape_text(group),
                    call.agreement
                );
                return Err(why);
            }
            call.arrived[place] = Some(operand.clone());
            if call.arrived.iter().all(Option::is_some) {
                let operands: Vec<Tensor> =
                    call.arrived.iter_mut().filter_map(Option::take).collect();
                // Joining takes long, and other groups shall go on meanwhile; this group waits anyway.
                drop(guard);
                let results = join(op, &operands);
                let mut state = self.meeting.lock();
                if let Some(call) = state.calls.get_mut(&key) {
                    call.results = Some(results);
                }
                for &other in group {
                    state.waiting[other] = None;
                }
                drop(state);
                self.meeting.changed.notify_all();
            }
            key
        };
        self.meeting.wait(rank, Wait::Group(group.to_vec(), mine), |state| {
            let call = state.calls.get_mut(&key)?;
            let result = call.results.as_ref()?[place].clone();
            call.left += 1;
            if call.left == key.0.len() {
                state.calls.remove(&key);
            }
            Some(result)
        })
    }

    fn send(&self, pairs: &[Vec<usize>], operand: &Tensor) -> Result<Tensor, String> {
        let rank = self.rank;
        for pair in pairs.iter().filter(|pair| pair[0] == rank) {
            let mut state = self.meeting.lock();
            state.mail.entry((rank, pair[1])).or_default().push_back(operand.clone());
            if matches!(state.waiting.get(pair[1]), Some(Some(Wait::Message(from))) if *from == rank)
            {
                state.waiting[pair[1]] = None;
            }
            drop(state);
            self.meeting.changed.notify_all();
        }
        let Some(pair) = pairs.iter().find(|pair| pair[1] == rank) else {
            return Ok(Tensor::zeros(operand.ty().clone()));
        };
        let from = pair[0];
        let message = self.meeting.wait(rank, Wait::Message(from), |state| {
            state.mail.get_mut(&(from, rank))?.pop_front()
        })?;
        if message.ty() != operand.ty() {
            return Err(format!(
                "rank {rank} wants {} of rank {from}, which sends {}",
                operand.ty(),
                message.ty()
            ));
        }
        Ok(message)
    }
}

impl Drop for Member<'_> {
    fn drop(&mut self) {
        // Where the rank is done, this changes nothing.
        let done = self.meeting.lock().done[self.rank];
        if !done {
            self.meeting.finish(self.rank, Some(format!("rank {} broke off", self.rank)));
        }
    }
}

/// The stack of a rank's thread: programs may nest as deeply as on any other.
const STACK_BYTES: usize = 64 << 20;

/// The most ranks that run at once.
pub const MAX_RANKS: usize = 1024;

/// Runs `program` on every rank, each on a thread of its own, and gives their results in order. Where one fails, the
/// others end too, and the error is that of the one that failed first.
pub fn run<T: Send, E: fmt::Display + Send>(
    ranks: usize,
    no_thread: impl Fn(String) -> E,
    program: &(dyn Fn(usize, &dyn Exchange) -> Result<T, E> + Sync),
) -> Result<Vec<T>, E> {
    if ranks > MAX_RANKS {
        return Err(no_thread(format!(
            "{ranks} ranks are too many to run; at most {MAX_RANKS} do"
        )));
    }
    let meeting = Meeting::new(ranks);
    let mut results: Vec<Result<T, E>> = Vec::new();
    let outcome = std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for rank in 0..ranks {
            let member = Member { meeting: &meeting, rank };
            let body = move || {
                let result = program(rank, &member);
                let failure = result.as_ref().err().map(|error| format!("rank {rank}: {error}"));
                member.meeting.finish(rank, failure);
                result
            };
            let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
            match thread.spawn_scoped(scope, body) {
                Ok(thread) => threads.push(thread),
                // The member was dropped with the closure, so that the others end; those not started never wait.
                Err(error) => {
                    for other in rank + 1..ranks {
                        meeting.finish(other, Some("it was not started".to_owned()));
                    }
                    return Err(error.to_string());
                }
            }
        }
        for thread in threads {
            match thread.join() {
                Ok(result) => results.push(result),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(())
    });
    if let Err(error) = outcome {
        return Err(no_thread(format!("no thread for a rank: {error}")));
    }
    let failed = meeting.lock().failure.as_ref().map(|(rank, _)| *rank);
    if let Some(rank) = failed
        && results[rank].is_err()
    {
        return results.swap_remove(rank).map(|_| Vec::new());
    }
    results.into_iter().collect()
}

#[cfg(test)]
mod tests;
