//! The tables of a launch, which stay on the device from step to step.
//!
//! They are uploaded only where they have changed. `launch.h` describes them.

use super::dispatch::{refill, wide_dtype};
use super::launch::{Handle, Place};
use super::state::stride;
use crate::backend::kernel::Kernel;
use crate::backend::tensors::allocate;
use candle_core::{DType, Device, Result, Tensor, bail};
use std::collections::HashMap;
use std::fmt::{Debug, Formatter};

/// Elements that a block works on, as in `launch.h`.
const CHUNK: u64 = 4096;

/// Flags of a tensor, as in `launch.h`.
const ALIGNED: u32 = 1;
pub(crate) const MASTER: u32 = 2;
pub(crate) const STOCHASTIC: u32 = 4;
pub(crate) const CAUTIOUS: u32 = 8;
pub(crate) const ADAPTIVE: u32 = 16;
pub(crate) const WEIGHTED: u32 = 32;
pub(crate) const CAUTIOUS_DECAY: u32 = 64;
pub(crate) const SCALED_BY_NORM: u32 = 128;
pub(crate) const TOWARD: u32 = 256;

/// What a launch is given, on the device from step to step.
#[derive(Default)]
pub(crate) struct Tables {
    kept: HashMap<(&'static str, usize, &'static str), (Vec<u8>, Tensor)>,
}

impl Debug for Tables {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tables").field("kept", &self.kept.len()).finish()
    }
}

impl Tables {
    /// Bytes on the device, uploaded where they differ from those of the last time.
    pub fn bytes(
        &mut self,
        device: &Device,
        key: (&'static str, usize, &'static str),
        bytes: Vec<u8>,
    ) -> Result<Tensor> {
        self.made_of(device, key, bytes, <[u8]>::to_vec)
    }

    /// What `make` makes of `from`, made and uploaded where `from` differs from that of the last time.
    fn made_of(
        &mut self,
        device: &Device,
        key: (&'static str, usize, &'static str),
        from: Vec<u8>,
        make: impl FnOnce(&[u8]) -> Vec<u8>,
    ) -> Result<Tensor> {
        match self.kept.get_mut(&key) {
            Some((known, tensor)) if *known == from => Ok(tensor.clone()),
            Some((known, tensor)) => {
                // Where it fails nobody knows what is there.
                known.clear();
                refill(tensor, &make(&from))?;
                *known = from;
                Ok(tensor.clone())
            }
            None => {
                let bytes = make(&from);
                let tensor = allocate(|| Tensor::from_slice(&bytes, bytes.len(), device))?;
                self.kept.insert(key, (from, tensor.clone()));
                Ok(tensor)
            }
        }
    }

    /// Room on the device.
    pub fn room(
        &mut self,
        device: &Device,
        key: (&'static str, usize, &'static str),
        count: usize,
        dtype: DType,
    ) -> Result<Tensor> {
        match self.kept.get(&key) {
            Some((_, tensor)) if tensor.elem_count() >= count => Ok(tensor.clone()),
            _ => {
                let tensor = allocate(|| Tensor::zeros(count, dtype, device))?;
                self.kept.insert(key, (Vec::new(), tensor.clone()));
                Ok(tensor)
            }
        }
    }
}

/// A tensor of a launch.
pub(crate) struct Entry {
    pub param: u64,
    pub grad: u64,
    pub state: u64,
    pub len: usize,
    pub key: u64,
    pub row: u32,
    pub flags: u32,
}

/// The tensors of a launch, all of a kind.
pub(crate) struct Batch {
    pub rule: Option<&'static Kernel>,
    pub suffix: String,
    pub measures: bool,
    pub entries: Vec<Entry>,
    /// The distinct rows of scalars, one after another, and their length.
    pub rows: Vec<f64>,
    pub width: usize,
    pub written: Vec<Handle>,
    pub read: Vec<Handle>,
}

/// The tables of a launch on the device.
pub(crate) struct Placed {
    pub tensors: Tensor,
    pub chunks: Tensor,
    pub rows: Tensor,
    pub blocks: u32,
}

