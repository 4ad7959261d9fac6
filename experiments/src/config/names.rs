//! Names and numbers that users type.

use optim::text::nearest;
use std::ffi::OsStr;

/// An error for a `kind` of thing called `name`, which is none of `known`; it suggests the nearest of them.
pub fn unknown<'a>(kind: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> anyhow::Error {
    let known: Vec<&str> = known.into_iter().collect();
    let list = known.join(", ");
    match nearest(name, &known) {
        Some(nearest) => anyhow::anyhow!("unknown {kind} `{name}`: did you mean `{nearest}`? (known: {list})"),
        None => anyhow::anyhow!("unknown {kind} `{name}` (known: {list})"),
    }
}

/// A number as people write it into an option, as short as it can be.
pub fn number(value: f64) -> String {
    if value != 0.0 && !(1e-3..1e4).contains(&value.abs()) { format!("{value:e}") } else { value.to_string() }
}

/// A path as a shell reads it: as it is, between quotes, or with bytes as numbers (`$'..'`, which sh has had since POSIX 2024).
pub fn for_shell(path: &OsStr) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+,:@%=".contains(c);
    match path.to_str() {
        Some(text) if !text.is_empty() && text.chars().all(is_plain) => text.to_owned(),
        Some(text) if !text.chars().any(char::is_control) => format!("'{}'", text.replace('\'', r"'\''")),
        _ => format!("$'{}'", path.as_encoded_bytes().escape_ascii()),
    }
}

#[cfg(test)]
mod tests {
    use super::{for_shell, number, unknown};
    use std::ffi::OsStr;

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
    fn a_shell_reads_what_it_is_told_as_the_path() {
        for (path, expected) in [
            ("runs/shootout-2026", "runs/shootout-2026"),
            ("Größe", "Größe"),
            ("my runs", "'my runs'"),
            ("it's; rm -r $HOME", r"'it'\''s; rm -r $HOME'"),
            ("a\nb\\", r"$'a\nb\\'"),
            ("", "''"),
        ] {
            assert_eq!(for_shell(OsStr::new(path)), expected);
            #[cfg(unix)]
            {
                let echo = format!("printf %s {}", for_shell(OsStr::new(path)));
                let output = std::process::Command::new("bash").args(["-c", &echo]).output().unwrap();
                assert_eq!(String::from_utf8(output.stdout).unwrap(), path);
            }
        }
        #[cfg(unix)]
        {
            let path: &OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"o\xff't");
            assert_eq!(for_shell(path), r"$'o\xff\'t'");
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
