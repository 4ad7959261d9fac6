//! All trials with their configs: what every number leads to.

use crate::report::{
    group::{Subject, Trial},
    number,
    page::text,
};
use maud::{Markup, html};

/// The part of the page for all trials of `subject`.
pub fn section(subject: &Subject) -> Markup {
    html! {
        section id=(subject.anchor()) {
            h3 { (text(&subject.name)) }
            p {
                code { (text(&subject.config.optimizer)) } ", schedule " code { (text(&subject.config.schedule)) }
                " on " (text(&subject.model)) ", " (subject.summary.dataset)
            }
            @for trial in &subject.finals { (details(*trial)) }
            @if !subject.tuning.is_empty() {
                details {
                    summary { (subject.tuning.len()) " tuning trials" }
                    div { @for trial in &subject.tuning { (details(*trial)) } }
                }
            }
        }
    }
}

fn details(trial: Trial) -> Markup {
    let config = serde_json::to_string_pretty(&trial.record.config).expect("a config is plain data");
    html! {
        details {
            summary { code { (trial.record.id) } ": seed " (trial.record.config.seed) ", " (result(trial)) }
            // The id is inside, since a browser opens what it is told to show.
            div.trial id=(trial.anchor()) {
                @if let Some(outcome) = trial.outcome() {
                    dl.facts {
                        @if let Some(cause) = &outcome.cause { dt { "cause" } dd { (cause) } }
                        dt { "test loss" } dd { (number::optional(outcome.final_loss)) " at the end, " (number::optional(outcome.best_loss)) " at best" }
                        dt { "test accuracy" } dd {
                            (outcome.final_accuracy.map_or(number::NONE.to_owned(), number::percent)) " % at the end, "
                            (outcome.best_accuracy.map_or(number::NONE.to_owned(), number::percent)) " % at best"
                        }
                        dt { "length" } dd { (outcome.steps) " updates in " (number::seconds(outcome.seconds)) }
                    }
                }
                pre { (config) }
            }
        }
    }
}

fn result(trial: Trial) -> String {
    match trial.outcome() {
        None => "not ended".to_owned(),
        Some(outcome) if outcome.diverged => format!("diverged after {} updates", outcome.steps),
        Some(outcome) => {
            let accuracy = outcome.final_accuracy.map(|share| format!(", accuracy {} %", number::percent(share)));
            format!("test loss {}{}", number::optional(outcome.final_loss), accuracy.unwrap_or_default())
        }
    }
}
