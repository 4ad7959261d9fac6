//! What a shell and `man` are told of a command line.

use anyhow::{Context, Result};
use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

/// The script that makes `shell` complete the options of `command`.
pub fn completions(command: &mut Command, shell: Shell) -> Result<String> {
    let (name, mut script) = (command.get_name().to_owned(), Vec::new());
    clap_complete::generate(shell, command, name, &mut script);
    String::from_utf8(script).context("cannot print the completions")
}

/// The manual page of `command`.
pub fn page(command: Command) -> Result<String> {
    let mut page = Vec::new();
    Man::new(command).render(&mut page).context("cannot print the manual page")?;
    String::from_utf8(page).context("cannot print the manual page")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::options::Options;
    use clap::{CommandFactory, ValueEnum};

    #[test]
    fn every_shell_and_the_manual_are_told_every_option() {
        let mut command = Options::command().name("shootout");
        let page = page(command.clone()).unwrap();
        assert!(page.contains(".TH shootout 1"), "{page}");
        let scripts = Shell::value_variants().iter().map(|&shell| (shell, completions(&mut command, shell).unwrap()));
        let scripts: Vec<_> = scripts.collect();
        for option in command.get_opts().filter_map(|option| option.get_long()) {
            assert!(page.contains(&option.replace('-', "\\-")), "the page has no --{option}");
            for (shell, script) in &scripts {
                assert!(script.contains(option), "{shell} is not told --{option}");
            }
        }
    }
}
