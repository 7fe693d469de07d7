//! Measured figures beside their bars, as a table for people; whether all bars are kept is the end of it.

use std::fmt::Write as _;

use anyhow::ensure;

/// The table so far.
#[derive(Debug, Default)]
pub struct Figures {
    missed: Vec<String>,
}

impl Figures {
    /// A figure that may be at most its bar: each value with the most that it may be, in one unit.
    pub fn at_most(&mut self, figure: &str, unit: &str, values: &[(f64, f64)]) {
        let (mut measured, mut bar) = (String::new(), "≤ ".to_owned());
        for (place, (value, most)) in values.iter().enumerate() {
            let between = if place == 0 { "" } else { " / " };
            // Writing into a text never fails.
            let _ = write!(measured, "{between}{}", shown(*value));
            let _ = write!(bar, "{between}{most}");
        }
        let is_kept = values.iter().all(|(value, most)| value <= most);
        self.held(
            figure,
            &format!("{measured} {unit}"),
            &format!("{bar} {unit}"),
            is_kept,
        );
    }

    /// A figure whose bar is no number.
    pub fn held(&mut self, figure: &str, measured: &str, bar: &str, is_kept: bool) {
        let verdict = if is_kept { "" } else { ", MISSED" };
        line(&format!("| {figure} | {measured} | {bar}{verdict} |"));
        if !is_kept {
            self.missed.push(format!("{figure}: {measured}, not {bar}"));
        }
    }

    /// A figure without a bar.
    pub fn noted(&mut self, figure: &str, measured: &str) {
        line(&format!("| {figure} | {measured} | none |"));
    }

    /// The end of the table.
    ///
    /// # Errors
    /// When a bar was missed: which.
    pub fn end(self) -> anyhow::Result<()> {
        let missed = self.missed.join("\n  ");
        ensure!(missed.is_empty(), "missed bars:\n  {missed}");
        Ok(())
    }
}

/// The digits of a figure that count.
pub fn shown(value: f64) -> String {
    if value < 30.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

#[expect(clippy::print_stdout, reason = "figures are for people to read")]
fn line(text: &str) {
    println!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_bar_is_named_in_the_end_and_kept_ones_are_not() {
        let mut figures = Figures::default();
        figures.at_most("both kept", "ms", &[(350.0, 350.0), (1.0, 700.0)]);
        figures.held("nothing written", "0 bytes", "no write", true);
        figures.noted("without a bar", "1 ms");
        assert!(figures.end().is_ok());

        let mut figures = Figures::default();
        figures.at_most("one kept", "ms", &[(8.94, 15.0), (700.9, 700.0)]);
        figures.at_most("kept", "MiB", &[(4.1, 10.0)]);
        figures.at_most("not measured", "MiB", &[(f64::NAN, 10.0)]);
        figures.held("something written", "1 bytes", "no write", false);
        let missed = figures.end().unwrap_err().to_string();
        assert_eq!(
            missed,
            "missed bars:\n  one kept: 8.9 / 701 ms, not ≤ 15 / 700 ms\n  \
             not measured: NaN MiB, not ≤ 10 MiB\n  something written: 1 bytes, not no write"
        );
    }
}
