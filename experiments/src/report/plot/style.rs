//! How curves look: colours, dashes and markers that tell them apart, and what is common to all pictures.

use plotters::style::RGBColor;
use std::f64::consts::TAU;

/// How many curves can be told apart.
pub const STYLES: usize = 8;

/// The palette of Okabe & Ito (2008) without yellow, which is too faint on white, and a grey.
pub const COLOURS: [RGBColor; STYLES] = [
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
pub const DASHES: [&str; STYLES] = ["", "18 7", "4 6", "18 6 4 6", "10 5", "26 7", "18 5 4 5 4 5", "2 4"];

/// Turns the colours of a picture for a light page into those for a dark one.
pub const DARK: &str = r##"svg [fill="#FFFFFF"]{fill:#151515}
svg[fill="#282828"]{fill:#e2e2e2}svg [stroke="#282828"]{stroke:#b8b8b8}
svg [stroke="#E1E1E1"]{stroke:#383838}
svg [fill="#000000"]{fill:#f2f2f2}svg [stroke="#000000"]{stroke:#f2f2f2}
svg [fill="#0072B2"]{fill:#3f9fe0}svg [stroke="#0072B2"]{stroke:#3f9fe0}
svg [fill="#7F7F7F"]{fill:#a2a2a2}svg [stroke="#7F7F7F"]{stroke:#a2a2a2}
"##;

/// The width of a curve.
pub const CURVE_WIDTH: u32 = 4;

/// The width of a dotted curve.
pub const DOTTED_WIDTH: u32 = 3;

/// Its dashes, whatever its style.
pub const DOTS: &str = "3 6";

/// The radius of a marker.
const MARKER: f64 = 9.0;

/// The font of all text: the reader's own.
pub const FONT: &str = "sans-serif";

/// The colour of text, and of lines that are no curve.
pub const TEXT: RGBColor = RGBColor(40, 40, 40);

/// The colour of the grid.
pub const GRID: RGBColor = RGBColor(225, 225, 225);

/// About how wide a text is; few are wider.
pub fn text_width(text: &str, size: u32) -> u32 {
    text.chars().count() as u32 * size / 2
}

/// The colour of a style.
pub fn colour(style: usize) -> RGBColor {
    COLOURS[style % STYLES]
}

/// The corners of a style's marker around its point.
pub fn marker(style: usize) -> Vec<(i32, i32)> {
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
