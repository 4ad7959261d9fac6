//! The report in other forms than a page: tables for documents and papers, and numbers for programs.

mod csv;
mod latex;
mod markdown;

use super::{findings::Findings, group::ReportGroup};
use crate::{config::targets::Targets, record::run::Run};
use anyhow::{Result, bail};
use clap::ValueEnum;
use serde_json::json;

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

/// The report on `runs` in a `format`.
///
/// # Errors
/// As [`html`](super::html).
pub fn text(runs: &[Run], options: &Targets, format: Format) -> Result<String> {
    if format == Format::Html {
        return super::html(runs, options, None);
    }
    options.check()?;
    if runs.is_empty() {
        bail!("a report needs a run");
    }
    let groups = ReportGroup::all(runs)?;
    let findings = Findings::of(&groups, runs, options);
    match format {
        Format::Csv => csv::text(&findings),
        Format::Latex => Ok(latex::text(&findings)),
        Format::Json => json(&findings),
        Format::Html | Format::Markdown => Ok(markdown::text(&findings)),
    }
}

fn json(findings: &Findings) -> Result<String> {
    let differences = findings.differences.as_ref().map(|table| {
        let names = || table.head.iter().skip(1).map(|column| column.name.clone());
        let row = |cells: &Vec<super::table::Cell>| {
            let values = names().zip(cells.iter().skip(1).map(|cell| json!(cell.text)));
            (cells[0].text.clone(), values.collect::<serde_json::Map<_, _>>().into())
        };
        table.rows.iter().map(row).collect::<serde_json::Map<_, _>>()
    });
    let all = json!({
        "title": findings.title,
        "answers": findings.answers,
        "groups": findings.rows(),
        "comparisons": findings.tests(),
        "differences": differences,
    });
    Ok(serde_json::to_string_pretty(&all)? + "\n")
}
