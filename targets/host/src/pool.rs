//! Threads that share work: what a pool is, and the one that there is by default.
//!
//! A [`Team`] forks and joins: its threads wait for work by spinning for a moment, then they sleep. The caller's thread
//! works too, so that a team of one has no thread of its own.
#![expect(
    unsafe_code,
    reason = "work that borrows from the caller is handed to threads that outlive the call"
)]

use std::cell::{Cell, UnsafeCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Threads that runs and compilations share their work over. Results never depend on it.
pub trait Pool: Send + Sync {
    /// How many threads work at once, the caller's among them.
    fn threads(&self) -> usize;

    /// Calls `work` with every number below `count`, at once or one after another, and returns when all calls have.
    fn run(&self, count: usize, work: &(dyn Fn(usize) + Sync));
}

/// How long a thread without work spins before it sleeps: longer than most kernels that only one thread can do.
const PATIENCE: Duration = Duration::from_micros(100);
/// How often a spinning thread looks before it looks at the clock.
const LOOKS: u32 = 64;

/// The gate's bit that says that there is work. The bits below count the threads that are inside, those above the jobs.
const OPEN: usize = 1 << 15;
const INSIDE: usize = OPEN - 1;
const NEXT: usize = 1 << 16;

/// A fork-join pool that keeps its threads. It serves one caller at a time; another does its work alone meanwhile.
pub struct Team {
    shared: Arc<Shared>,
    others: Vec<JoinHandle<()>>,
}

struct Shared {
    /// Whether a caller has the team.
    taken: AtomicBool,
    gate: AtomicUsize,
    /// Written by the caller that has the team while the gate is shut and nobody inside; read by those inside.
    job: UnsafeCell<Option<Job>>,
    /// The next number that nobody has.
    next: AtomicUsize,
    panicked: AtomicBool,
    stop: AtomicBool,
    asleep: Vec<AtomicBool>,
}

#[derive(Clone, Copy)]
struct Job {
    work: *const (dyn Fn(usize) + Sync),
    count: usize,
}

// SAFETY: `job` is written only while nobody else may read it (see the field); what it points to may be shared, and
// lives until the caller has seen everybody leave.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl std::fmt::Debug for Team {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Team").field("threads", &self.threads()).finish()
    }
}

impl Team {
    /// A team of that many threads, the caller's among them, or of as many as the system gives.
    pub fn new(threads: usize) -> Team {
        let others = threads.clamp(1, MOST_THREADS) - 1;
        let shared = Arc::new(Shared {
            taken: AtomicBool::new(false),
            gate: AtomicUsize::new(0),
            job: UnsafeCell::new(None),
            next: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            asleep: (0..others).map(|_| AtomicBool::new(false)).collect(),
        });
        let spawn = |number: usize| {
            let shared = Arc::clone(&shared);
            let name = format!("systole-{}", number + 1);
            std::thread::Builder::new().name(name).spawn(move || shared.serve(number)).ok()
        };
        Team { others: (0..others).map_while(spawn).collect(), shared }
    }
}

/// More threads than any machine of note has.
pub(crate) const MOST_THREADS: usize = 1024;

impl Pool for Team {
    fn threads(&self) -> usize {
        self.others.len() + 1
    }

    fn run(&self, count: usize, work: &(dyn Fn(usize) + Sync)) {
        let shared = &*self.shared;
        if count < 2 || self.others.is_empty() || shared.taken.swap(true, Ordering::Acquire) {
            (0..count).for_each(work);
            return;
        }
        // SAFETY: only the lifetime is forgotten. Nobody reads the job once the gate is shut and everybody has left,
        // which `Leave` waits for before this function returns or unwinds.
        let work: *const (dyn Fn(usize) + Sync) = unsafe {
            std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(work)
        };
        // SAFETY: this caller has the team, the gate is shut and nobody is inside.
        unsafe { *shared.job.get() = Some(Job { work, count }) };
        shared.next.store(0, Ordering::Relaxed);
        let leave = Leave(shared);
        let gate = shared.gate.load(Ordering::Relaxed);
        shared.gate.store(gate.wrapping_add(NEXT) | OPEN, Ordering::SeqCst);
        for (asleep, other) in shared.asleep.iter().zip(&self.others) {
            if asleep.load(Ordering::SeqCst) && asleep.swap(false, Ordering::SeqCst) {
                other.thread().unpark();
            }
        }
        // SAFETY: the work is borrowed until this function returns.
        take(unsafe { &*work }, count, &shared.next);
        drop(leave);
    }
}

