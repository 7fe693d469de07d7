//! How answers are printed: data on stdout, talk on stderr.

use std::borrow::Cow;
use std::io::{IsTerminal, Write as _};

use comfy_table::{Table, presets};
use jiff::Timestamp;
use serde::Serialize;

use crate::cli::{Client, Output};

/// Rows of one kind of thing.
#[derive(Debug)]
pub(crate) struct Rows<'a, T> {
    /// The things.
    pub(crate) items: &'a [T],
    /// The first line of the table; upper case, without spaces.
    pub(crate) headers: &'a [&'a str],
    /// How many of the columns the plain table shows; the wide one shows all.
    pub(crate) plain: usize,
    /// A thing's cells now.
    pub(crate) cells: fn(&T, Timestamp) -> Vec<String>,
    /// A thing's name.
    pub(crate) name: fn(&T) -> String,
}

impl<T: Serialize> Rows<'_, T> {
    /// Prints them as the flags say.
    pub(crate) fn print(&self, flags: &Client) -> anyhow::Result<()> {
        match flags.output {
            Output::Json => line(&serde_json::to_string_pretty(self.items)?),
            Output::Yaml => line(serde_yaml::to_string(&self.items)?.trim_end()),
            Output::Name => {
                for item in self.items {
                    line(&(self.name)(item))?;
                }
                Ok(())
            }
            Output::Table => self.table(self.plain, flags.no_headers),
            Output::Wide => self.table(self.headers.len(), flags.no_headers),
        }
    }

    fn table(&self, columns: usize, no_headers: bool) -> anyhow::Result<()> {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        if !no_headers {
            table.set_header(self.headers.iter().take(columns));
        }
        let now = now();
        for item in self.items {
            table.add_row(
                (self.cells)(item, now)
                    .into_iter()
                    .take(columns)
                    .map(not_empty),
            );
        }
        for row in table.lines() {
            line(row.trim())?;
        }
        Ok(())
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "people read an age by the clock of their own machine"
)]
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}

/// How long ago, in the two units that count, as `kubectl` says it.
pub(crate) fn age(then: Timestamp, now: Timestamp) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    let both = |seconds: i64, (large, name): (i64, char), (small, letter): (i64, char)| {
        let rest = seconds % large / small;
        if rest == 0 {
            format!("{}{name}", seconds / large)
        } else {
            format!("{}{name}{rest}{letter}", seconds / large)
        }
    };
    let (second, minute, hour, day) = ((1, 's'), (MINUTE, 'm'), (HOUR, 'h'), (DAY, 'd'));
    // Clocks differ: what is yet to come is now.
    match now.duration_since(then).as_secs().max(0) {
        short if short < 2 * MINUTE => format!("{short}s"),
        time if time < 10 * MINUTE => both(time, minute, second),
        time if time < 3 * HOUR => format!("{}m", time / MINUTE),
        time if time < 8 * HOUR => both(time, hour, minute),
        time if time < 2 * DAY => format!("{}h", time / HOUR),
        time if time < 8 * DAY => both(time, day, hour),
        time if time < 2 * YEAR => format!("{}d", time / DAY),
        time => both(time, (YEAR, 'y'), day),
    }
}

/// One thing: as JSON when a table or JSON is wanted, which reads well for one; else as asked.
pub(crate) fn one<T: Serialize>(item: &T, name: &str, flags: &Client) -> anyhow::Result<()> {
    match flags.output {
        Output::Json => line(&serde_json::to_string_pretty(item)?),
        Output::Table | Output::Wide | Output::Yaml => {
            line(serde_yaml::to_string(item)?.trim_end())
        }
        Output::Name => line(name),
    }
}

/// One line on stdout. A reader that has gone away is no error worth a word.
pub(crate) fn line(text: &str) -> anyhow::Result<()> {
    piece(&format!("{text}\n"))
}

/// A piece of a line on stdout, at once.
pub(crate) fn piece(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    let text = shown(text, &stdout);
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// One line of talk on stderr.
pub(crate) fn talk(text: &str) {
    let text = shown(text, &std::io::stderr());
    // Nobody to talk to is no error.
    let _: std::io::Result<()> = writeln!(std::io::stderr(), "{text}");
}

/// A text as it is written there.
fn shown<'a>(text: &'a str, place: &impl IsTerminal) -> Cow<'a, str> {
    if place.is_terminal() {
        harmless(text).into()
    } else {
        text.into()
    }
}

/// A text that gives a terminal no orders: agents and models write what is shown here.
fn harmless(text: &str) -> String {
    let is_order = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    text.replace(is_order, "\u{fffd}")
}

fn not_empty(cell: String) -> String {
    if cell.is_empty() {
        "<none>".to_owned()
    } else {
        cell
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_given_no_orders() {
        let told = "two\tlines\nand \u{1b}]52;c;aGk=\u{7}an order, \u{9b}2J another\r";
        let shown = harmless(told);
        assert!(
            !shown.contains(['\u{1b}', '\u{7}', '\u{9b}', '\r']),
            "{shown:?}"
        );
        assert!(shown.starts_with("two\tlines\nand "), "{shown:?}");
    }

    #[test]
    fn an_age_has_the_units_that_count() {
        let then = Timestamp::from_nanosecond(1_700_000_000_123_456_789).expect("in range");
        let after = |seconds| age(then, then + jiff::SignedDuration::from_secs(seconds));
        let ages = [
            0, 119, 120, 125, 600, 10_799, 10_800, 11_100, 28_800, 172_799, 172_800, 180_000,
        ];
        let said = ages.map(after);
        let expected = [
            "0s", "119s", "2m", "2m5s", "10m", "179m", "3h", "3h5m", "8h", "47h", "2d", "2d2h",
        ];
        assert_eq!(said, expected);
        assert_eq!(after(8 * 86_400 + 7_200), "8d");
        assert_eq!(after(800 * 86_400), "2y70d");
        assert_eq!(after(-5), "0s", "a clock that is behind");
    }
}
