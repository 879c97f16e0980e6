//! Threads that share the chunks of one job after another: they live for one run, spin briefly between jobs, then yield.
//! A run on one thread has none.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// What does a chunk of a job, on the thread of that number.
pub(crate) type Execute<'a, J> = &'a (dyn Fn(&J, usize, usize) + Sync);

/// What a run's threads share.
pub(crate) struct Team<'a, J> {
    job: Mutex<Option<(J, usize)>>,
    execute: Execute<'a, J>,
    /// Counts the jobs; a change tells the others that there is one.
    generation: AtomicUsize,
    next: AtomicUsize,
    finished: AtomicUsize,
    stop: AtomicBool,
    others: usize,
}

/// Runs `body` with a team of `threads`, this one among them.
pub(crate) fn with_team<J: Clone + Send, R>(
    threads: usize,
    execute: Execute<'_, J>,
    body: impl FnOnce(&Team<'_, J>) -> R,
) -> R {
    let team = Team {
        job: Mutex::new(None),
        execute,
        generation: AtomicUsize::new(0),
        next: AtomicUsize::new(0),
        finished: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
        others: threads.saturating_sub(1),
    };
    if team.others == 0 {
        return body(&team);
    }
    std::thread::scope(|scope| {
        let stop = StopAtEnd(&team.stop);
        for thread in 1..=team.others {
            let team = &team;
            scope.spawn(move || team.serve(thread));
        }
        let result = body(&team);
        drop(stop);
        result
    })
}

/// Sends the others home, also where the body panics.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl<J: Clone + Send> Team<'_, J> {
    /// Does all chunks of a job, and returns when they are done.
    pub(crate) fn run(&self, job: &J, chunks: usize) {
        if self.others == 0 || chunks < 2 {
            for chunk in 0..chunks {
                (self.execute)(job, chunk, 0);
            }
            return;
        }
        *self.job.lock().unwrap_or_else(std::sync::PoisonError::into_inner) =
            Some((job.clone(), chunks));
        self.next.store(0, Ordering::Relaxed);
        self.finished.store(0, Ordering::Relaxed);
        self.generation.fetch_add(1, Ordering::Release);
        self.take_chunks(job, chunks, 0);
        let mut spins = 0;
        while self.finished.load(Ordering::Acquire) < self.others {
            wait(&mut spins);
        }
    }

    fn take_chunks(&self, job: &J, chunks: usize, thread: usize) {
        loop {
            let chunk = self.next.fetch_add(1, Ordering::Relaxed);
            if chunk >= chunks {
                return;
            }
            (self.execute)(job, chunk, thread);
        }
    }

    fn serve(&self, thread: usize) {
        let mut seen = 0;
        let mut spins = 0;
        loop {
            let generation = self.generation.load(Ordering::Acquire);
            if generation == seen {
                if self.stop.load(Ordering::Acquire) {
                    return;
                }
                wait(&mut spins);
                continue;
            }
            seen = generation;
            spins = 0;
            let job = self.job.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
            if let Some((job, chunks)) = job {
                self.take_chunks(&job, chunks, thread);
            }
            self.finished.fetch_add(1, Ordering::Release);
        }
    }
}

fn wait(spins: &mut u32) {
    *spins += 1;
    if *spins < 2000 {
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chunk_of_every_job_is_done_once() {
        for threads in [1, 2, 4] {
            let counts: Vec<AtomicUsize> = (0..100).map(|_| AtomicUsize::new(0)).collect();
            let execute = |job: &usize, chunk: usize, _thread: usize| {
                counts[job * 10 + chunk].fetch_add(1, Ordering::Relaxed);
            };
            with_team(threads, &execute, |team| {
                for job in 0..10 {
                    team.run(&job, 10);
                }
            });
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
        }
    }
}
