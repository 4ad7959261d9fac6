//! Answers and tables as GitHub shows them.

use crate::report::{
    findings::Findings,
    sections::differences,
    table::{Cell, Table},
};

/// The answers, and below them the tables of each problem.
pub fn text(findings: &Findings) -> String {
    let mut parts = vec![format!("# {}", escaped(&findings.title))];
    parts.extend(findings.answers.iter().map(|answer| escaped(answer)));
    for (problem, results, comparisons) in findings.tables() {
        parts.push(format!("## {}", escaped(&problem.title)));
        parts.push(table(&results));
        match comparisons {
            Some(Ok(comparisons)) => parts.push(table(&comparisons)),
            Some(Err(sentence)) => parts.push(escaped(&sentence)),
            None => {}
        }
    }
    match &findings.differences {
        Some(differing) if differing.rows.is_empty() => parts.push(escaped(differences::NOTHING)),
        Some(differing) => parts.push(table(differing)),
        None => {}
    }
    parts.join("\n\n") + "\n"
}

fn table(table: &Table) -> String {
    let row = |cells: &mut dyn Iterator<Item = String>| format!("| {} |", cells.collect::<Vec<_>>().join(" | "));
    let mut lines = vec![format!("**{}.** {}", escaped(&table.title), escaped(&table.caption)), String::new()];
    lines.push(row(&mut table.head.iter().map(|column| escaped(&column.name))));
    lines.push(row(&mut table.head.iter().map(|column| if column.is_right { "---:" } else { "---" }.to_owned())));
    lines.extend(table.rows.iter().map(|cells| row(&mut cells.iter().map(cell))));
    lines.join("\n")
}

fn cell(Cell { text, note, strong, .. }: &Cell) -> String {
    let text = escaped(text);
    let text = if *strong && !text.is_empty() { format!("**{text}**") } else { text };
    match note {
        Some(note) => format!("{text} ({})", escaped(note)),
        None => text,
    }
}

/// `text` without anything that Markdown reads as its own. A line break would end a row.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '|' | '*' | '_' | '`' | '<' | '>' | '[' | ']' | '~' | '#' | '&' | '$' => escaped.extend(['\\', c]),
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    #[test]
    fn nothing_in_a_name_is_markdown() {
        for (plain, expected) in [
            ("adamw:lr=0.001,weight_decay=0|0.1", r"adamw:lr=0.001,weight\_decay=0\|0.1"),
            ("a*b*c <i> [x](y) `z` \\ ~~", r"a\*b\*c \<i\> \[x\](y) \`z\` \\ \~\~"),
            ("#1 & $2\nnext", r"\#1 \& \$2 next"),
            ("95 % CI -0.1 to 0.2", "95 % CI -0.1 to 0.2"),
        ] {
            assert_eq!(super::escaped(plain), expected);
        }
    }
}
