//! Charts as SVG: panels of curves with bands, in colours that people with any colour vision can tell apart.
//!
//! A [`Figure`] is rows of [`Panel`]s with their legends. [`Figure::svg`] makes a picture of it all; for a page, which lays out
//! panels by the width at hand, [`Panel::svg`] and [`Key::svg`] make the parts. Colours are plain attributes, so that a style sheet
//! such as [`DARK`] can put others in their place.

use anyhow::{Result, anyhow};
use plotters::{
    coord::{
        Shift,
        ranged1d::{KeyPointHint, NoDefaultFormatting, ValueFormatter},
    },
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};
use std::{f64::consts::TAU, ops::Range};

/// Rows of panels under one title.
#[derive(Clone, Debug, Default)]
pub struct Figure {
    /// What it shows.
    pub title: String,
    /// From top to bottom.
    pub rows: Vec<Row>,
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
    /// The index of its style, modulo [`STYLES`].
    pub style: usize,
    /// How its points are drawn.
    pub drawn: Drawn,
}

/// One pair of axes.
#[derive(Clone, Debug, Default)]
pub struct Panel {
    /// What it shows.
    pub title: String,
    /// Whether it is drawn for a row of its own, less high against its width.
    pub is_wide: bool,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// What is drawn in it.
    pub curves: Vec<Curve>,
    /// Horizontal lines to compare with.
    pub rules: Vec<Rule>,
    /// Single points that stand out.
    pub marks: Vec<Mark>,
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
    /// The index of its style, modulo [`STYLES`].
    pub style: usize,
    /// By x.
    pub points: Vec<Point>,
    /// How they are drawn.
    pub drawn: Drawn,
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

/// A horizontal line.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Where it is.
    pub y: f64,
    /// What it stands for.
    pub label: String,
}

/// A point that stands out.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    /// Where it is horizontally.
    pub x: f64,
    /// Where it is vertically; none for the top edge.
    pub y: Option<f64>,
    /// The index of the style whose colour it has, modulo [`STYLES`].
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

/// How many curves can be told apart.
pub const STYLES: usize = 8;

/// The palette of Okabe & Ito (2008) without yellow, which is too faint on white, and a grey.
const COLOURS: [RGBColor; STYLES] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
    RGBColor(127, 127, 127),
];

/// The dash pattern of each style.
const DASHES: [&str; STYLES] = ["", "18 7", "4 6", "18 6 4 6", "10 5", "26 7", "18 5 4 5 4 5", "2 4"];

