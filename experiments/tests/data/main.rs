//! The data sets: from the program, from files and from the Hub, and how a batch is made.

mod batch;
mod files;
#[cfg(feature = "hub")]
mod hub;
mod official;
#[cfg(feature = "hub")]
mod parquet_files;
mod synthetic;
mod text;
#[cfg(not(feature = "hub"))]
mod without_hub;
