//! A row per group, as RFC 4180 has it.

use crate::report::findings::Findings;
use anyhow::Result;
use serde_json::Value;

/// The rows below the names of the columns; a cell without a value is empty.
///
/// # Errors
/// When the rows cannot be written.
pub fn text(findings: &Findings) -> Result<String> {
    let rows = findings.rows();
    // The factors of one group may not be those of another; columns stand in the order of the first group that has them.
    let mut names: Vec<&String> = Vec::new();
    for row in &rows {
        let mut place = 0;
        for name in row.keys() {
            match names.iter().position(|other| *other == name) {
                Some(known) => place = known + 1,
                None => {
                    names.insert(place, name);
                    place += 1;
                }
            }
        }
    }
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    writer.write_record(&names)?;
    for row in &rows {
        let text = |name: &&String| match row.get(*name) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
        };
        writer.write_record(names.iter().map(text))?;
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}