/// Shuts the gate, waits until everybody has left and gives the team back, also where the caller's part panics.
struct Leave<'a>(&'a Shared);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        let shared = self.0;
        shared.gate.fetch_and(!OPEN, Ordering::AcqRel);
        let mut looks = 0u32;
        while shared.gate.load(Ordering::Acquire) & INSIDE != 0 {
            looks += 1;
            if looks < 2000 {
                std::hint::spin_loop();
            } else {
                // The other's thread may be waiting for this processor.
                std::thread::yield_now();
            }
        }
        let panicked = shared.panicked.swap(false, Ordering::Relaxed);
        shared.taken.store(false, Ordering::Release);
        if panicked && !std::thread::panicking() {
            resume_unwind(Box::new("a thread of the pool panicked"));
        }
    }
}

fn take(work: &(dyn Fn(usize) + Sync), count: usize, next: &AtomicUsize) {
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= count {
            return;
        }
        work(number);
    }
}

impl Shared {
    /// What a thread of the team does all its life.
    fn serve(&self, number: usize) {
        let mut seen = 0;
        loop {
            let Some(gate) = self.await_work(seen, number) else { return };
            let entered =
                self.gate.compare_exchange(gate, gate + 1, Ordering::AcqRel, Ordering::Relaxed);
            // Where somebody else came or went, or the gate was shut, it looks again.
            let Ok(gate) = entered else { continue };
            seen = gate / NEXT;
            // SAFETY: the gate was open, and the caller leaves the job alone until this thread has left.
            if let Some(Job { work, count }) = unsafe { *self.job.get() } {
                // SAFETY: as above, for what the job points to.
                let work = unsafe { &*work };
                if catch_unwind(AssertUnwindSafe(|| take(work, count, &self.next))).is_err() {
                    self.panicked.store(true, Ordering::Relaxed);
                }
            }
            self.gate.fetch_sub(1, Ordering::Release);
        }
    }

    /// The gate once it is open for a job after `seen`; `None` once the team ends.
    fn await_work(&self, seen: usize, number: usize) -> Option<usize> {
        let is_new = |gate: usize| gate & OPEN != 0 && gate / NEXT != seen;
        let mut since: Option<Instant> = None;
        loop {
            for _ in 0..LOOKS {
                let gate = self.gate.load(Ordering::Acquire);
                if is_new(gate) {
                    return Some(gate);
                }
                std::hint::spin_loop();
            }
            if self.stop.load(Ordering::Acquire) {
                return None;
            }
            if since.get_or_insert_with(Instant::now).elapsed() < PATIENCE {
                continue;
            }
            // Said first and looked at again, so that whoever opens the gate between sees one of the two.
            self.asleep[number].store(true, Ordering::SeqCst);
            let gate = self.gate.load(Ordering::SeqCst);
            if !is_new(gate) && !self.stop.load(Ordering::SeqCst) {
                std::thread::park();
            }
            self.asleep[number].store(false, Ordering::SeqCst);
            since = None;
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for other in self.others.drain(..) {
            other.thread().unpark();
            // Its panics were caught.
            let _ = other.join();
        }
    }
}

/// Threads that the caller of generated code lends to the products in it.
#[derive(Clone, Copy)]
struct Help {
    pool: *const dyn Pool,
    threads: usize,
}

thread_local! {
    static HELP: Cell<Option<Help>> = const { Cell::new(None) };
}

/// Takes the help away again, also where there was a panic.
struct Lent;

impl Drop for Lent {
    fn drop(&mut self) {
        HELP.set(None);
    }
}

/// Calls `body` on this thread; [`share`] has the threads of a pool meanwhile.
pub(crate) fn lend<R>(pool: &dyn Pool, threads: usize, body: impl FnOnce() -> R) -> R {
    // SAFETY: only the lifetime is forgotten. The pointer is taken away before this function ends, and it is followed on
    // this thread alone, by `share`, which ends before `body` does.
    let pool: *const dyn Pool =
        unsafe { std::mem::transmute::<&dyn Pool, &'static (dyn Pool + 'static)>(pool) };
    HELP.set(Some(Help { pool, threads }));
    let _lent = Lent;
    body()
}

/// Whether [`share`] has more than this thread.
pub(crate) fn has_help() -> bool {
    HELP.get().is_some()
}

/// Calls `work` with every number below `count`, on this thread and those that were lent, several numbers in a row.
pub(crate) fn share(count: usize, in_a_row: usize, work: &(dyn Fn(usize, usize) + Sync)) {
    share_among(usize::MAX, count, in_a_row, work);
}

