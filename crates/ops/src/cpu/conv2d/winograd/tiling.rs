//! Images in tiles, and where these lie once they are transformed.

use super::{
    super::tile::lanes,
    transform::{ELEMENTS, Matrices, Places, Transform},
};
use crate::{
    cpu::{product::Matrix, transpose::Transpose},
    shape::conv2d::Geometry,
};
use pulp::Arch;

/// Tiles that a task takes at a time, at least.
const MIN_TILES_AT_A_TIME: usize = 128;

/// Numbers between the rows of matrices. Without them the rows would often be a multiple of 4 KiB apart, and the first-level cache
/// holds 8 such lines.
pub(super) const ROW_PADDING: usize = 16;

/// Multiplications that are worth a task within a task, which threads take that have nothing else to do.
const MULTIPLICATIONS_PER_TASK: usize = 1 << 22;
/// Numbers to transform that are worth a task within a task, which threads take that have nothing else to do.
pub(super) const NUMBERS_PER_TASK: usize = 1 << 17;

/// Images in tiles of 4x4 pixels, every other pixel of every other row, and what fills them up.
#[derive(Clone, Copy)]
pub(super) struct Tiling {
    pub(super) channels: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) padding: usize,
    /// Tiles of an image.
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// Pixels of a tile's side.
    pub(super) side: usize,
    pub(super) arch: Arch,
    /// Channels of a vector.
    pub(super) lanes: usize,
}

impl Tiling {
    pub(super) fn tiles(&self) -> usize {
        self.rows * self.columns
    }

    /// How many images are taken at a time, no more than `most`.
    pub(super) fn at_a_time(&self, most: usize) -> usize {
        MIN_TILES_AT_A_TIME.div_ceil(self.tiles()).clamp(1, most)
    }

    /// How many images are worth a task within a task.
    pub(super) fn images_of_task(&self) -> usize {
        NUMBERS_PER_TASK.div_ceil(self.image_len())
    }

    /// Rows and columns that the tiles cover.
    pub(super) fn covered(&self) -> (usize, usize) {
        let pixels = |tiles: usize| 2 * (tiles - 1) + self.side;
        (pixels(self.rows), pixels(self.columns))
    }

    /// Room for the pixels of a vector of channels; around the image it stays zero.
    pub(super) fn pixels(&self) -> Vec<f32> {
        let (rows, columns) = self.covered();
        // The image may reach beyond what is covered.
        let (rows, columns) = (rows.max(self.padding + self.height), columns.max(self.padding + self.width));
        vec![0.0; rows * columns * self.lanes]
    }

    /// Numbers of a row of [`Self::pixels`].
    pub(super) fn pitch(&self) -> usize {
        self.covered().1.max(self.padding + self.width) * self.lanes
    }

    /// Channels, with those that fill up vectors.
    pub(super) fn padded_channels(&self) -> usize {
        self.channels.next_multiple_of(self.lanes)
    }

    /// Numbers of a transformed tile, `[element][channel]`.
    pub(super) fn tile_len(&self) -> usize {
        ELEMENTS * self.padded_channels() + ROW_PADDING
    }

    /// Numbers of the transformed tiles of an image.
    pub(super) fn image_len(&self) -> usize {
        self.tiles() * self.tile_len()
    }

    /// The transformed tiles of an element, the channels of a tile in a row.
    pub(super) fn element<'a>(&self, tiles: &'a [f32], element: usize) -> Matrix<'a, f32> {
        Matrix::rows(&tiles[element * self.padded_channels()..], self.tile_len())
    }

    /// How the pixels of a vector of channels lie, where rows are this far apart.
    pub(super) fn pixel_places(&self, pitch: usize) -> Places {
        Places { first: 0, row: 2 * pitch, column: 2 * self.lanes, inside: [pitch, self.lanes] }
    }

    /// Writes an image's tiles, transformed.
    pub(super) fn take(&self, matrices: Matrices, image: &[f32], pixels: &mut [f32], tiles: &mut [f32]) {
        let (plane, pitch, channels) = (self.height * self.width, self.pitch(), self.padded_channels());
        let first_pixel = self.padding * (pitch + self.lanes);
        for (block, planes) in image.chunks(self.lanes * plane).enumerate() {
            let (rows, columns, from) = (planes.len() / plane, self.width, [plane, self.width]);
            let transpose = Transpose { count: self.height, rows, columns, from, to: [self.lanes, pitch] };
            transpose.run(planes, &mut pixels[first_pixel..]);
            let elements = Places {
                first: block * self.lanes,
                row: self.columns * self.tile_len(),
                column: self.tile_len(),
                inside: [4 * channels, channels],
            };
            self.arch.dispatch(Transform {
                matrices,
                rows: self.rows,
                columns: self.columns,
                from: (pixels, self.pixel_places(pitch)),
                to: (tiles, elements),
            });
        }
    }
}

pub(super) fn tiles_of_input(g: &Geometry) -> Tiling {
    let arch = Arch::new();
    Tiling {
        arch,
        lanes: lanes(arch),
        channels: g.in_channels,
        height: g.height,
        width: g.width,
        padding: g.padding,
        rows: g.out_height.div_ceil(2),
        columns: g.out_width.div_ceil(2),
        side: 4,
    }
}

/// How many elements, of so many multiplications each, are worth a task within a task.
pub(super) fn elements_of_task(multiplications: usize) -> usize {
    MULTIPLICATIONS_PER_TASK.div_ceil(multiplications.max(1))
}
