//! Values under the pointer: shapes that are not seen, each with a title, which a browser shows where the pointer rests on it.

use super::{
    figure::{Axis, Curve, Drawn, Panel},
    simplify::kept,
};
use crate::report::number;
use std::fmt::Write;

/// The places of a figure and of a panel with titles on single points, shared by the curves: a page stays small.
const OF_A_FIGURE: usize = 300;
const OF_A_PANEL: usize = 40;
/// A curve has at least and at most so many of them.
const OF_A_CURVE: [usize; 2] = [2, 20];
/// The line on which the pointer finds a curve may be so far from it.
const NEAR: f64 = 8.0;
/// How far from a point or a line the pointer finds it, about.
const REACH: i32 = 9;

/// A shape that is not seen, and what a browser shows over it.
#[derive(Clone, Debug, PartialEq)]
struct Hint {
    shape: Shape,
    text: String,
}

#[derive(Clone, Debug, PartialEq)]
enum Shape {
    Line(Vec<(i32, i32)>),
    Point((i32, i32)),
    Box { corner: (i32, i32), size: (i32, i32) },
}

/// The hints of a picture.
#[derive(Clone, Debug, Default)]
pub struct Hints {
    all: Vec<Hint>,
    /// The places of a panel on single points.
    places: usize,
}

impl Hints {
    /// None so far, of a figure with so many `panels`.
    pub fn of_figure(panels: usize) -> Self {
        Self { all: Vec::new(), places: (OF_A_FIGURE / panels.max(1)).min(OF_A_PANEL) }
    }

    /// One more, over a box.
    pub fn add_box(&mut self, corner: (i32, i32), size: (i32, i32), text: String) {
        self.all.push(Hint { shape: Shape::Box { corner, size }, text });
    }

    /// Those of all that is drawn in `panel`, whose values stand where `place` says.
    pub fn add_panel(&mut self, panel: &Panel, place: impl Fn(f64, f64) -> (i32, i32), top: f64) {
        self.all.extend(hints(panel, place, top, self.places));
    }
}

/// The hints of all that is drawn in `panel`: lines first, so that points lie upon them.
fn hints(panel: &Panel, place: impl Fn(f64, f64) -> (i32, i32), top: f64, places: usize) -> Vec<Hint> {
    let named: Vec<&Curve> = panel.curves.iter().filter(|curve| !curve.name.is_empty()).collect();
    let [least, most] = OF_A_CURVE;
    let places = (places / named.len().max(1)).clamp(least, most);
    let (mut lines, mut points) = (Vec::new(), Vec::new());
    for curve in named {
        let finite = curve.finite();
        let Some(last) = finite.last() else { continue };
        let text = |x: f64, y: f64| format!("{}: {}, {}", curve.name, value(&panel.x, "", x), panel.quantity(y));
        if curve.drawn != Drawn::Markers && finite.len() > 1 {
            let line: Vec<(i32, i32)> = curve.line().into_iter().map(|(x, y)| place(x, y)).collect();
            let exact: Vec<(f64, f64)> = line.iter().map(|(x, y)| (f64::from(*x), f64::from(*y))).collect();
            let line = kept(&exact, NEAR).into_iter().map(|i| line[i]).collect();
            let text = format!("{}: {} at the end", curve.name, panel.quantity(last.y));
            lines.push(Hint { shape: Shape::Line(line), text });
        }
        let count = finite.len().min(places);
        for i in 0..count {
            // From the first to the last, equally far from each other.
            let point = finite[if count > 1 { i * (finite.len() - 1) / (count - 1) } else { 0 }];
            points.push(Hint { shape: Shape::Point(place(point.x, point.y)), text: text(point.x, point.y) });
        }
    }
    let marks = panel
        .marks
        .iter()
        .filter(|mark| !mark.title.is_empty())
        .map(|mark| Hint { shape: Shape::Point(place(mark.x, mark.y.unwrap_or(top))), text: mark.title.clone() });
    lines.into_iter().chain(points).chain(marks).collect()
}

impl Panel {
    /// `y` with the name and the unit of what the panel shows.
    fn quantity(&self, y: f64) -> String {
        value(&self.y, if self.quantity.is_empty() { &self.title } else { &self.quantity }, y)
    }
}

/// `x` with the name of what `axis` shows, or with another `name`, and with the unit.
fn value(axis: &Axis, name: &str, x: f64) -> String {
    let label = axis.label.split(": ").next().unwrap_or_default();
    let (own, unit) = match label.strip_suffix(')').and_then(|label| label.split_once(" (")) {
        Some((own, unit)) => (own, unit),
        None if label == "%" => ("", label),
        None => (label, ""),
    };
    let number = if x.fract() == 0.0 && x.abs() < 1e9 { x.to_string() } else { number::number(x) };
    format!("{} {number} {unit}", if name.is_empty() { own } else { name }).trim().to_owned()
}

/// Puts `hints` into a picture.
pub fn put(svg: &mut String, Hints { all: hints, .. }: &Hints) {
    let Some(end) = svg.rfind("</svg>").filter(|_| !hints.is_empty()) else { return };
    let mut group = format!("<g fill=\"none\" stroke-width=\"{}\" pointer-events=\"stroke\">", 2 * REACH);
    for Hint { shape, text } in hints {
        let text = escaped(text);
        let written = match shape {
            Shape::Line(points) => {
                let points = points.iter().map(|(x, y)| format!("{x} {y}")).collect::<Vec<_>>().join(" ");
                write!(group, "<path d=\"M{points}\"><title>{text}</title></path>")
            }
            // The stroke covers it as a whole.
            Shape::Point((x, y)) => {
                write!(group, "<circle cx=\"{x}\" cy=\"{y}\" r=\"{REACH}\"><title>{text}</title></circle>")
            }
            Shape::Box { corner: (x, y), size: (width, height) } => {
                let place = format!("x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"");
                write!(group, "<rect {place} pointer-events=\"all\"><title>{text}</title></rect>")
            }
        };
        written.expect("text can be appended to");
    }
    svg.insert_str(end, &(group + "</g>"));
}

/// `text` as it stands in a picture.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
