//! Schedules: hyperparameters that change from update to update.
//!
//! A [`Schedule`] is data with a pure function of the update, [`Schedule::at`]. It has no state, so it needs no
//! checkpoint; it prints, parses, compares and (de)serializes as its text. The keys are named for the learning
//! rate, the usual target, but any hyperparameter can follow a schedule: read `lr` as "the value at its peak".
//!
//! # Text
//!
//! ```text
//! schedule = piece { " until " update " then " piece }
//! piece    = name [ ":" key "=" value { "," key "=" value } ]
//! value    = number | whole number | whole number { "/" whole number }
//! ```
//!
//! `A until 100 then B` is A for t < 100, then B, which counts its own updates from 0 there: B at t - 100. Every
//! `until` counts from the start of the whole: `A until 10 then B until 30 then C` changes at updates 10 and 30,
//! and equals `a.then(10, b).then(30, c)`, which also equals `a.then(10, b.then(20, c))`.
//!
//! ```
//! use optim::schedule::{Defaults, Schedule};
//!
//! // The optimizer knows its learning rate and the run its length, so a short text will do.
//! let run = Defaults { lr: Some(1e-3), steps: Some(2000) };
//! let schedule = Schedule::parse("warmup_cosine:min_lr=1e-5", &run)?;
//! assert_eq!(schedule.at(199), 1e-3);
//! assert_eq!(schedule.to_string(), "warmup_cosine:lr=0.001,warmup=200,min_lr=1e-5,steps=2000");
//!
//! // Printed text is complete: it parses without defaults, to an equal schedule.
//! assert_eq!(schedule.to_string().parse::<Schedule>()?, schedule);
//! # Ok::<(), optim::Error>(())
//! ```
//!
//! # Defaults
//!
//! A key that the text lacks has the default that [`all`] and the constructor's page name. "`steps`" in a default
//! is the piece's own key if the text gives it, else the length of the piece: from its start to its `until`, or,
//! for the last piece, to the end of the run (1 if the run ends before).

mod declare;
mod given;
mod pieces;
mod text;
mod value;

pub use given::{Defaults, Key};
pub use pieces::{Entry, Schedule, all};
