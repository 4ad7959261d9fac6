//! All numbers, with the answers and the tests of pairs, for programs.

use crate::report::{findings::Findings, table::Cell};
use anyhow::Result;
use serde_json::json;

/// An object with the rows of the other numbers, by the names of their columns.
///
/// # Errors
/// When it cannot be written.
pub fn text(findings: &Findings) -> Result<String> {
    let differences = findings.differences.as_ref().map(|table| {
        let names = || table.head.iter().skip(1).map(|column| column.name.clone());
        let row = |cells: &Vec<Cell>| {
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
