//! The limit on changes of current. After idling, the array starts slowly and comes to its full rate within a ramp; where it
//! was used too little over a window, it starts slowly again.
//!
//! Use is what the cells do: a product that fills a quarter of the array uses a quarter of its time. It is kept as a credit:
//! products add their use, time takes the least use away, and no more is kept than a window without use exhausts. So a
//! machine that is used enough is always in the same state, and steady loops can be seen as such. A ramp is judged at its
//! end, on what was used in it alone.

use super::clock::{Clock, Ticks};
use crate::machine::Machine;

/// Thousandths of a tick.
type Milliticks = i64;

/// The state of the array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Throttle {
    /// Of the full rate at the start, in thousandths.
    start_rate: u64,
    ramp: Ticks,
    /// The least use, in thousandths.
    least: i64,
    /// The most that is kept as credit.
    most: Milliticks,
    /// When the ramp began.
    began: Ticks,
    /// Whether the ramp has been judged.
    settled: bool,
    credit: Milliticks,
    /// Up to when credit is counted.
    counted: Ticks,
}

impl Throttle {
    /// An array that has not been used.
    pub(super) fn new(machine: &Machine, clock: &Clock) -> Throttle {
        let throttle = &machine.throttle;
        let thousandths = |rate: f64| (rate * 1000.0).round() as i64;
        let least = thousandths(throttle.least_use).clamp(0, 1000);
        let window = clock.nanoseconds(throttle.window_us * 1000.0);
        Throttle {
            start_rate: thousandths(throttle.start_rate).clamp(1, 1000) as u64,
            ramp: clock.nanoseconds(throttle.ramp_us * 1000.0),
            least,
            most: least.saturating_mul(window as i64),
            began: 0,
            settled: true,
            credit: -1,
            counted: 0,
        }
    }

    /// How long a product holds the array that would hold it for `hold` at full rate and uses that many thousandths of it.
    pub(super) fn hold(&mut self, start: Ticks, hold: Ticks, used: u64) -> Ticks {
        if self.start_rate == 1000 || self.ramp == 0 {
            return hold;
        }
        self.credit = self.credit_at(start);
        if (self.settled || start >= self.began + self.ramp) && self.credit < 0 {
            (self.began, self.settled, self.credit) = (start, false, 0);
        }
        let since = start - self.began;
        self.settled |= since >= self.ramp;
        let rate = if self.settled {
            1000
        } else {
            // The rate rises linearly; it is that of the start of the product.
            self.start_rate + (1000 - self.start_rate) * since / self.ramp
        };
        let slow = hold.saturating_mul(1000).div_ceil(rate);
        let (gained, lost) = (hold.saturating_mul(used) as i64, self.least * slow as i64);
        self.credit = (self.credit + gained - lost).min(self.most);
        self.counted = start + slow;
        slow
    }

    fn credit_at(&self, time: Ticks) -> Milliticks {
        let idle = time.saturating_sub(self.counted) as i64;
        // What is lost beyond a window makes no difference.
        (self.credit - self.least.saturating_mul(idle)).max(-self.most.saturating_mul(2) - 1)
    }

    /// All of it that matters from `now` on.
    pub(super) fn describe(&self, now: Ticks, into: &mut Vec<u64>) {
        let since = if self.settled { self.ramp } else { now - self.began.min(now) };
        into.extend([
            since.min(self.ramp),
            u64::from(self.settled),
            self.credit_at(now) as u64,
            self.counted.saturating_sub(now),
        ]);
    }

    /// Moves everything to a later time.
    pub(super) fn shift(&mut self, by: Ticks) {
        self.began = self.began.saturating_add(by);
        self.counted = self.counted.saturating_add(by);
    }
}
