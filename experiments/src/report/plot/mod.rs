//! Charts as SVG.

mod svg;

pub use svg::{Axis, Curve, DARK, Drawn, Figure, Key, Mark, Panel, Point, Row, Rule, STYLES, Shape, share_y};
