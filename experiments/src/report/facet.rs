//! What shares a panel: the groups of a problem in sets, with labels and styles that tell them apart.

use super::{group::ReportGroup, plot::style::STYLES};

/// Names and values of what sets a group apart.
type Aspects = Vec<(String, String)>;

/// Groups that are drawn into the same panels.
#[derive(Clone, Debug)]
pub struct Facet<'s, 'a> {
    /// What sets it apart from the other facets; empty where there is one.
    pub title: String,
    /// The groups, at most as many as there are styles.
    pub members: Vec<Member<'s, 'a>>,
}

/// A group in a facet.
#[derive(Clone, Debug)]
pub struct Member<'s, 'a> {
    /// What sets it apart from the other groups in the facet.
    pub label: String,
    /// The index of its style.
    pub style: usize,
    /// The group.
    pub group: &'s ReportGroup<'a>,
}

/// Whether the aspect `name` is one of the problem, which the groups of a facet share.
pub fn is_of_problem(name: &str) -> bool {
    name == "dataset" || name == "model"
}

/// Whether groups in one panel differ in the aspect `name`: in `schedules` in their schedule, in `warmup` in whether they warm up,
/// and elsewhere in anything but data set and model.
fn is_of_curve(experiment: &str, name: &str) -> bool {
    match experiment {
        "schedules" => name == "schedule",
        "warmup" => name == "warmup",
        _ => !is_of_problem(name),
    }
}

/// What sets `group` apart: in which facet it is, and where it is in it.
fn aspects(group: &ReportGroup) -> (Aspects, Aspects) {
    let factors = group.config.factors.clone().into_iter().filter(|(name, _)| !is_of_problem(name));
    let problem = [("dataset", &group.summary.dataset), ("model", &group.model)];
    let problem = problem.map(|(name, value)| (name.to_owned(), value.clone()));
    problem.into_iter().chain(factors).partition(|(name, _)| !is_of_curve(group.experiment, name))
}

/// Aspects in a few words.
fn words(aspects: &[(String, String)]) -> String {
    aspects.iter().map(|(name, value)| aspect(name, value)).collect::<Vec<_>>().join(", ")
}

/// Sorts `groups` into facets, which hold at most as many as there are styles.
pub fn facets<'s, 'a>(groups: &[&'s ReportGroup<'a>]) -> Vec<Facet<'s, 'a>> {
    let mut sorted: Vec<(Aspects, Vec<(String, &'s ReportGroup<'a>)>)> = Vec::new();
    for &group in groups {
        let (key, own) = aspects(group);
        let named = (words(&own), group);
        match sorted.iter_mut().find(|(other, _)| *other == key) {
            Some((_, alike)) => alike.push(named),
            None => sorted.push((key, vec![named])),
        }
    }
    let mut labels: Vec<String> = Vec::new();
    let mut facets = Vec::new();
    for (key, alike) in &sorted {
        // Only what not all facets have in common tells them apart.
        let is_telling = |aspect: &&(String, String)| sorted.iter().any(|(other, _)| !other.contains(aspect));
        let title = words(&key.iter().filter(is_telling).cloned().collect::<Vec<_>>());
        let is_unique =
            |short: &String| !short.is_empty() && alike.iter().filter(|(other, _)| other == short).count() == 1;
        let of_one_run = alike.iter().all(|(_, group)| group.name == group.config.name);
        let parts = alike.len().div_ceil(STYLES);
        for (part, alike) in alike.chunks(STYLES).enumerate() {
            let mut members: Vec<Member> = Vec::new();
            for (short, group) in alike {
                let label = if of_one_run && is_unique(short) { short.clone() } else { group.name.clone() };
                // The same label has the same style in all facets, as far as styles go.
                let place = labels.iter().position(|other| *other == label).unwrap_or_else(|| {
                    labels.push(label.clone());
                    labels.len() - 1
                });
                let taken = |style: usize| members.iter().any(|member| member.style == style);
                let style = (place..place + STYLES).map(|style| style % STYLES).find(|style| !taken(*style));
                members.push(Member { label, style: style.unwrap_or(place), group });
            }
            let title = match (parts, title.is_empty()) {
                (1, _) => title.clone(),
                (_, true) => format!("part {} of {parts}", part + 1),
                (_, false) => format!("{title}, part {} of {parts}", part + 1),
            };
            facets.push(Facet { title, members });
        }
    }
    facets
}

/// An aspect and its value in a few words.
pub fn aspect(name: &str, value: &str) -> String {
    match (name, value) {
        ("warmup", "yes") => "with warmup".to_owned(),
        ("warmup", "no") => "without warmup".to_owned(),
        ("norm", value) => format!("{value}-norm"),
        ("batch_size", value) => format!("batch size {value}"),
        ("optimizer" | "schedule" | "model" | "dataset" | "run", value) => value.to_owned(),
        (name, value) => format!("{name} {value}"),
    }
}
