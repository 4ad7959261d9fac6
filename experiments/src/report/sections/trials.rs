//! All trials with their configs: what every number leads to.

use crate::report::{
    group::{ReportGroup, Trial},
    number,
    page::text,
};
use maud::{Markup, html};

/// The part of the page for all trials of `group`.
pub fn section(group: &ReportGroup) -> Markup {
    html! {
        section id=(group.anchor()) {
            h3 { (text(&group.name)) }
            p {
                code { (text(&group.config.optimizer)) } ", schedule " code { (text(&group.config.schedule)) }
                " on " (text(&group.model)) ", " (group.summary.dataset)
            }
            @for trial in &group.finals { (details(*trial)) }
            @if !group.tuning.is_empty() {
                details {
                    summary { (group.tuning.len()) " tuning trials" }
                    div { @for trial in &group.tuning { (details(*trial)) } }
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
        Some(outcome) if outcome.stopped => format!("stopped by the search after {} updates", outcome.steps),
        Some(outcome) => {
            let accuracy = outcome.final_accuracy.map(|share| format!(", accuracy {} %", number::percent(share)));
            format!("test loss {}{}", number::optional(outcome.final_loss), accuracy.unwrap_or_default())
        }
    }
}
