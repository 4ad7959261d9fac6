//! What the first page says about `optim` is what the crate has.

use std::path::Path;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_table_of_rules_is_fresh() {
    for (page, expected) in
        [("crates/optim/RULES.md", optim::rules::table()), ("README.md", optim::rules::names_by_family())]
    {
        let page = read(page);
        let table = page.split("<!-- rules -->\n").nth(1).and_then(|rest| rest.split("<!-- end of rules -->").next());
        assert_eq!(table, Some(expected.as_str()), "run `cargo run --release --example generate`");
    }
}

#[test]
fn a_rule_is_as_short_as_it_says_and_shown_as_it_is() {
    let (readme, lion, adamw) =
        (read("README.md"), read("crates/optim/src/rules/lion.rs"), read("crates/optim/src/rules/adamw.rs"));
    let is_code = |line: &&str| !line.trim().is_empty() && !line.trim().starts_with("//");
    let code = lion.lines().filter(is_code).count();
    assert!(readme.contains(&format!("({code} lines of code)")), "lion.rs has {code} lines of code");
    for line in ["let m = m.lerp(grad, one_minus_beta1);", "(m * m_scale / ((v * v_scale).sqrt() + eps), [m, v])"] {
        assert!(readme.contains(line) && adamw.contains(line), "{line}");
    }
}

/// The page on rules shows the program of tests/own_rule, and compiles and runs it as its documentation.
#[test]
fn the_page_on_rules_shows_the_crate_with_a_rule_of_its_own() {
    let (program, page) = (read("tests/own_rule/src/main.rs"), read("crates/optim/src/rule/mod.rs"));
    let code =
        program.split_once("\n\n").and_then(|(_, rest)| rest.split_once("\n\n#[cfg(test)]")).expect("its parts").0;
    let shown: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("//!"))
        .map(|line| line.strip_prefix(' ').unwrap_or(line))
        .collect();
    let shown = shown.join("\n");
    assert!(shown.contains(&format!("```\n{code}\n```")), "the page of optim::rule is to show this:\n{code}");
    let lines = code.lines().filter(|line| !line.trim().is_empty() && !line.trim().starts_with("//")).count();
    assert!(lines < 45, "a rule and its use are {lines} lines of code");
}

/// The page of the crate is compiled and run as its documentation is. So what the first page has of it compiles too.
#[test]
fn what_the_first_page_shows_of_the_library_is_on_the_page_of_the_crate() {
    let (readme, page) = (read("README.md"), read("crates/optim/README.md"));
    let has = |line: &str| page.lines().any(|other| other.trim() == line.trim());
    let code = readme.split("```rust\n").skip(1).flat_map(|rest| rest.split("```").next().unwrap_or_default().lines());
    let code: Vec<&str> = code.map(str::trim).filter(|line| line.contains("optim")).collect();
    let map: Vec<&str> = readme
        .lines()
        .skip_while(|line| !line.starts_with("| PyTorch"))
        .take_while(|line| line.starts_with('|'))
        .collect();
    assert!(code.len() >= 3 && map.len() >= 10, "{code:?} {map:?}");
    for line in code.into_iter().chain(map) {
        assert!(has(line) || line.contains("optimizer.backward_step"), "{line}");
    }
}
