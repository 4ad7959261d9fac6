//! In place of `hub.rs` in a program that was built without the feature `hub`: such a program downloads nothing.

use super::{
    error::DataError,
    images::{ImageSpec, Split},
    source::{Hub, Source},
};

impl Hub {
    pub(super) fn images(&self, source: &Source<2>, _: &ImageSpec) -> Result<(Split, Split), DataError> {
        Err(DataError::WithoutHub { repo: source.repo.into() })
    }

    pub(super) fn text<const FILES: usize>(
        &self,
        source: &Source<FILES>,
        _: impl Fn(&str) -> Result<(), DataError>,
    ) -> Result<String, DataError> {
        Err(DataError::WithoutHub { repo: source.repo.into() })
    }
}
