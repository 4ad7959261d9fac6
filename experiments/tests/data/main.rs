//! The data sets: from the program, from files and from the Hub, and how a batch is made.

mod batch;
mod files;
mod hub;
mod official;
mod synthetic;
mod text;
