//! Learners who sleep wake for a minute three times as fast as sixteen thousand in ten minutes; then sixteen thousand do, in ten minutes.

#![expect(clippy::cast_precision_loss, reason = "counts of a rush are small")]

use std::collections::HashMap;
use std::time::Duration;

use carrel_tests::cluster::school::{Controller, School};
use carrel_tests::figures::Figures;

use super::crowd::{ASLEEP, CLASS, grow};
use super::storm::{self, Storm};
use super::{POOL, class};
use crate::percentile;

/// In which all wake.
const RUSH: Duration = Duration::from_mins(10);
/// For so long they wake three times as fast.
const FASTER: Duration = Duration::from_mins(1);
/// Of the drawn times some more fall into a minute than are due on average.
const MORE: usize = 400;

pub(super) async fn measure(
    figures: &mut Figures,
    school: &School,
    controller: Controller,
) -> anyhow::Result<()> {
    school.class(CLASS, &class(POOL)).await?;
    let rate = ASLEEP as f64 / RUSH.as_secs_f64();
    let faster = ASLEEP * 3 / 10 + MORE;
    let everybody: Vec<String> = (0..ASLEEP + faster).map(|n| format!("l{n}")).collect();
    grow(school, &controller, &everybody, 0..everybody.len()).await?;
    let (first, rest) = everybody.split_at(faster);
    rush(figures, school, first, rate * 3.0, FASTER).await?;
    rush(figures, school, rest, rate, RUSH).await?;
    controller.stop()
}

/// Many wake, nobody twice and nobody never.
async fn rush(
    figures: &mut Figures,
    school: &School,
    names: &[String],
    rate: f64,
    lasts: Duration,
) -> anyhow::Result<()> {
    let calibration = storm::calibrate(school).await?;
    let before = school.stand_in.assignments().len();
    let mut storm = Storm::poisson(school, names, rate, lasts).await?;
    storm::settle(school, CLASS, POOL).await?;
    let spent = storm.spent()?;
    let mut taken = HashMap::<String, usize>::new();
    for assigned in school.stand_in.assignments().into_iter().skip(before) {
        if assigned.refused.is_none() {
            *taken.entry(assigned.learner).or_default() += 1;
        }
    }
    let double = taken.values().filter(|times| **times > 1).count();
    let (half, most) = (
        percentile(&mut storm.times, 0.5)?,
        percentile(&mut storm.times, 0.99)?,
    );
    figures.held(
        &format!(
            "{} wakes in {:.0} s: lost, double; p50 / p99 from due to Ready seen, oldest; rate reached; processor time a wake",
            storm.times.len() + storm.lost,
            lasts.as_secs_f64()
        ),
        &format!(
            "{}, {double}; {half:.0} / {most:.0} ms, {:.0} ms; {:.1}/s; {spent}; calibration {calibration}",
            storm.lost,
            percentile(&mut storm.times, 1.0)?,
            storm.reached
        ),
        "none lost, none double",
        storm.lost == 0 && double == 0,
    );
    Ok(())
}
