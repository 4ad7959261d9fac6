//! What a picture shows, as plain data: rows of panels with their axes, curves and legends.

/// Rows of panels under one title.
#[derive(Clone, Debug, Default)]
pub struct Figure {
    /// What it shows.
    pub title: String,
    /// From top to bottom.
    pub rows: Vec<Row>,
}

impl Figure {
    /// How many panels it has.
    pub fn panels(&self) -> usize {
        self.rows.iter().map(|row| row.panels.len()).sum()
    }
}

/// Panels side by side, which share a legend.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// What sets it apart from other rows; empty for the only one.
    pub title: String,
    /// From left to right.
    pub panels: Vec<Panel>,
    /// What the styles of the panels' curves stand for.
    pub legend: Vec<Key>,
}

/// An entry of a legend.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// What is drawn so.
    pub name: String,
    /// The index of its style, modulo [`STYLES`](super::style::STYLES).
    pub style: usize,
    /// How its points are drawn.
    pub drawn: Drawn,
}

impl Key {
    /// The legend of curves, or of markers: names and the indices of their styles.
    pub fn all<'l>(entries: impl Iterator<Item = (&'l str, usize)>, drawn: Drawn) -> Vec<Self> {
        entries.map(|(name, style)| Self { name: name.to_owned(), style, drawn }).collect()
    }
}

/// One pair of axes.
#[derive(Clone, Debug, Default)]
pub struct Panel {
    /// What it shows.
    pub title: String,
    /// What stands vertically, in a few words, where that is not the title.
    pub quantity: String,
    /// Whether it is drawn for a row of its own, less high against its width.
    pub is_wide: bool,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// What is drawn in it.
    pub curves: Vec<Curve>,
    /// Horizontal lines to compare with.
    pub reference_lines: Vec<ReferenceLine>,
    /// Single points that stand out.
    pub marks: Vec<Mark>,
    /// Coloured cells in place of curves.
    pub grid: Option<Grid>,
}

/// Values by two numbers, as coloured cells.
#[derive(Clone, Debug, Default)]
pub struct Grid {
    /// The names of the columns, from left to right.
    pub columns: Vec<String>,
    /// The names of the rows, from the bottom up.
    pub rows: Vec<String>,
    /// The cells; a place without one stays empty.
    pub cells: Vec<GridCell>,
}

/// A cell of a grid.
#[derive(Clone, Debug, Default)]
pub struct GridCell {
    /// The index of its column.
    pub column: usize,
    /// The index of its row.
    pub row: usize,
    /// What is written in it, where there is room.
    pub text: String,
    /// How dark it is, from 0 to 1; none for a grey one, without a value.
    pub shade: Option<f64>,
    /// Whether it is framed.
    pub is_best: bool,
    /// Whether it has a cross in its corner.
    pub is_crossed: bool,
    /// What the pointer tells of it.
    pub title: String,
}

impl Panel {
    /// How far to the right it has anything; 0 where it has nothing.
    pub fn greatest_x(&self) -> f64 {
        let xs = self.points().map(|point| point.x).chain(self.marks.iter().map(|mark| mark.x));
        xs.fold(0.0, f64::max)
    }

    /// The points of its curves that can be drawn.
    pub fn points(&self) -> impl Iterator<Item = &Point> {
        self.curves.iter().flat_map(|curve| &curve.points).filter(|point| point.x.is_finite() && point.y.is_finite())
    }
}

/// An axis.
#[derive(Clone, Debug, Default)]
pub struct Axis {
    /// The quantity and its unit.
    pub label: String,
    /// Whether equal lengths are equal ratios; an axis without a positive value is linear in any case.
    pub logarithmic: bool,
    /// Its ends; otherwise they follow from the values. What lies beyond an end is drawn at the end.
    pub range: Option<[f64; 2]>,
    /// Its upper end is not above this where it follows from the values.
    pub cap: Option<f64>,
    /// The least and the greatest value that there can be: no end that follows from the values lies beyond.
    pub within: Option<[f64; 2]>,
}

impl Axis {
    /// An axis on which equal lengths are equal differences.
    pub fn linear(label: &str) -> Self {
        Self { label: label.to_owned(), ..Self::default() }
    }

    /// An axis on which equal lengths are equal ratios.
    pub fn logarithmic(label: &str) -> Self {
        Self { logarithmic: true, ..Self::linear(label) }
    }
}

/// Points of one style.
#[derive(Clone, Debug)]
pub struct Curve {
    /// What the pointer tells of it; empty where it tells nothing.
    pub name: String,
    /// The index of its style, modulo [`STYLES`](super::style::STYLES).
    pub style: usize,
    /// By x.
    pub points: Vec<Point>,
    /// How they are drawn.
    pub drawn: Drawn,
}

impl Curve {
    /// Its points that can be drawn.
    pub fn finite(&self) -> Vec<Point> {
        self.points.iter().copied().filter(|point| point.x.is_finite() && point.y.is_finite()).collect()
    }

    /// The corners of its line.
    pub fn line(&self) -> Vec<(f64, f64)> {
        let points = self.finite();
        let mut line: Vec<(f64, f64)> = Vec::with_capacity(2 * points.len());
        for point in &points {
            if let (Drawn::Steps, Some(&(_, y))) = (self.drawn, line.last()) {
                line.push((point.x, y));
            }
            line.push((point.x, point.y));
        }
        line
    }
}

/// How the points of a curve are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drawn {
    /// Joined by straight lines, with markers.
    Line,
    /// As a function that keeps its value until the next point, with markers.
    Steps,
    /// As markers.
    Markers,
    /// Joined by a thin dotted line, with rings: what goes with another curve of the same style.
    Dotted,
}

/// A point of a curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Where it is horizontally.
    pub x: f64,
    /// Where it is vertically.
    pub y: f64,
    /// The lower and upper end of the band around it.
    pub band: Option<[f64; 2]>,
}

/// A horizontal line to compare with.
#[derive(Clone, Debug)]
pub struct ReferenceLine {
    /// Where it is.
    pub y: f64,
    /// What it stands for.
    pub label: String,
}

/// A point that stands out.
#[derive(Clone, Debug)]
pub struct Mark {
    /// What the pointer tells of it; empty where it tells nothing.
    pub title: String,
    /// Where it is horizontally.
    pub x: f64,
    /// Where it is vertically; none for the top edge.
    pub y: Option<f64>,
    /// The index of the style whose colour it has, modulo [`STYLES`](super::style::STYLES).
    pub style: usize,
    /// Its shape.
    pub shape: Shape,
}

/// The shape of a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A cross.
    Cross,
    /// A ring around a marker.
    Ring,
}
