//! The report in other forms than a page: tables for documents and papers, and numbers for programs.

pub mod csv;
pub mod json;
pub mod latex;
pub mod markdown;

use clap::ValueEnum;

/// What a report is written as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A page with pictures
    #[default]
    Html,
    /// Answers and tables, as GitHub shows them
    Markdown,
    /// A row per group, with all its numbers in full
    Csv,
    /// Tables for a paper, with the package booktabs
    Latex,
    /// The rows of csv, with the answers and the tests of pairs
    Json,
}
