//! Tables for a paper, with the package booktabs.

use crate::report::{
    findings::Findings,
    table::{Cell, Table},
};

/// The results and the comparisons of each problem.
pub fn text(findings: &Findings) -> String {
    let mut parts = vec!["% \\usepackage{booktabs}\n".to_owned()];
    for (_, results, comparisons) in findings.tables() {
        parts.push(table(&results));
        match comparisons {
            Some(Ok(comparisons)) => parts.push(table(&comparisons)),
            Some(Err(sentence)) => parts.push(escaped(&sentence) + "\n"),
            None => {}
        }
    }
    parts.join("\n")
}

fn table(table: &Table) -> String {
    let columns: String = table.head.iter().map(|column| if column.is_right { 'r' } else { 'l' }).collect();
    let row = |cells: &mut dyn Iterator<Item = String>| format!("{} \\\\\n", cells.collect::<Vec<_>>().join(" & "));
    let head = row(&mut table.head.iter().map(|column| escaped(&column.name)));
    let rows: String = table.rows.iter().map(|cells| row(&mut cells.iter().map(cell))).collect();
    format!(
        "\\begin{{table}}\n\\centering\n\\caption{{{}. {}}}\n\\begin{{tabular}}{{{columns}}}\n\\toprule\n{head}\\midrule\n{rows}\\bottomrule\n\
         \\end{{tabular}}\n\\end{{table}}\n",
        escaped(&table.title),
        escaped(&table.caption)
    )
}

fn cell(Cell { text, note, strong, .. }: &Cell) -> String {
    // A minus sign, not a hyphen.
    let is_negative = text.starts_with('-') && text[1..].starts_with(|c: char| c.is_ascii_digit());
    let text = if is_negative { format!("$-${}", escaped(&text[1..])) } else { escaped(text) };
    let text = if *strong && !text.is_empty() { format!("\\textbf{{{text}}}") } else { text };
    match note {
        Some(note) => format!("{text} {{\\footnotesize {}}}", escaped(note)),
        None => text,
    }
}

/// `text` without anything that LaTeX reads as its own, and with commands for the signs of the report that its fonts may lack.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        let command = match c {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => {
                escaped.extend(['\\', c]);
                continue;
            }
            '\\' => "\\textbackslash{}",
            '~' => "\\textasciitilde{}",
            '^' => "\\textasciicircum{}",
            '<' => "\\textless{}",
            '>' => "\\textgreater{}",
            '|' => "\\textbar{}",
            '"' => "''",
            '`' => "\\textasciigrave{}",
            '–' => "--",
            '×' => "$\\times$",
            '≤' => "$\\le$",
            '≥' => "$\\ge$",
            'τ' => "$\\tau$",
            'ρ' => "$\\rho$",
            c if c.is_control() => " ",
            c => {
                escaped.push(c);
                continue;
            }
        };
        escaped += command;
    }
    escaped
}

#[cfg(test)]
mod tests {
    #[test]
    fn nothing_in_a_name_is_latex() {
        for (plain, expected) in [
            ("weight_decay=0.1", r"weight\_decay=0.1"),
            ("50 % & #1 {$x$}", r"50 \% \& \#1 \{\$x\$\}"),
            ("a\\b~c^d", r"a\textbackslash{}b\textasciitilde{}c\textasciicircum{}d"),
            ("<0|1> \"x\"", r"\textless{}0\textbar{}1\textgreater{} ''x''"),
            ("–≥ 2 ×\n", r"--$\ge$ 2 $\times$ "),
        ] {
            assert_eq!(super::escaped(plain), expected);
        }
    }
}
