//! Figures drawn as SVG: [`Figure::svg`] makes a picture of it all, [`Panel::svg`] and [`Key::svg`] the parts of a page.

use super::{
    figure::{Curve, Drawn, Figure, Key, Panel, Point, Row, Shape},
    heat_map,
    pointer::{self, Hints, escaped},
    scale::{Span, short, spans},
    simplify::kept,
    style::{
        COLOURS, CURVE_WIDTH, DARK, DASHES, DOTS, DOTTED_WIDTH, FONT, GRID, STYLES, TEXT, colour, marker, text_width,
    },
};
use anyhow::{Result, anyhow};
use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

/// Lengths are in units of the drawing, which a page shows at about half the size.
const PANEL: (u32, u32) = (960, 620);
const WIDE_PANEL: (u32, u32) = (1300, 500);
const TITLE_HEIGHT: u32 = 72;
const ROW_TITLE_HEIGHT: u32 = 60;
const LEGEND_HEIGHT: u32 = 50;
const LEGEND_LEFT: u32 = 60;
const SWATCH: (u32, u32) = (84, 32);
/// A curve of fewer points has a marker at each.
const FEW_POINTS: usize = 20;
/// One of more has about so many over the width of the panel.
const MARKERS: usize = 6;
/// The radius of a ring on a dotted curve.
const RING: i32 = 6;
/// What is nearer to a line than this is not seen beside it.
const UNSEEN: f64 = 0.7;

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
        let mut hints = Hints::of_figure(self.panels());
        let mut svg = draw(size, |root| {
            root.fill(&WHITE)?;
            root.draw(&Text::new(self.title.clone(), (28, 22), (FONT, 42).into_font().color(&TEXT)))?;
            let mut top = TITLE_HEIGHT;
            for row in &self.rows {
                let area = root.clone().shrink((0, top), (width, height(row)));
                row.draw(&area, width, &mut hints)?;
                top += height(row);
            }
            Ok(())
        })?;
        pointer::put(&mut svg, &hints);
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

    fn draw(&self, area: &Area, width: u32, hints: &mut Hints) -> Drawing {
        if !self.title.is_empty() {
            area.draw(&Text::new(self.title.clone(), (28, 14), (FONT, 36).into_font().color(&TEXT)))?;
        }
        let top = self.title_height();
        let mut left = 0;
        for panel in &self.panels {
            panel.draw(&area.clone().shrink((left, top), panel.size()), hints)?;
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
        let middle = (x + SWATCH.0 as i32 / 2, y);
        let line = [(x, y), (x + SWATCH.0 as i32, y)];
        if self.drawn == Drawn::Dotted {
            area.draw(&PathElement::new(line, colour.stroke_width(DOTTED_WIDTH)))?;
            return Ok(area.draw(&Circle::new(middle, RING, colour.stroke_width(2)))?);
        }
        if self.drawn != Drawn::Markers {
            area.draw(&PathElement::new(line, colour.stroke_width(CURVE_WIDTH)))?;
        }
        Ok(area.draw(&(EmptyElement::at(middle) + Polygon::new(marker(self.style), colour.filled())))?)
    }
}

impl Panel {
    /// The panel for a page: without a background, as wide as the page makes it. `context` tells readers who cannot see it
    /// where it belongs; `panels` are all of the figure.
    ///
    /// # Errors
    /// When the drawing fails.
    pub fn svg(&self, context: &str, panels: usize) -> Result<String> {
        let mut hints = Hints::of_figure(panels);
        let mut svg = draw(self.size(), |root| self.draw(root, &mut hints))?;
        pointer::put(&mut svg, &hints);
        let label = if context.is_empty() { self.title.clone() } else { format!("{}: {context}", self.title) };
        Ok(sized_by_page(&svg, self.size(), &format!("role=\"img\" aria-label=\"{}\"", escaped(&label))))
    }

    fn size(&self) -> (u32, u32) {
        if self.is_wide { WIDE_PANEL } else { PANEL }
    }

    fn draw(&self, area: &Area, hints: &mut Hints) -> Drawing {
        if let Some(grid) = &self.grid {
            return heat_map::draw(grid, self, area, hints);
        }
        let [x, y] = spans(self);
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
        for line in &self.reference_lines {
            chart.draw_series([PathElement::new([(left, line.y), (right, line.y)], TEXT.stroke_width(3))])?;
            let style = text(28).pos(Pos::new(HPos::Right, VPos::Bottom));
            let label = EmptyElement::at((right, line.y)) + Text::new(line.label.clone(), (-6, -4), style);
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
        let place = |x: f64, y: f64| chart.as_coord_spec().translate(&(x, y));
        hints.add_panel(self, place, top);
        Ok(())
    }
}

impl Curve {
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
        let line = self.line();
        if self.drawn != Drawn::Markers && line.len() > 1 {
            let width = if self.drawn == Drawn::Dotted { DOTTED_WIDTH } else { CURVE_WIDTH };
            chart.draw_series([PathElement::new(seen(&line, chart), colour.stroke_width(width))])?;
        }
        let marked = if self.drawn == Drawn::Markers || points.len() < FEW_POINTS {
            points
        } else {
            spread(&points, self.style, chart)
        };
        if self.drawn == Drawn::Dotted {
            let ring = |point: Point| Circle::new((point.x, point.y), RING, colour.stroke_width(2));
            chart.draw_series(marked.into_iter().map(ring))?;
            return Ok(());
        }
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

/// `line` without the points that make no visible difference.
fn seen(line: &[(f64, f64)], chart: &Chart) -> Vec<(f64, f64)> {
    let (width, height) = chart.plotting_area().dim_in_pixel();
    let (x_span, y_span) = (chart.as_coord_spec().x_spec(), chart.as_coord_spec().y_spec());
    let place = |(x, y): &(f64, f64)| (x_span.share(*x) * f64::from(width), y_span.share(*y) * f64::from(height));
    kept(&line.iter().map(place).collect::<Vec<_>>(), UNSEEN).into_iter().map(|i| line[i]).collect()
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
    for (RGBColor(r, g, b), dashes) in COLOURS.into_iter().zip(DASHES) {
        for (width, dashes) in [(CURVE_WIDTH, dashes), (DOTTED_WIDTH, DOTS)] {
            if !dashes.is_empty() {
                let stroke = format!("stroke=\"#{r:02X}{g:02X}{b:02X}\" stroke-width=\"{width}\"");
                svg = svg.replace(&stroke, &format!("{stroke} stroke-dasharray=\"{dashes}\""));
            }
        }
    }
    Ok(svg)
}

/// Puts `attributes` in place of the size, which a page gives.
fn sized_by_page(svg: &str, size: (u32, u32), attributes: &str) -> String {
    svg.replacen(&format!("<svg width=\"{}\" height=\"{}\"", size.0, size.1), &format!("<svg {attributes}"), 1)
}

#[cfg(test)]
mod tests;
