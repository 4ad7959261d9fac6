//! The source that is compiled where a program runs: one text, since there are no files of the project there.

use super::kernel::Kernel;

/// What the source is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Language {
    /// NVRTC, which compiles rules that are not of this crate. (nvcc compiles the others from the files.)
    #[cfg(any(test, feature = "cuda"))]
    Cuda,
    /// Metal, which compiles all.
    #[cfg(any(test, feature = "metal"))]
    Metal,
}

const FILES: [(&str, &str); 9] = [
    ("elementwise.cu", include_str!("../../kernels/elementwise.cu")),
    ("norm.cu", include_str!("../../kernels/norm.cu")),
    ("elementwise.metal", include_str!("../../kernels/elementwise.metal")),
    ("norm.metal", include_str!("../../kernels/norm.metal")),
    ("elementwise.h", include_str!("../../kernels/elementwise.h")),
    ("norm.h", include_str!("../../kernels/norm.h")),
    ("launch.h", include_str!("../../kernels/launch.h")),
    ("numbers.h", include_str!("../../kernels/numbers.h")),
    ("rule.h", include_str!("../../kernels/rule.h")),
];

/// The kernels of a rule, from its printed header, or without one those of `norm.h`.
pub(super) fn of(language: Language, rule: Option<&Kernel>) -> String {
    let extension = match language {
        #[cfg(any(test, feature = "cuda"))]
        Language::Cuda => "cu",
        #[cfg(any(test, feature = "metal"))]
        Language::Metal => "metal",
    };
    let mut out = String::new();
    match rule {
        Some(rule) => {
            out += &format!("#define RULE {}\n", rule.name);
            append(&mut out, &format!("elementwise.{extension}"), &(rule.header)());
        }
        None => append(&mut out, &format!("norm.{extension}"), ""),
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
