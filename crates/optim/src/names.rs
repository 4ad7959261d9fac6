//! How names that people type are found: rules, schedules, recipes and their keys.

/// Whether two names mean the same: neither case nor `-` and `_` matter.
pub(crate) fn same(a: &str, b: &str) -> bool {
    plain(a) == plain(b)
}

fn plain(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '-' | '_')).flat_map(char::to_lowercase).collect()
}

/// ` did you mean ..?` with the known name that the given one is probably a slip of, or ` known are`.
pub(crate) fn suggestion(given: &str, known: &[&str]) -> String {
    // 0.8 accepts a slip in a short name and an abbreviation such as `exp`, and nothing unlike.
    let scored = known.iter().map(|name| (strsim::jaro_winkler(&plain(given), &plain(name)), name));
    match scored.filter(|(score, _)| *score >= 0.8).max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((_, near)) => format!(" did you mean `{near}`?"),
        None => " known are".to_string(),
    }
}
