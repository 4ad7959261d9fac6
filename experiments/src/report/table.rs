//! A table as plain data, which every format writes in its own way.

use super::number;

/// A table.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// What it shows.
    pub title: String,
    /// The names of its columns.
    pub head: Vec<Column>,
    /// Its rows, of as many cells as there are columns.
    pub rows: Vec<Vec<Cell>>,
    /// What the numbers are.
    pub caption: String,
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Whether its text stands to the right.
    pub is_right: bool,
}

impl Table {
    /// The table of `rows`; in the head, a leading `>` puts the column's text to the right.
    pub fn new(title: String, head: &[&str], rows: Vec<Vec<Cell>>, caption: String) -> Self {
        let column = |text: &&str| match text.strip_prefix('>') {
            Some(name) => Column { name: name.to_owned(), is_right: true },
            None => Column { name: (*text).to_owned(), is_right: false },
        };
        Self { title, head: head.iter().map(column).collect(), rows, caption }
    }
}

/// A cell of a table.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    /// What is in it.
    pub text: String,
    /// A line in small letters below.
    pub note: Option<String>,
    /// The link to the trials that it comes from.
    pub href: Option<String>,
    /// Whether it is set off from other cells.
    pub strong: bool,
}

impl Cell {
    /// With text in it.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// With a mean in it, and in small letters below it the interval.
    pub fn estimate((mean, interval): (Option<String>, Option<String>)) -> Self {
        Self::new(mean.unwrap_or(number::NONE.to_owned())).note(interval)
    }

    /// With a link to the trials that it comes from.
    pub fn to(mut self, href: impl Into<String>) -> Self {
        self.href = Some(href.into());
        self
    }

    /// With a line in small letters below.
    pub fn note(mut self, note: Option<String>) -> Self {
        self.note = note;
        self
    }

    /// Set off from other cells, if `strong`.
    pub fn strong(mut self, strong: bool) -> Self {
        self.strong = strong;
        self
    }
}
