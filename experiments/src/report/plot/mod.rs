//! Charts as SVG: panels of curves with bands, in colours that people with any colour vision can tell apart.
//!
//! A [`figure::Figure`] is rows of panels with their legends, as plain data; [`svg`] draws it, whole or in the parts that a page
//! lays out by the width at hand; [`scale`] says where values stand on an axis, and [`style`] how curves look; [`pointer`] tells values to whoever points at them. Colours are plain
//! attributes, so that a style sheet such as [`style::DARK`] can put others in their place.

pub mod figure;
mod heat_map;
mod pointer;
pub mod scale;
mod simplify;
pub mod style;
pub mod svg;