/// The same among at most so many threads. `work` also gets the number of its share: no two calls at once have the same.
pub(crate) fn share_among(
    most: usize,
    count: usize,
    in_a_row: usize,
    work: &(dyn Fn(usize, usize) + Sync),
) {
    let in_a_row = in_a_row.max(1);
    let Some(help) = HELP.get().filter(|_| most > 1 && count > in_a_row) else {
        return (0..count).for_each(|number| work(number, 0));
    };
    let (next, shares) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let threads = help.threads.min(most).min(count.div_ceil(in_a_row));
    let take = |share: usize| loop {
        let first = next.fetch_add(in_a_row, Ordering::Relaxed);
        if first >= count {
            return;
        }
        (first..count.min(first + in_a_row)).for_each(|number| work(number, share));
    };
    // SAFETY: the pool is lent to this thread until `lend` returns, which is further down this thread's stack.
    let pool = unsafe { &*help.pool };
    pool.run(threads, &|_| {
        // Shares come from a counter of ours, so that nothing rests on what a pool hands out.
        let share = shares.fetch_add(1, Ordering::Relaxed);
        if share < threads {
            take(share);
        }
    });
    // What the pool left undone; its calls have returned.
    take(0);
}

/// Where the default team is kept: made when it is first needed, and again where more threads are asked for. Clones
/// share it.
#[derive(Clone, Debug, Default)]
pub struct Threads {
    team: Arc<Mutex<Option<Arc<Team>>>>,
}

impl Threads {
    /// A team of at least so many threads, where the system gives them.
    pub fn at_least(&self, threads: usize) -> Arc<Team> {
        let mut kept = self.team.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            Some(team) if team.shared.asleep.len() + 1 >= threads.min(MOST_THREADS) => {
                Arc::clone(team)
            }
            Some(_) | None => Arc::clone(kept.insert(Arc::new(Team::new(threads)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(length: usize) -> Vec<AtomicUsize> {
        (0..length).map(|_| AtomicUsize::new(0)).collect()
    }

    #[test]
    fn every_number_of_every_job_is_done_once() {
        for threads in [1, 2, 4] {
            let team = Team::new(threads);
            let done = counts(2000);
            for job in 0..200 {
                team.run(10, &|number| {
                    done[job * 10 + number].fetch_add(1, Ordering::Relaxed);
                });
                if job % 50 == 0 {
                    // Long enough for the others to fall asleep.
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
            assert!(done.iter().all(|count| count.load(Ordering::Relaxed) == 1));
        }
    }

    #[test]
    fn several_callers_share_a_team() {
        let team = Team::new(3);
        let done = counts(4 * 100);
        std::thread::scope(|scope| {
            for caller in 0..4 {
                let (team, done) = (&team, &done);
                scope.spawn(move || {
                    for job in 0..20 {
                        team.run(5, &|number| {
                            done[caller * 100 + job * 5 + number].fetch_add(1, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert!(done.iter().all(|count| count.load(Ordering::Relaxed) == 1));
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_team_goes_on() {
        let team = Team::new(2);
        let job = |number: usize| assert!(number != 3, "three");
        assert!(catch_unwind(AssertUnwindSafe(|| team.run(8, &job))).is_err());
        let done = counts(8);
        team.run(8, &|number| {
            done[number].fetch_add(1, Ordering::Relaxed);
        });
        assert!(done.iter().all(|count| count.load(Ordering::Relaxed) == 1));
    }

    #[test]
    fn lent_threads_share_and_are_taken_away() {
        let team = Team::new(3);
        assert!(!has_help());
        for (most, count, in_a_row) in [(1, 20, 1), (2, 20, 3), (8, 20, 7), (8, 1, 1), (8, 0, 1)] {
            let done = counts(20);
            let busy = counts(8);
            lend(&team, 3, || {
                assert!(has_help());
                share_among(most, count, in_a_row, &|number, share| {
                    assert_eq!(busy[share].fetch_add(1, Ordering::SeqCst), 0, "two have a share");
                    done[number].fetch_add(1, Ordering::Relaxed);
                    busy[share].fetch_sub(1, Ordering::SeqCst);
                });
            });
            let total: usize = done.iter().map(|count| count.load(Ordering::Relaxed)).sum();
            assert_eq!(total, count);
            assert!(done[..count].iter().all(|count| count.load(Ordering::Relaxed) == 1));
        }
        assert!(catch_unwind(|| lend(&Team::new(1), 2, || panic!("inside"))).is_err());
        assert!(!has_help());
    }

    #[test]
    fn more_threads_are_made_when_they_are_asked_for() {
        let threads = Threads::default();
        assert_eq!(threads.at_least(1).threads(), 1);
        let two = threads.at_least(2);
        assert_eq!(two.threads(), 2);
        assert!(Arc::ptr_eq(&two, &threads.at_least(2)));
    }
}