/// Turns the colours of a picture for a light page into those for a dark one.
pub const DARK: &str = r##"svg [fill="#FFFFFF"]{fill:#151515}
svg[fill="#282828"]{fill:#e2e2e2}svg [stroke="#282828"]{stroke:#b8b8b8}
svg [stroke="#E1E1E1"]{stroke:#383838}
svg [fill="#000000"]{fill:#f2f2f2}svg [stroke="#000000"]{stroke:#f2f2f2}
svg [fill="#0072B2"]{fill:#3f9fe0}svg [stroke="#0072B2"]{stroke:#3f9fe0}
svg [fill="#7F7F7F"]{fill:#a2a2a2}svg [stroke="#7F7F7F"]{stroke:#a2a2a2}
"##;

/// Lengths are in units of the drawing, which a page shows at about half the size.
const PANEL: (u32, u32) = (960, 620);
const WIDE_PANEL: (u32, u32) = (1300, 500);
const TITLE_HEIGHT: u32 = 72;
const ROW_TITLE_HEIGHT: u32 = 60;
const LEGEND_HEIGHT: u32 = 50;
const LEGEND_LEFT: u32 = 60;
const SWATCH: (u32, u32) = (84, 32);
const CURVE_WIDTH: u32 = 4;
const MARKER: f64 = 9.0;
/// A curve of fewer points has a marker at each.
const FEW_POINTS: usize = 20;
/// One of more has about so many over the width of the panel.
const MARKERS: usize = 6;
/// What is nearer to a line than this is not seen beside it.
const UNSEEN: f64 = 0.7;
/// A logarithmic axis shows at most this ratio of its ends.
const LONGEST_RATIO: f64 = 1e10;
const FONT: &str = "sans-serif";
const TEXT: RGBColor = RGBColor(40, 40, 40);
const GRID: RGBColor = RGBColor(225, 225, 225);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Span, Span>>;
type Drawing = Result<(), Box<dyn std::error::Error>>;

impl Figure {
    /// The picture, which stands for itself: with a background, and dark where the reader prefers that.
    ///
    /// # Errors
    /// When the drawing fails.
    pub fn svg(&self) -> Result<String> {
        let rows = self.rows.iter().map(Row::width);
        let width = rows.chain([PANEL.0, 28 + text_width(&self.title, 42)]).fold(0, u32::max);
        let height =
            |row: &Row| row.title_height() + row.panel_height() + legend_rows(&row.legend, width) * LEGEND_HEIGHT + 16;
        let size = (width, TITLE_HEIGHT + self.rows.iter().map(height).sum::<u32>());
        let svg = draw(size, |root| {
            root.fill(&WHITE)?;
            root.draw(&Text::new(self.title.clone(), (28, 22), (FONT, 42).into_font().color(&TEXT)))?;
            let mut top = TITLE_HEIGHT;
            for row in &self.rows {
                let area = root.clone().shrink((0, top), (width, height(row)));
                row.draw(&area, width)?;
                top += height(row);
            }
            Ok(())
        })?;
        let open = format!("<svg width=\"{}\" height=\"{}\"", size.0, size.1);
        let shown = format!(
            "<svg role=\"img\" aria-label=\"{}\" width=\"{}\" height=\"{}\"",
            escaped(&self.title),
            size.0 / 2,
            size.1 / 2
        );
        let svg = svg.replacen(&open, &shown, 1);
        let style = format!("\n<style>@media (prefers-color-scheme: dark) {{\n{DARK}}}</style>\n");
        Ok(svg.replacen('>', &format!(">{style}"), 1))
    }
}

impl Row {
    fn title_height(&self) -> u32 {
        if self.title.is_empty() { 0 } else { ROW_TITLE_HEIGHT }
    }

    fn panel_sizes(&self) -> impl Iterator<Item = (u32, u32)> {
        self.panels.iter().map(Panel::size)
    }

    /// What its panels, its title and every entry of its legend have room in.
    fn width(&self) -> u32 {
        let panels = self.panel_sizes().map(|size| size.0).sum();
        let entries = self.legend.iter().map(|key| LEGEND_LEFT + legend_width(key));
        entries.chain([28 + text_width(&self.title, 36)]).fold(panels, u32::max)
    }

    fn panel_height(&self) -> u32 {
        self.panel_sizes().map(|size| size.1).max().unwrap_or(0)
    }

    fn draw(&self, area: &Area, width: u32) -> Drawing {
        if !self.title.is_empty() {
            area.draw(&Text::new(self.title.clone(), (28, 14), (FONT, 36).into_font().color(&TEXT)))?;
        }
        let top = self.title_height();
        let mut left = 0;
        for panel in &self.panels {
            panel.draw(&area.clone().shrink((left, top), panel.size()))?;
            left += panel.size().0;
        }
        let top = (top + self.panel_height()) as i32;
        for (key, (x, row)) in self.legend.iter().zip(legend_places(&self.legend, width)) {
            let (x, y) = (x as i32, top + (row * LEGEND_HEIGHT + LEGEND_HEIGHT / 2) as i32);
            key.draw(area, (x, y))?;
            let style = (FONT, 32).into_font().color(&TEXT).pos(Pos::new(HPos::Left, VPos::Center));
            area.draw(&Text::new(key.name.clone(), (x + SWATCH.0 as i32 + 12, y), style))?;
        }
        Ok(())
    }
}

/// Where each entry of a legend stands: its left end, and the row.
fn legend_places(legend: &[Key], width: u32) -> Vec<(u32, u32)> {
    let (mut x, mut row) = (LEGEND_LEFT, 0);
    let mut places = Vec::with_capacity(legend.len());
    for key in legend {
        let length = legend_width(key);
        if x > LEGEND_LEFT && x + length > width {
            (x, row) = (LEGEND_LEFT, row + 1);
        }
        places.push((x, row));
        x += length;
    }
    places
}

fn legend_width(key: &Key) -> u32 {
    SWATCH.0 + 60 + text_width(&key.name, 32)
}

/// About how wide a text is; few are wider.
fn text_width(text: &str, size: u32) -> u32 {
    text.chars().count() as u32 * size / 2
}

fn legend_rows(legend: &[Key], width: u32) -> u32 {
    legend_places(legend, width).last().map_or(0, |(_, row)| row + 1)
}

impl Key {
    /// The entry's line or marker, for a page.
    ///
    /// # Errors
    /// When the drawing fails.
    pub fn svg(&self) -> Result<String> {
        let svg = draw(SWATCH, |root| self.draw(root, (0, SWATCH.1 as i32 / 2)))?;
        Ok(sized_by_page(&svg, SWATCH, "aria-hidden=\"true\""))
    }

    /// Draws it from the point `(x, y)` to the right.
    fn draw(&self, area: &Area, (x, y): (i32, i32)) -> Drawing {
        let colour = colour(self.style);
        if self.drawn != Drawn::Markers {
            area.draw(&PathElement::new([(x, y), (x + SWATCH.0 as i32, y)], colour.stroke_width(CURVE_WIDTH)))?;
        }
        let middle = (x + SWATCH.0 as i32 / 2, y);
        Ok(area.draw(&(EmptyElement::at(middle) + Polygon::new(marker(self.style), colour.filled())))?)
    }
}

impl Panel {
    /// The panel for a page: without a background, as wide as the page makes it. `context` tells readers who cannot see it
    /// where it belongs.
    ///
    /// # Errors
    /// When the drawing fails.
    pub fn svg(&self, context: &str) -> Result<String> {
        let svg = draw(self.size(), |root| self.draw(root))?;
        let label = if context.is_empty() { self.title.clone() } else { format!("{}: {context}", self.title) };
        Ok(sized_by_page(&svg, self.size(), &format!("role=\"img\" aria-label=\"{}\"", escaped(&label))))
    }

    fn size(&self) -> (u32, u32) {
        if self.is_wide { WIDE_PANEL } else { PANEL }
    }

    /// How far to the right it has anything; 0 where it has nothing.
    pub fn greatest_x(&self) -> f64 {
        let xs = self.points().map(|point| point.x).chain(self.marks.iter().map(|mark| mark.x));
        xs.fold(0.0, f64::max)
    }

    fn points(&self) -> impl Iterator<Item = &Point> {
        self.curves.iter().flat_map(|curve| &curve.points).filter(|point| point.x.is_finite() && point.y.is_finite())
    }

    fn y_values(&self) -> Vec<f64> {
        let marked = self.marks.iter().filter_map(|mark| mark.y);
        self.points().map(|point| point.y).chain(self.rules.iter().map(|rule| rule.y)).chain(marked).collect()
    }

    fn spans(&self) -> [Span; 2] {
        let xs = self.points().map(|point| point.x).chain(self.marks.iter().map(|mark| mark.x));
        let bands = self.points().filter_map(|point| point.band).flatten();
        let x = Span::of(&self.x, &xs.collect::<Vec<_>>(), &[], true);
        [x, Span::of(&self.y, &self.y_values(), &bands.collect::<Vec<_>>(), false)]
    }

    fn draw(&self, area: &Area) -> Drawing {
        let [x, y] = self.spans();
        let (left, right) = (x.low, x.high);
        let top = y.high;
        let text = |size: u32| (FONT, size).into_font().color(&TEXT);
        // A long title is written smaller.
        let title_size = (38 * self.size().0 / text_width(&self.title, 38).max(1)).min(38);
        let mut chart = ChartBuilder::on(area)
            .margin(14)
            .margin_right(34)
            .caption(&self.title, text(title_size))
            .x_label_area_size(92)
            .y_label_area_size(142)
            .build_cartesian_2d(x, y)?;
        chart
            .configure_mesh()
            .x_desc(&self.x.label)
            .y_desc(&self.y.label)
            .bold_line_style(GRID.stroke_width(2))
            .light_line_style(TRANSPARENT)
            .axis_style(TEXT.stroke_width(2))
            .label_style(text(31))
            .axis_desc_style(text(33))
            // The grid shows where they are; the space keeps them off the axis.
            .set_tick_mark_size(LabelAreaPosition::Left, 0)
            .y_label_formatter(&|y| format!("{}\u{a0}", short(*y)))
            .draw()?;
        if self.points().next().is_none() && self.marks.is_empty() {
            let style = text(34).pos(Pos::new(HPos::Center, VPos::Center));
            let middle = chart.plotting_area().dim_in_pixel();
            let middle = (middle.0 as i32 / 2, middle.1 as i32 / 2);
            chart.plotting_area().strip_coord_spec().draw(&Text::new("nothing was measured", middle, style))?;
        }
        for rule in &self.rules {
            chart.draw_series([PathElement::new([(left, rule.y), (right, rule.y)], TEXT.stroke_width(3))])?;
            let style = text(28).pos(Pos::new(HPos::Right, VPos::Bottom));
            let label = EmptyElement::at((right, rule.y)) + Text::new(rule.label.clone(), (-6, -4), style);
            chart.draw_series([label])?;
        }
        for curve in &self.curves {
            curve.draw_band(&mut chart)?;
        }
        for curve in &self.curves {
            curve.draw(&mut chart)?;
        }
        for mark in &self.marks {
            let at = (mark.x, mark.y.unwrap_or(top));
            // A cross at the edge hangs below it, so that it does not lose its upper half.
            let shift = if mark.y.is_none() { 14 } else { 0 };
            match mark.shape {
                Shape::Cross => {
                    let cross = EmptyElement::at(at) + Cross::new((0, shift), 11, colour(mark.style).stroke_width(6));
                    chart.draw_series([cross])?;
                }
                Shape::Ring => {
                    chart.draw_series([Circle::new(at, 19, TEXT.stroke_width(5))])?;
                }
            }
        }
        Ok(())
    }
}

/// Gives `panels` the same vertical range, so that they can be compared.
pub fn share_y(panels: &mut [Panel]) {
    let spans: Vec<Span> =
        panels.iter().filter(|panel| panel.points().next().is_some()).map(|panel| panel.spans()[1].clone()).collect();
    let low = spans.iter().map(|span| span.low).fold(f64::INFINITY, f64::min);
    let high = spans.iter().map(|span| span.high).fold(f64::NEG_INFINITY, f64::max);
    if low < high {
        panels.iter_mut().for_each(|panel| panel.y.range = Some([low, high]));
    }
}

impl Curve {
    fn finite(&self) -> Vec<Point> {
        self.points.iter().copied().filter(|point| point.x.is_finite() && point.y.is_finite()).collect()
    }

    fn draw_band(&self, chart: &mut Chart) -> Drawing {
        let points = self.finite();
        for part in points.chunk_by(|a, b| a.band.is_some() == b.band.is_some()).filter(|part| part.len() > 1) {
            let ends = |i: usize| -> Vec<(f64, f64)> {
                let ends = part.iter().filter_map(|point| point.band.map(|band| (point.x, band[i])));
                seen(&ends.collect::<Vec<_>>(), chart)
            };
            let outline: Vec<_> = ends(1).into_iter().chain(ends(0).into_iter().rev()).collect();
            if !outline.is_empty() {
                chart.draw_series([Polygon::new(outline, colour(self.style).mix(0.18))])?;
            }
        }
        Ok(())
    }

    fn draw(&self, chart: &mut Chart) -> Drawing {
        let (points, colour) = (self.finite(), colour(self.style));
        let mut line: Vec<(f64, f64)> = Vec::with_capacity(2 * points.len());
        for point in &points {
            if let (Drawn::Steps, Some(&(_, y))) = (self.drawn, line.last()) {
                line.push((point.x, y));
            }
            line.push((point.x, point.y));
        }
        if self.drawn != Drawn::Markers && line.len() > 1 {
            chart.draw_series([PathElement::new(seen(&line, chart), colour.stroke_width(CURVE_WIDTH))])?;
        }
        let marked = if self.drawn == Drawn::Markers || points.len() < FEW_POINTS {
            points
        } else {
            spread(&points, self.style, chart)
        };
        let marker =
            |point: Point| EmptyElement::at((point.x, point.y)) + Polygon::new(marker(self.style), colour.filled());
        chart.draw_series(marked.into_iter().map(marker))?;
        Ok(())
    }
}

/// Some of `points`, about equally far from each other; those of another style elsewhere, so that markers of curves that lie
/// upon each other do not.
fn spread(points: &[Point], style: usize, chart: &Chart) -> Vec<Point> {
    let (width, _) = chart.plotting_area().dim_in_pixel();
    let left = chart.plotting_area().get_pixel_range().0.start;
    let apart = f64::from(width) / MARKERS as f64;
    let shift = (style % STYLES) as f64 + 0.5;
    // The interval between two places of markers that a point is in.
    let interval = |point: &Point| {
        let (x, _) = chart.as_coord_spec().translate(&(point.x, point.y));
        (f64::from(x - left) / apart - shift / STYLES as f64).floor()
    };
    let pairs = points.windows(2).filter(|pair| interval(&pair[0]) < interval(&pair[1]));
    let marked: Vec<Point> = pairs.map(|pair| pair[1]).collect();
    // A curve that ends early may lie between two places.
    if marked.is_empty() { points.get(points.len() / 2).copied().into_iter().collect() } else { marked }
}

/// `line` without the points that make no visible difference (Douglas & Peucker 1973): a picture of a long run is then as small as
/// that of a short one, and jumps stay where they are.
fn seen(line: &[(f64, f64)], chart: &Chart) -> Vec<(f64, f64)> {
    let (width, height) = chart.plotting_area().dim_in_pixel();
    let (x_span, y_span) = (chart.as_coord_spec().x_spec(), chart.as_coord_spec().y_spec());
    let place = |(x, y): &(f64, f64)| (x_span.share(*x) * f64::from(width), y_span.share(*y) * f64::from(height));
    let mut placed: Vec<(usize, (f64, f64))> = line.iter().map(place).enumerate().collect();
    placed.dedup_by_key(|(_, place)| *place);
    let mut kept = vec![false; placed.len()];
    let mut parts = vec![(0, placed.len().saturating_sub(1))];
    while let Some((first, last)) = parts.pop() {
        let Some(&[(_, from), .., (_, to)]) = placed.get(first..=last) else {
            kept.iter_mut().for_each(|kept| *kept = true);
            break;
        };
        (kept[first], kept[last]) = (true, true);
        let distances = placed[first..=last].iter().enumerate().map(|(i, (_, point))| (distance(*point, from, to), i));
        let (farthest, i) = distances.max_by(|(a, _), (b, _)| a.total_cmp(b)).unwrap_or_default();
        if farthest > UNSEEN {
            parts.extend([(first, first + i), (first + i, last)]);
        }
    }
    placed.into_iter().zip(kept).filter(|(_, kept)| *kept).map(|((i, _), _)| line[i]).collect()
}

/// How far `point` is from the line between `from` and `to`.
fn distance((x, y): (f64, f64), from: (f64, f64), to: (f64, f64)) -> f64 {
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    let length = dx * dx + dy * dy;
    let share = if length == 0.0 { 0.0 } else { (((x - from.0) * dx + (y - from.1) * dy) / length).clamp(0.0, 1.0) };
    (x - from.0 - share * dx).hypot(y - from.1 - share * dy)
}

/// The range of an axis, and where its ticks are.
#[derive(Clone, Debug, PartialEq)]
struct Span {
    low: f64,
    high: f64,
    logarithmic: bool,
    ticks: Vec<f64>,
}

/// From a value to where it stands on an axis, or back.
type Scale = fn(f64) -> f64;

impl Span {
    /// The span of `values`, and of `bands` as far as they do not take most of the room. An axis that is `tight` ends with its
    /// values, and begins at zero where that is near.
    fn of(axis: &Axis, values: &[f64], bands: &[f64], tight: bool) -> Self {
        let finite = |x: &&f64| x.is_finite();
        let logarithmic = axis.logarithmic
            && axis.range.is_none_or(|[low, _]| low > 0.0)
            && values.iter().filter(finite).any(|x| *x > 0.0);
        let (forward, back): (Scale, Scale) = if logarithmic { (f64::ln, f64::exp) } else { (|x| x, |x| x) };
        if let Some([low, high]) = axis.range {
            return Self::between(low, high, logarithmic);
        }
        let shown = |x: &&f64| x.is_finite() && (!logarithmic || **x > 0.0);
        let fold = |values: &[f64]| {
            values
                .iter()
                .filter(shown)
                .map(|x| forward(*x))
                .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)))
        };
        let (mut low, mut high) = fold(values);
        if low > high {
            return Self::between(0.0, 1.0, false);
        }
        if let Some(cap) = axis.cap.map(forward).filter(|cap| *cap > low) {
            high = high.min(cap);
        }
        if logarithmic {
            low = low.max(high - LONGEST_RATIO.ln());
        }
        let length = high - low;
        let (band_low, band_high) = fold(bands);
        low = low.min(band_low.max(low - length / 4.0));
        high = high.max(band_high.min(high + length / 4.0));
        let pad = match (logarithmic, high - low) {
            (true, 0.0) => 0.3,
            (false, 0.0) => (high.abs() * 0.1).max(1e-6),
            (_, length) if tight && !logarithmic => {
                // A point at the frame is seen whole, since points are few where it matters.
                let start = if low >= 0.0 && low < length / 2.0 { 0.0 } else { low };
                return Self::between(start, high, false);
            }
            (_, length) => length * 0.05,
        };
        let [least, greatest] = axis.within.unwrap_or([f64::NEG_INFINITY, f64::INFINITY]);
        Self::between(back(low - pad).max(least), back(high + pad).min(greatest), logarithmic)
    }

    /// How far along the axis a value stands, from 0 to 1.
    fn share(&self, value: f64) -> f64 {
        let value = value.clamp(self.low, self.high);
        if self.logarithmic {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        }
    }

    fn between(low: f64, high: f64, logarithmic: bool) -> Self {
        let ticks = if logarithmic { logarithmic_ticks(low, high) } else { linear_ticks(low, high) };
        Self { low, high, logarithmic, ticks }
    }
}

impl Ranged for Span {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (start, end): (i32, i32)) -> i32 {
        start + (f64::from(end - start) * self.share(*value)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() { Vec::new() } else { self.ticks.clone() }
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for Span {
    fn format_ext(&self, value: &f64) -> String {
        short(*value)
    }
}

/// Round numbers between `low` and `high`, some four to eight of them.
fn linear_ticks(low: f64, high: f64) -> Vec<f64> {
    let rough = (high - low) / 6.0;
    let decade = 10f64.powf(rough.log10().floor());
    let multiple = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().find(|multiple| multiple * decade >= rough * 0.999);
    let step = multiple.unwrap_or(10.0) * decade;
    let slack = step * 1e-9;
    let ticks = (0..20).map(|i| ((low - slack) / step).ceil() * step + f64::from(i) * step);
    // Zero is zero, not what rounding leaves of it.
    ticks.take_while(|tick| *tick <= high + slack).map(|tick| if tick.abs() < slack { 0.0 } else { tick }).collect()
}

/// Round numbers between `low` and `high`, some four to a dozen of them.
fn logarithmic_ticks(low: f64, high: f64) -> Vec<f64> {
    let length = (high / low).log10();
    let multiples: &[f64] = match length {
        length if length < 0.7 => &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0],
        length if length < 3.0 => &[1.0, 2.0, 5.0],
        _ => &[1.0],
    };
    let every = (length / 8.0).ceil().max(1.0) as usize;
    let decades = (low.log10().floor() as i32..=high.log10().floor() as i32).step_by(every);
    let ticks = decades.flat_map(|decade| multiples.iter().map(move |multiple| multiple * 10f64.powi(decade)));
    let ticks: Vec<f64> = ticks.filter(|tick| (low..=high).contains(tick)).collect();
    if ticks.len() < 3 && length < 0.7 { linear_ticks(low, high) } else { ticks }
}

/// A number with as many digits as a tick needs.
fn short(value: f64) -> String {
    let size = value.abs();
    let text = if size != 0.0 && !(1e-4..1e6).contains(&size) { format!("{value:.2e}") } else { format!("{value:.6}") };
    let (digits, exponent) = text.split_once('e').map_or((text.as_str(), None), |(digits, e)| (digits, Some(e)));
    let digits = digits.trim_end_matches('0').trim_end_matches('.');
    exponent.map_or(digits.to_owned(), |exponent| format!("{digits}e{exponent}"))
}

fn colour(style: usize) -> RGBColor {
    COLOURS[style % STYLES]
}

/// The corners of a style's marker around its point.
fn marker(style: usize) -> Vec<(i32, i32)> {
    let polygon = |corners: usize, turn: f64, radius: f64| -> Vec<(i32, i32)> {
        let corner = |i: usize| {
            let angle = TAU * (i as f64 / corners as f64 + turn);
            ((radius * angle.sin()).round() as i32, (-radius * angle.cos()).round() as i32)
        };
        (0..corners).map(corner).collect()
    };
    match style % STYLES {
        0 => polygon(12, 0.0, MARKER),
        1 => polygon(4, 0.125, MARKER * 1.25),
        2 => polygon(3, 0.0, MARKER * 1.4),
        3 => polygon(4, 0.0, MARKER * 1.35),
        4 => polygon(3, 0.5, MARKER * 1.4),
        5 => polygon(5, 0.0, MARKER * 1.2),
        6 => vec![(-9, -9), (9, 9), (9, -9), (-9, 9)],
        _ => vec![(-9, -9), (9, 9), (-9, 9), (9, -9)],
    }
}

/// Draws on a canvas of `size`; then gives every curve its dashes, which plotters does not know.
fn draw(size: (u32, u32), on: impl FnOnce(&Area) -> Drawing) -> Result<String> {
    let mut svg = String::new();
    let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
    let drawn = on(&root).and_then(|()| Ok(root.present()?));
    drop(root);
    drawn.map_err(|error| anyhow!("cannot draw a picture: {error}"))?;
    // What every element repeats is said once, or is the default: a page with many pictures is half as large.
    let shared = format!(" font-family=\"{FONT}\"");
    let RGBColor(r, g, b) = TEXT;
    let fill = format!(" fill=\"#{r:02X}{g:02X}{b:02X}\"");
    for repeated in [" opacity=\"1\"", &shared, &fill] {
        svg = svg.replace(repeated, "");
    }
    svg = svg.replace(">\n", ">").replace("\n<", "<").replacen(" xmlns=", &format!("{shared}{fill} xmlns="), 1);
    for (RGBColor(r, g, b), dashes) in COLOURS.into_iter().zip(DASHES).filter(|(_, dashes)| !dashes.is_empty()) {
        let stroke = format!("stroke=\"#{r:02X}{g:02X}{b:02X}\" stroke-width=\"{CURVE_WIDTH}\"");
        svg = svg.replace(&stroke, &format!("{stroke} stroke-dasharray=\"{dashes}\""));
    }
    Ok(svg)
}

/// Puts `attributes` in place of the size, which a page gives.
fn sized_by_page(svg: &str, size: (u32, u32), attributes: &str) -> String {
    svg.replacen(&format!("<svg width=\"{}\" height=\"{}\"", size.0, size.1), &format!("<svg {attributes}"), 1)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(values: &[(f64, f64)]) -> Vec<Point> {
        values.iter().map(|&(x, y)| Point { x, y, band: Some([y * 0.9, y * 1.1]) }).collect()
    }

    fn panel(points: Vec<Point>) -> Panel {
        Panel {
            title: "one & <two>".to_owned(),
            x: Axis::linear("step"),
            y: Axis::logarithmic("loss"),
            curves: vec![Curve { style: 1, points, drawn: Drawn::Line }],
            ..Panel::default()
        }
    }

    #[test]
    fn draws_whatever_was_measured() {
        for (values, polygons) in [
            (&[][..], 0),
            (&[(1.0, f64::NAN)], 0),
            (&[(1.0, 0.0)], 1),
            (&[(1.0, 2.0), (2.0, f64::INFINITY), (3.0, 1.0)], 3),
            (&[(0.0, -1.0), (1.0, 1e300)], 3),
        ] {
            let svg = panel(points(values)).svg("mlp").unwrap();
            assert!(svg.starts_with("<svg role=\"img\" aria-label=\"one &amp; &lt;two&gt;: mlp\" viewBox="), "{svg}");
            assert!(svg.trim_end().ends_with("</svg>"));
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            assert_eq!(svg.matches("<polygon").count(), polygons, "{values:?}");
            assert_eq!(svg.contains("nothing was measured"), polygons == 0);
        }
    }

    #[test]
    fn a_line_has_the_dashes_of_its_style_and_a_marker_has_none() {
        let svg = panel(points(&[(1.0, 2.0), (2.0, 1.0)])).svg("").unwrap();
        assert_eq!(svg.matches("stroke-dasharray").count(), 1);
        assert!(svg.contains("stroke=\"#D55E00\" stroke-width=\"4\" stroke-dasharray=\"18 7\""), "{svg}");
    }

    #[test]
    fn steps_keep_their_value_until_the_next_point() {
        let mut panel = panel(vec![]);
        panel.y = Axis { range: Some([0.0, 1.0]), ..Axis::linear("share") };
        let at = |x, y| Point { x, y, band: None };
        panel.curves =
            vec![Curve { style: 0, points: vec![at(0.0, 0.0), at(1.0, 1.0), at(2.0, 1.0)], drawn: Drawn::Steps }];
        let corners = corners(&panel.svg("").unwrap());
        let [(_, low), (before, level), (after, high), (_, end)] = corners[..] else { panic!("{corners:?}") };
        assert!(low == level && before == after && high == end && high < low, "{corners:?}");
    }

    /// The corners of the first line of style 0.
    fn corners(svg: &str) -> Vec<(i32, i32)> {
        let line = svg.split("<polyline").find(|part| part.contains("#0072B2")).unwrap();
        let line = line.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
        let number = |text: &str| text.parse::<i32>().unwrap();
        line.split_whitespace().map(|pair| pair.split_once(',').unwrap()).map(|(x, y)| (number(x), number(y))).collect()
    }

    #[test]
    fn a_long_curve_is_small_and_jumps_where_it_jumps() {
        let steps = 100_000;
        let jump = 12_345;
        let y = |t: i32| if t < jump { 1.0 } else { 0.5 * (1.0 - f64::from(t) / f64::from(steps)) };
        let at = |t: i32| Point { x: f64::from(t), y: y(t), band: None };
        let mut panel = panel(vec![]);
        panel.x = Axis { range: Some([0.0, f64::from(steps)]), ..Axis::linear("step") };
        panel.y = Axis { range: Some([0.0, 1.0]), ..Axis::linear("rate") };
        panel.curves = vec![Curve { style: 0, points: (0..=steps).map(at).collect(), drawn: Drawn::Steps }];
        let corners = corners(&panel.svg("").unwrap());
        let (first, last) = (corners[0], corners[corners.len() - 1]);
        assert!(corners.len() < 12, "{corners:?}");
        let expected = first.0 + (f64::from((last.0 - first.0) * jump) / f64::from(steps)).round() as i32;
        let jumps = corners.windows(2).filter(|pair| pair[0].0 == pair[1].0 && pair[1].1 - pair[0].1 > 100);
        assert_eq!(jumps.map(|pair| pair[0].0).collect::<Vec<_>>(), [expected], "{corners:?}");
    }

    #[test]
    fn every_line_has_markers_as_its_legend_says() {
        let line = |style: usize, count: i32, drawn| {
            let at = |t: i32| Point { x: f64::from(t), y: 1.0 + f64::from(t), band: None };
            Curve { style, points: (0..count).map(at).collect(), drawn }
        };
        for (count, drawn, fewest) in
            [(5, Drawn::Line, 5), (1000, Drawn::Line, 5), (1000, Drawn::Steps, 5), (1000, Drawn::Markers, 1000)]
        {
            for style in 0..STYLES {
                let mut panel = panel(vec![]);
                panel.curves = vec![line(style, count, drawn)];
                let markers = panel.svg("").unwrap().matches("<polygon").count();
                assert!((fewest..=fewest.max(MARKERS)).contains(&markers), "{markers} of {count} {drawn:?}");
            }
        }
        // One that ends at a twentieth of the axis.
        let mut panel = panel(vec![]);
        panel.x.range = Some([0.0, 1000.0]);
        panel.curves = vec![line(0, 50, Drawn::Line)];
        assert_eq!(panel.svg("").unwrap().matches("<polygon").count(), 1);
        for drawn in [Drawn::Line, Drawn::Steps, Drawn::Markers] {
            let svg = Key { name: String::new(), style: 3, drawn }.svg().unwrap();
            assert_eq!(svg.matches("<polygon").count(), 1, "{svg}");
        }
    }

    #[test]
    fn a_figure_holds_all_its_panels_and_keys() {
        let key = |name: &str, style| Key { name: name.to_owned(), style, drawn: Drawn::Line };
        let row = |title: &str| Row {
            title: title.to_owned(),
            panels: vec![panel(points(&[(1.0, 1.0)])), panel(vec![])],
            legend: vec![key("sgd \"nesterov\"", 0), key("adam", 1)],
        };
        let figure = Figure { title: "losses".to_owned(), rows: vec![row("mlp"), row("cnn")] };
        let svg = figure.svg().unwrap();
        assert!(svg.starts_with("<svg role=\"img\" aria-label=\"losses\" width=\"960\" height="), "{}", &svg[..200]);
        assert_eq!(svg.matches("one &amp; &lt;two&gt;").count(), 4);
        assert_eq!(svg.matches("sgd &quot;nesterov&quot;").count(), 2);
        assert!(svg.contains("mlp") && svg.contains("cnn") && svg.contains("prefers-color-scheme: dark"));
    }

    #[test]
    fn long_names_have_room() {
        let name = "adamw:lr=0.002,beta1=0.95,beta2=0.999,eps=1e-8,weight_decay=0.05,".repeat(2);
        let key = Key { name: name.clone(), style: 0, drawn: Drawn::Line };
        let long = Panel { title: name.clone(), ..panel(points(&[(1.0, 1.0)])) };
        let row = Row { title: String::new(), panels: vec![long], legend: vec![key.clone(), key] };
        let figure = Figure { title: "losses".to_owned(), rows: vec![row] };
        let svg = figure.svg().unwrap();
        let field = |text: &str, name: &str| -> f64 {
            text.split(&format!(" {name}=\"")).nth(1).unwrap().split('"').next().unwrap().parse().unwrap()
        };
        let width = 2.0 * field(&svg, "width");
        let texts: Vec<&str> = svg.split("<text").filter(|text| text.contains("weight_decay")).collect();
        assert_eq!(texts.len(), 3);
        for text in texts {
            let length = name.len() as f64 * field(text, "font-size") / 2.0;
            let start = field(text, "x") - if text.contains("middle") { length / 2.0 } else { 0.0 };
            assert!(start >= 0.0 && start + length <= width, "{start} + {length} of {width}");
        }
    }

    #[test]
    fn an_axis_leaves_out_what_would_hide_the_rest() {
        let axis = Axis { cap: Some(10.0), ..Axis::logarithmic("loss") };
        let span = Span::of(&axis, &[0.1, 1.0, 1e9], &[1e-9, 2.0], false);
        assert!(span.logarithmic && span.high > 10.0 && span.high < 20.0, "{span:?}");
        assert!(span.low < 0.05 && span.low > 0.01, "a quarter of the two decades for the band: {span:?}");
        let limit = (100, 0);
        assert_eq!((span.map(&1e9, limit), span.map(&0.0, limit)), (0, 100));
        assert_eq!(Span::of(&Axis::linear("step"), &[1.0, 50.0], &[], true).low, 0.0);
        assert_eq!(Span::of(&Axis::linear("step"), &[40.0, 50.0], &[], true).low, 40.0);
    }

    #[test]
    fn shared_axes_are_the_same() {
        let mut panels = [panel(points(&[(1.0, 1.0), (2.0, 0.5)])), panel(points(&[(1.0, 8.0)])), panel(vec![])];
        share_y(&mut panels);
        let [low, high] = panels[0].y.range.unwrap();
        assert!(low < 0.5 && high > 8.0);
        assert_eq!(panels[1].y.range, panels[0].y.range);
    }

    #[test]
    fn logarithmic_ticks_are_round_and_enough() {
        for (low, high, ticks) in [
            (0.04, 3.0, &[0.05, 0.1, 0.2, 0.5, 1.0, 2.0][..]),
            (0.9, 2.3, &[0.9, 1.0, 1.5, 2.0]),
            (3e-5, 2.0, &[1e-4, 1e-3, 1e-2, 0.1, 1.0]),
            (1.01, 1.06, &[1.01, 1.02, 1.03, 1.04, 1.05, 1.06]),
        ] {
            let found = logarithmic_ticks(low, high);
            assert!(
                found.len() == ticks.len() && found.iter().zip(ticks).all(|(a, b)| (a / b - 1.0).abs() < 1e-12),
                "{found:?}"
            );
        }
        assert!((4..=9).contains(&logarithmic_ticks(1e-9, 1e9).len()));
    }

    #[test]
    fn linear_ticks_are_round_and_enough() {
        assert_eq!(linear_ticks(0.0, 1.0), [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]);
        assert_eq!(linear_ticks(-1.0, 0.5), [-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5]);
        assert_eq!(linear_ticks(0.0, 1120.0), [0.0, 200.0, 400.0, 600.0, 800.0, 1000.0]);
    }

    #[test]
    fn ticks_are_short() {
        for (value, text) in [
            (0.1, "0.1"),
            (100.0, "100"),
            (0.0, "0"),
            (0.0025, "0.0025"),
            (97.5, "97.5"),
            (0.6000000000000001, "0.6"),
            (1e-5, "1e-5"),
            (2.5e7, "2.5e7"),
        ] {
            assert_eq!(short(value), text);
        }
    }
}
