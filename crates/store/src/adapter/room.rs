//! What budgets leave.

use carrel_core::NanoUsd;
use jiff::Timestamp;

use super::period;
use crate::ledger::{Left, NewReservation, Period, Reserved};

/// What was held or settled so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spent {
    /// On the day of the reservation.
    pub day: NanoUsd,
    /// In its month.
    pub month: NanoUsd,
}

/// What one bound leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Which bound.
    pub period: Period,
    /// When it begins anew.
    pub resets_time: Timestamp,
    /// What still fits.
    pub remaining: NanoUsd,
    /// The bound.
    pub limit: NanoUsd,
}

impl Room {
    /// What is left after so much more.
    pub fn left_after(self, amount: NanoUsd) -> Left {
        Left {
            remaining: self.remaining.minus(amount),
            limit: self.limit,
        }
    }

    /// The refusal of what does not fit.
    pub fn exhausted(self) -> Reserved {
        Reserved::Exhausted {
            period: self.period,
            resets_time: self.resets_time,
            remaining: self.remaining,
            limit: self.limit,
        }
    }
}

/// The bound that leaves least; of two that leave the same, the one that lasts longer.
pub fn tightest(new: &NewReservation, spent: Spent, now: Timestamp) -> Option<Room> {
    let (day, month) = (period::day(now), period::month(now));
    let room = |period, limit: NanoUsd, spent, ends| Room {
        period,
        resets_time: period::start(ends),
        remaining: limit.minus(spent).max(NanoUsd::ZERO),
        limit,
    };
    let monthly = new
        .per_month
        .map(|limit| room(Period::Monthly, limit, spent.month, month.end));
    let daily = new
        .per_day
        .map(|limit| room(Period::Daily, limit, spent.day, day + 1));
    monthly
        .into_iter()
        .chain(daily)
        .min_by_key(|room| room.remaining)
}
