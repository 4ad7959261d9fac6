//! The binaries: what they do besides their comparison. [`compare::main`] joins the run and its report.

pub mod compare;
pub mod exit;
pub mod hooks;
pub mod manual;
pub mod signals;
pub mod speed;
