//! Values by two numbers, as a grid of coloured cells.

use super::{
    figure::{Grid, GridCell, Panel},
    pointer::Hints,
    style::{FONT, GRID, TEXT, text_width},
};
use plotters::{
    coord::Shift,
    prelude::*,
    style::{
        colors::colormaps::ViridisRGB,
        text_anchor::{HPos, Pos, VPos},
    },
};

/// Around the cells, in units of the drawing: what the axes and the title take.
const LEFT: i32 = 156;
const RIGHT: i32 = 34;
const TOP: i32 = 66;
const BOTTOM: i32 = 106;
/// Between cells.
const GAP: i32 = 6;
/// The sizes of text in a cell, of which the first that has room is taken; text that has none is left to the pointer.
const TEXT_SIZES: [u32; 3] = [34, 27, 21];
/// Colours of text on a cell: white and black, but not those that a dark page turns.
const ON_DARK: RGBColor = RGBColor(254, 254, 254);
const ON_BRIGHT: RGBColor = RGBColor(1, 1, 1);

/// Draws `grid`, whose title and axes are those of `panel`.
///
/// # Errors
/// When the drawing fails.
pub fn draw(
    grid: &Grid,
    panel: &Panel,
    area: &DrawingArea<SVGBackend, Shift>,
    hints: &mut Hints,
) -> Result<(), Box<dyn std::error::Error>> {
    let (width, height) = area.dim_in_pixel();
    let (width, height) = (width as i32, height as i32);
    let text = |size: u32| (FONT, size).into_font().color(&TEXT);
    let middle = |style: TextStyle<'static>, h, v| style.pos(Pos::new(h, v));
    let (across, down) = (width - LEFT - RIGHT, height - TOP - BOTTOM);
    let centre = (LEFT + across / 2, TOP + down / 2);
    let size = (38 * width as u32 / text_width(&panel.title, 38).max(1)).min(38);
    area.draw(&Text::new(panel.title.clone(), (width / 2, 14), middle(text(size), HPos::Center, VPos::Top)))?;
    let below = (centre.0, height - 14);
    area.draw(&Text::new(panel.x.label.clone(), below, middle(text(33), HPos::Center, VPos::Bottom)))?;
    let turned = (FONT, 33).into_font().transform(FontTransform::Rotate270).color(&TEXT);
    let turned = turned.pos(Pos::new(HPos::Center, VPos::Top));
    area.draw(&Text::new(panel.y.label.clone(), (10, centre.1), turned))?;
    // The ends of the cells, so that no rounding is left at the last.
    let x = |column: usize| LEFT + across * column as i32 / grid.columns.len().max(1) as i32;
    let y = |row: usize| TOP + down - down * row as i32 / grid.rows.len().max(1) as i32;
    for (column, label) in grid.columns.iter().enumerate() {
        let at = ((x(column) + x(column + 1)) / 2, TOP + down + 12);
        area.draw(&Text::new(label.clone(), at, middle(text(31), HPos::Center, VPos::Top)))?;
    }
    for (row, label) in grid.rows.iter().enumerate() {
        let at = (LEFT - 12, (y(row) + y(row + 1)) / 2);
        area.draw(&Text::new(label.clone(), at, middle(text(31), HPos::Right, VPos::Center)))?;
    }
    let (left, top) = area.get_pixel_range();
    for cell in &grid.cells {
        let GridCell { column, row, .. } = *cell;
        let corner = (x(column) + GAP / 2, y(row + 1) + GAP / 2);
        let end = (x(column + 1) - GAP / 2, y(row) - GAP / 2);
        // The lower, the brighter.
        let colour = cell.shade.map_or(GRID, |shade| ViridisRGB.get_color(1.0 - shade.clamp(0.0, 1.0)));
        area.draw(&Rectangle::new([corner, end], colour.filled()))?;
        let RGBColor(r, g, b) = colour;
        // The relative luminance, as far as black or white matters.
        let is_bright = 0.2126 * f64::from(r) + 0.7152 * f64::from(g) + 0.0722 * f64::from(b) > 115.0;
        let on = if is_bright { ON_BRIGHT } else { ON_DARK };
        let fits = |size: &u32| {
            text_width(&cell.text, *size) as i32 + 8 <= end.0 - corner.0 && *size as i32 + 8 <= end.1 - corner.1
        };
        if let Some(size) = TEXT_SIZES.into_iter().find(fits) {
            let style = (FONT, size).into_font().color(&on).pos(Pos::new(HPos::Center, VPos::Center));
            let at = ((corner.0 + end.0) / 2, (corner.1 + end.1) / 2);
            area.draw(&Text::new(cell.text.clone(), at, style))?;
        }
        if cell.is_crossed {
            let at = (end.0 - 16, corner.1 + 16);
            area.draw(&Cross::new(at, 8, on.stroke_width(4)))?;
        }
        if cell.is_best {
            let (a, b) = ((corner.0 - 2, corner.1 - 2), (end.0 + 2, end.1 + 2));
            let frame = [a, (b.0, a.1), b, (a.0, b.1), a, (b.0, a.1)];
            area.draw(&PathElement::new(frame, TEXT.stroke_width(7)))?;
        }
        let at = (corner.0 + left.start, corner.1 + top.start);
        hints.add_box(at, (end.0 - corner.0, end.1 - corner.1), cell.title.clone());
    }
    Ok(())
}
