//! Charts as SVG.

mod figure;
mod scale;
mod style;
mod svg;

pub use figure::{Axis, Curve, Drawn, Figure, Key, Mark, Panel, Point, ReferenceLine, Row, Shape};
pub use scale::share_y;
pub use style::{DARK, STYLES};
