//! Names and numbers that users type.

/// An error for a `kind` of thing called `name`, which is none of `known`; it suggests the nearest of them.
pub fn unknown<'a>(kind: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> anyhow::Error {
    let known: Vec<&str> = known.into_iter().collect();
    let nearest = known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(&name.to_lowercase(), candidate), *candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().max(3) / 3)
        .min();
    let list = known.join(", ");
    match nearest {
        Some((_, nearest)) => anyhow::anyhow!("unknown {kind} `{name}`: did you mean `{nearest}`? (known: {list})"),
        None => anyhow::anyhow!("unknown {kind} `{name}` (known: {list})"),
    }
}

/// A number as people write it into an option, as short as it can be.
pub fn number(value: f64) -> String {
    if value != 0.0 && !(1e-3..1e4).contains(&value.abs()) { format!("{value:e}") } else { value.to_string() }
}

#[cfg(test)]
mod tests {
    use super::{number, unknown};

    #[test]
    fn numbers_are_short_and_read_back_the_same() {
        for (value, text) in
            [(1e-6, "1e-6"), (5e-4, "5e-4"), (0.003, "0.003"), (1.0, "1"), (0.0, "0"), (-2.5, "-2.5"), (2.5e7, "2.5e7")]
        {
            assert_eq!(number(value), text);
            assert_eq!(text.parse::<f64>(), Ok(value));
        }
    }

    #[test]
    fn suggests_what_is_near_and_nothing_else() {
        let known = ["mlp", "cnn", "resnet20"];
        for (name, suggestion) in
            [("resnet2", Some("resnet20")), ("ResNet20", Some("resnet20")), ("mpl", Some("mlp")), ("transformer", None)]
        {
            let message = unknown("model", name, known).to_string();
            assert!(
                message.contains(&format!("`{name}`")) && message.ends_with("(known: mlp, cnn, resnet20)"),
                "{message}"
            );
            let expected = suggestion.map(|near| format!("did you mean `{near}`?"));
            assert_eq!(expected.is_some(), message.contains("did you mean"), "{message}");
            assert!(expected.is_none_or(|expected| message.contains(&expected)), "{message}");
        }
    }
}