/// The kernels for a parameter and a gradient of these types end like this.
fn suffix(param: DType, grad: DType) -> String {
    format!("{}_{}", param.as_str(), grad.as_str())
}

/// The batch of this kind.
pub(crate) fn batch_of<'b>(
    batches: &'b mut Vec<Batch>,
    rule: Option<&'static Kernel>,
    [param, grad]: [DType; 2],
    measures: bool,
    width: usize,
) -> &'b mut Batch {
    let suffix = suffix(param, grad);
    let same = |b: &Batch| {
        b.suffix == suffix && b.measures == measures && b.rule.map(Kernel::address) == rule.map(Kernel::address)
    };
    let at = batches.iter().position(same).unwrap_or(batches.len());
    if at == batches.len() {
        let (entries, rows, written, read) = Default::default();
        batches.push(Batch { rule, suffix, measures, entries, rows, width, written, read });
    }
    &mut batches[at]
}

impl Batch {
    /// Where this row of scalars starts.
    pub fn row(&mut self, row: &[f64]) -> u32 {
        let same = |known: &[f64]| known.iter().zip(row).all(|(a, b)| a.to_bits() == b.to_bits());
        let at = self.rows.chunks_exact(self.width).position(same).unwrap_or_else(|| {
            self.rows.extend_from_slice(row);
            self.rows.len() / self.width - 1
        });
        (at * self.width) as u32
    }

    /// Adds a tensor, unless it is empty.
    pub fn push(&mut self, mut entry: Entry, written: impl IntoIterator<Item = Place>, read: Option<Place>) {
        if entry.len == 0 {
            return;
        }
        if entry.param.is_multiple_of(16) && entry.grad.is_multiple_of(16) {
            entry.flags |= ALIGNED;
        }
        self.entries.push(entry);
        self.written.extend(written.into_iter().map(|place| place.handle));
        self.read.extend(read.map(|place| place.handle));
    }

    /// Puts the tables on the device, launch number `number` of `what`.
    pub fn place(&self, tables: &mut Tables, device: &Device, what: &'static str, number: usize) -> Result<Placed> {
        let mut tensors = Vec::with_capacity(64 * self.entries.len());
        let (mut counts, mut first) = (Vec::with_capacity(8 * self.entries.len()), 0u64);
        for entry in &self.entries {
            let Entry { param, grad, state, len, key, row, flags } = *entry;
            for number in [param, grad, state, len as u64, stride(len) as u64, key] {
                tensors.extend(number.to_ne_bytes());
            }
            for number in [row, flags, first as u32, 0] {
                tensors.extend(number.to_ne_bytes());
            }
            let count = (len as u64).div_ceil(CHUNK);
            counts.extend(count.to_le_bytes());
            first += count;
        }
        let chunks = |counts: &[u8]| {
            let mut chunks = Vec::with_capacity(8 * first as usize);
            for (tensor, count) in counts.chunks_exact(8).enumerate() {
                let count = count.iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte));
                (0..count).for_each(|index| chunks.extend([tensor as u32, index].iter().flat_map(|x| x.to_ne_bytes())));
            }
            chunks
        };
        let Ok(blocks) = u32::try_from(first) else { bail!("{first} chunks are more than a launch has") };
        Ok(Placed {
            tensors: tables.bytes(device, (what, number, "tensors"), tensors)?,
            chunks: tables.made_of(device, (what, number, "chunks"), counts, chunks)?,
            rows: tables.bytes(device, (what, number, "rows"), wide(device, &self.rows))?,
            blocks,
        })
    }
}

/// Numbers of the kernels' type `wide`.
pub(crate) fn wide(device: &Device, numbers: &[f64]) -> Vec<u8> {
    match wide_dtype(device) {
        DType::F64 => numbers.iter().flat_map(|x| x.to_ne_bytes()).collect(),
        _ => numbers.iter().flat_map(|x| (*x as f32).to_ne_bytes()).collect(),
    }
}
