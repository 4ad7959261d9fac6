//! The source that Metal compiles: one text, since there are no files where a program runs.

use super::kernel::Kernel;

const FILES: [(&str, &str); 7] = [
    ("elementwise.metal", include_str!("../../kernels/elementwise.metal")),
    ("norm.metal", include_str!("../../kernels/norm.metal")),
    ("elementwise.h", include_str!("../../kernels/elementwise.h")),
    ("norm.h", include_str!("../../kernels/norm.h")),
    ("launch.h", include_str!("../../kernels/launch.h")),
    ("numbers.h", include_str!("../../kernels/numbers.h")),
    ("rule.h", include_str!("../../kernels/rule.h")),
];

/// The kernels of a rule, from its printed header, or without one those of `norm.h`.
pub(super) fn of(rule: Option<&Kernel>) -> String {
    let mut out = String::new();
    match rule {
        Some(rule) => {
            out += &format!("#define RULE {}\n", rule.name);
            append(&mut out, "elementwise.metal", &(rule.header)());
        }
        None => append(&mut out, "norm.metal", ""),
    }
    out
}

/// Appends a file with what it includes in its place.
fn append(out: &mut String, name: &str, header: &str) {
    let text = FILES.iter().find(|(file, _)| *file == name).map_or("", |(_, text)| text);
    for line in text.lines() {
        match line.strip_prefix("#include ").map(|file| file.trim_matches('"')) {
            Some("RULE_HEADER") => out.push_str(header),
            Some(file) if !file.starts_with('<') => append(out, file, header),
            _ if line == "#pragma once" => {}
            _ => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
}
