//! How answers are printed: data on stdout, talk on stderr.

use std::io::Write as _;

use comfy_table::{Table, presets};
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
    /// A thing's cells.
    pub(crate) cells: fn(&T) -> Vec<String>,
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
        for item in self.items {
            table.add_row((self.cells)(item).into_iter().take(columns).map(not_empty));
        }
        for row in table.lines() {
            line(row.trim())?;
        }
        Ok(())
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
    // Nobody to talk to is no error.
    let _: std::io::Result<()> = writeln!(std::io::stderr(), "{text}");
}

fn not_empty(cell: String) -> String {
    if cell.is_empty() {
        "<none>".to_owned()
    } else {
        cell
    }
}
