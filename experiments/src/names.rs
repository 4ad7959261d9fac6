//! Names that users type.

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

#[cfg(test)]
mod tests {
    use super::unknown;

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
