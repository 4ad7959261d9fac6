//! What the GPUs share: the state of parameters there, the tables of a launch, and which kernels a step takes.
//!
//! All tensors of a kind (rule, dtypes) are updated by one launch, up to the length of a nest. Its tables, `launch.h`
//! describes them, stay on the device from step to step and are uploaded only where they have changed. Nothing is read back.

use super::kernel::Kernel;
use super::{Addition, Norm, StepNumbers, allocate, launch};
use crate::formula::trust_ratio::TrustRatio;
use candle_core::{DType, Device, Result, Shape, Tensor, Var, bail};
use std::collections::HashMap;
use std::fmt::{Debug, Formatter};

/// Elements that a block works on, as in `launch.h`.
const CHUNK: u64 = 4096;

/// Flags of a tensor, as in `launch.h`.
const ALIGNED: u32 = 1;
const MASTER: u32 = 2;
const STOCHASTIC: u32 = 4;
const AT_MOST_ONE: u32 = 8;
const ADAPTIVE: u32 = 16;
const WEIGHTED: u32 = 32;
/// A flag of a launch, as in `launch.h`.
pub(super) const BY_NORM: u32 = 1;

/// What Metal needs beside an address, to order launches that use the same memory.
#[cfg(feature = "metal")]
pub(super) type Handle = Option<candle_metal_kernels::metal::Buffer>;
#[cfg(not(feature = "metal"))]
pub(super) type Handle = ();

/// The first element of a tensor in the device's memory.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub address: u64,
    #[cfg_attr(not(feature = "metal"), allow(dead_code, reason = "Metal alone reads it"))]
    pub handle: Handle,
}

/// The state of a parameter on its device: rows of one tensor, each of `stride` numbers, so that it starts at a multiple of
/// 16 bytes. First the slots, then the master copy, then the direction between the two passes of a trust ratio.
#[derive(Debug, Default)]
pub(crate) struct DeviceState {
    values: Option<Tensor>,
    slots: usize,
    pub has_master: bool,
    has_direction: bool,
}

fn dtype_of_state(var: &Var) -> DType {
    if var.dtype() == DType::F64 { DType::F64 } else { DType::F32 }
}

fn stride(len: usize) -> usize {
    len.next_multiple_of(4)
}

impl DeviceState {
    /// Rows with the given values.
    pub fn new(var: &Var, slots: Vec<Tensor>, master: Option<Tensor>) -> Result<Self> {
        Self::with_rows(var, slots.into_iter().map(Some).collect(), master.map(Some), false)
    }

    /// Rows with the given values, 0 where there are none.
    fn with_rows(
        var: &Var,
        slots: Vec<Option<Tensor>>,
        master: Option<Option<Tensor>>,
        has_direction: bool,
    ) -> Result<Self> {
        let (count, has_master) = (slots.len(), master.is_some());
        let mut rows: Vec<_> = slots.into_iter().chain(master).collect();
        rows.extend(has_direction.then_some(None));
        let len = var.elem_count();
        let values = if rows.is_empty() || len == 0 {
            None
        } else {
            let dtype = dtype_of_state(var);
            let zeros = |shape: Shape| allocate(|| Tensor::zeros(shape, dtype, var.device()));
            Some(if rows.iter().all(Option::is_none) {
                zeros((rows.len(), stride(len)).into())?
            } else {
                let row = |row: Option<Tensor>| match row {
                    None => zeros(stride(len).into()),
                    Some(row) => row.flatten_all()?.to_device(var.device())?.to_dtype(dtype)?.pad_with_zeros(
                        0,
                        0,
                        stride(len) - len,
                    ),
                };
                let rows = rows.into_iter().map(row).collect::<Result<Vec<_>>>()?;
                allocate(|| Tensor::stack(&rows, 0))?
            })
        };
        Ok(Self { values, slots: count, has_master, has_direction })
    }

    fn row(&self, at: usize, var: &Var) -> Result<Tensor> {
        match &self.values {
            Some(values) => values.narrow(0, at, 1)?.narrow(1, 0, var.elem_count())?.flatten_all(),
            // The parameter is empty.
            None => Tensor::zeros(0, dtype_of_state(var), &Device::Cpu),
        }
    }

    /// The values of the slots.
    pub fn slots(&self, var: &Var) -> Result<Vec<Tensor>> {
        (0..self.slots).map(|slot| self.row(slot, var)).collect()
    }

    /// The values of the master copy.
    pub fn master(&self, var: &Var) -> Result<Option<Tensor>> {
        self.has_master.then(|| self.row(self.slots, var)).transpose()
    }

    /// As [`super::State::refit`].
    pub fn refit(&self, var: &Var, old: &[&str], new: &[&str], add_master: bool) -> Result<Self> {
        let known: Vec<_> = old.iter().zip(self.slots(var)?).collect();
        let slot = |name: &&str| known.iter().find(|(o, _)| *o == name).map(|(_, values)| values.clone());
        let master = match self.master(var)? {
            Some(master) => Some(Some(master)),
            None => add_master.then_some(None),
        };
        Self::with_rows(var, new.iter().map(slot).collect(), master, self.has_direction)
    }

    /// Adds the row of the direction where there is none.
    pub fn keep_direction(&mut self, var: &Var) -> Result<()> {
        if !self.has_direction {
            let slots = self.slots(var)?.into_iter().map(Some).collect();
            *self = Self::with_rows(var, slots, self.master(var)?.map(Some), true)?;
        }
        Ok(())
    }
}

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
    fn bytes(&mut self, device: &Device, key: (&'static str, usize, &'static str), bytes: Vec<u8>) -> Result<Tensor> {
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
                super::refill(tensor, &make(&from))?;
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
    fn room(
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
struct Entry {
    param: u64,
    grad: u64,
    state: u64,
    len: usize,
    key: u64,
    row: u32,
    flags: u32,
}

/// The tensors of a launch, all of a kind.
struct Batch {
    rule: Option<&'static Kernel>,
    suffix: String,
    param_dtype: DType,
    has_ratio: bool,
    entries: Vec<Entry>,
    /// The distinct rows of scalars, one after another, and their length.
    rows: Vec<f64>,
    width: usize,
    written: Vec<Handle>,
    read: Vec<Handle>,
}

/// The tables of a launch on the device.
struct Placed {
    tensors: Tensor,
    chunks: Tensor,
    rows: Tensor,
    blocks: u32,
}

/// The kernels for a parameter and a gradient of these types end like this.
fn suffix(param: DType, grad: DType) -> String {
    format!("{}_{}", param.as_str(), grad.as_str())
}

/// The batch of this kind.
fn batch_of<'b>(
    batches: &'b mut Vec<Batch>,
    rule: Option<&'static Kernel>,
    [param, grad]: [DType; 2],
    has_ratio: bool,
    width: usize,
) -> &'b mut Batch {
    let suffix = suffix(param, grad);
    let name = |rule: Option<&Kernel>| rule.map(|rule| rule.name);
    let same = |b: &Batch| b.suffix == suffix && b.has_ratio == has_ratio && name(b.rule) == name(rule);
    let at = batches.iter().position(same).unwrap_or(batches.len());
    if at == batches.len() {
        let (entries, rows, written, read) = Default::default();
        batches.push(Batch { rule, suffix, param_dtype: param, has_ratio, entries, rows, width, written, read });
    }
    &mut batches[at]
}

impl Batch {
    /// Where this row of scalars starts.
    fn row(&mut self, row: &[f64]) -> u32 {
        let same = |known: &[f64]| known.iter().zip(row).all(|(a, b)| a.to_bits() == b.to_bits());
        let at = self.rows.chunks_exact(self.width).position(same).unwrap_or_else(|| {
            self.rows.extend_from_slice(row);
            self.rows.len() / self.width - 1
        });
        (at * self.width) as u32
    }

    /// Adds a tensor, unless it is empty.
    fn push(&mut self, mut entry: Entry, written: impl IntoIterator<Item = Place>, read: Option<Place>) {
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
    fn place(&self, tables: &mut Tables, device: &Device, what: &'static str, number: usize) -> Result<Placed> {
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
fn wide(device: &Device, numbers: &[f64]) -> Vec<u8> {
    match super::wide_dtype(device) {
        DType::F64 => numbers.iter().flat_map(|x| x.to_ne_bytes()).collect(),
        _ => numbers.iter().flat_map(|x| (*x as f32).to_ne_bytes()).collect(),
    }
}

/// A launch, as a backend takes it.
#[cfg_attr(not(any(test, feature = "cuda", feature = "metal")), allow(dead_code, reason = "no GPU in this build"))]
pub(super) struct Launch<'a> {
    /// The rule whose kernel it is; none for those of `norm.h`.
    pub rule: Option<&'static Kernel>,
    pub function: &'a str,
    pub blocks: u32,
    /// Tensors, chunks, rows, norm, sums, out.
    pub buffers: [&'a Tensor; 6],
    pub args: Args,
    /// What the tensors of the table are in.
    #[cfg_attr(not(feature = "metal"), allow(dead_code, reason = "Metal alone reads them"))]
    pub written: &'a [Handle],
    #[cfg_attr(not(feature = "metal"), allow(dead_code, reason = "Metal alone reads them"))]
    pub read: &'a [Handle],
}

/// As in `launch.h`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct Args {
    pub partials: u64,
    pub flags: u32,
    pub unused: u32,
}

/// An update whose parameter is on a GPU.
pub(super) struct Item<'a> {
    pub param: Place,
    pub grad: Place,
    pub dtypes: [DType; 2],
    pub len: usize,
    pub state: &'a DeviceState,
    pub kernel: &'static Kernel,
    pub scalars: Vec<f64>,
    pub numbers: StepNumbers<f64>,
    pub ratio: Option<TrustRatio>,
    pub noise: Option<u64>,
}

/// The launches of a batch, with all that they need on the device.
pub(super) struct Planned {
    batch: Batch,
    placed: Placed,
    /// The functions in turn, each with whether a block is for a tensor rather than for a chunk.
    functions: Vec<(String, bool)>,
    norm: Option<Tensor>,
    /// Sums and ratios.
    room: Option<(Tensor, Tensor)>,
}

impl Planned {
    fn rule(&self, by_tensor: bool) -> Option<&'static Kernel> {
        if by_tensor { None } else { self.batch.rule }
    }

    /// Loads the kernels.
    fn load(self, device: &Device) -> Result<Self> {
        for (function, by_tensor) in &self.functions {
            super::load(device, self.rule(*by_tensor), function)?;
        }
        Ok(self)
    }

    /// Starts the kernels. The tensors have to be locked.
    pub fn launch(&self, device: &Device) -> Result<()> {
        let Self { batch, placed, norm, room, .. } = self;
        let none = &placed.rows;
        let (sums, out) = room.as_ref().map_or((none, none), |(sums, out)| (sums, out));
        for (function, by_tensor) in &self.functions {
            launch(
                device,
                &Launch {
                    rule: self.rule(*by_tensor),
                    function,
                    blocks: if *by_tensor { batch.entries.len() as u32 } else { placed.blocks },
                    buffers: [&placed.tensors, &placed.chunks, &placed.rows, norm.as_ref().unwrap_or(none), sums, out],
                    args: Args { flags: if norm.is_some() { BY_NORM } else { 0 }, ..Args::default() },
                    written: &batch.written,
                    read: &batch.read,
                },
            )?;
        }
        Ok(())
    }
}

/// Plans the update of all, nest by nest.
pub(super) fn plan_step(
    tables: &mut Tables,
    device: &Device,
    nests: Vec<Vec<Item<'_>>>,
    norm: Option<&Norm>,
) -> Result<Vec<Vec<Planned>>> {
    let norm = if let Some(Norm::Device(norm)) = norm { Some(norm) } else { None };
    let mut number = 0;
    let mut plan = |items: Vec<Item<'_>>| {
        let mut batches = Vec::new();
        for Item { param, grad, dtypes, len, state, kernel, scalars, numbers, ratio, noise } in items {
            let row = [
                &[numbers.lr, numbers.weight_decay, numbers.grad_scale, numbers.clip_value, numbers.smallest_state][..],
                &scalars,
            ]
            .concat();
            let batch = batch_of(&mut batches, Some(kernel), dtypes, ratio.is_some(), row.len());
            let flags = [
                (state.has_master, MASTER),
                (noise.is_some(), STOCHASTIC),
                (ratio.is_some_and(|ratio| ratio.at_most_one), AT_MOST_ONE),
            ];
            let flags = flags.iter().map(|(is_set, flag)| if *is_set { *flag } else { 0 }).sum();
            let values = state.values.as_ref().map(super::place).transpose()?;
            let address = values.as_ref().map_or(0, |values| values.address);
            let (key, row) = (noise.unwrap_or(0), batch.row(&row));
            let entry = Entry { param: param.address, grad: grad.address, state: address, len, key, row, flags };
            batch.push(entry, [param].into_iter().chain(values), Some(grad));
        }
        let plan = |batch: Batch| {
            let placed = batch.place(tables, device, "update", number)?;
            let (update, room) = if batch.has_ratio {
                let sums = tables.room(device, ("update", number, "sums"), 2 * placed.blocks as usize, DType::I64)?;
                let (count, wide) = (batch.entries.len(), super::wide_dtype(device));
                let ratios = tables.room(device, ("update", number, "ratios"), count, wide)?;
                let [direction, apply] =
                    [format!("direction_{}", batch.suffix), format!("apply_{}", batch.param_dtype.as_str())];
                (vec![(direction, false), ("ratios".to_string(), true), (apply, false)], Some((sums, ratios)))
            } else {
                (vec![(format!("update_{}", batch.suffix), false)], None)
            };
            number += 1;
            Planned { batch, placed, functions: update, norm: norm.cloned(), room }.load(device)
        };
        batches.into_iter().filter(|batch| !batch.entries.is_empty()).map(plan).collect()
    };
    nests.into_iter().map(&mut plan).collect()
}

/// Plans the addition of all, nest by nest.
pub(super) fn plan_add<'a>(
    tables: &mut Tables,
    device: &Device,
    nests: impl Iterator<Item = &'a [Addition<'a>]>,
) -> Result<Vec<Vec<Planned>>> {
    let mut number = 0;
    let mut plan = |additions: &'a [Addition<'a>]| {
        let mut batches = Vec::new();
        let mut norm = None;
        for addition in additions {
            let (to, addend) = (super::place(addition.to)?, super::place(&addition.addend)?);
            if let Some((Norm::Device(by), _)) = &addition.by_norm {
                norm = Some(by);
            }
            let row = [addition.scale, addition.by_norm.as_ref().map_or(0.0, |(_, epsilon)| *epsilon)];
            let dtypes = [addition.to.dtype(), addition.addend.dtype()];
            let batch = batch_of(&mut batches, None, dtypes, false, row.len());
            let (len, row) = (addition.to.elem_count(), batch.row(&row));
            let flags = if addition.adaptive { ADAPTIVE } else { 0 };
            let entry = Entry { param: to.address, grad: addend.address, state: 0, len, key: 0, row, flags };
            batch.push(entry, [to], Some(addend));
        }
        let plan = |batch: Batch| {
            let placed = batch.place(tables, device, "add", number)?;
            let functions = vec![(format!("add_{}", batch.suffix), false)];
            number += 1;
            Planned { batch, placed, functions, norm: norm.cloned(), room: None }.load(device)
        };
        batches.into_iter().filter(|batch| !batch.entries.is_empty()).map(plan).collect()
    };
    nests.map(&mut plan).collect()
}

/// The norm over all tensors, as [`super::global_norm`], left on the device: the norm, then by what the gradients are to be
/// multiplied.
pub(super) fn global_norm(
    tables: &mut Tables,
    device: &Device,
    tensors: &[(&Tensor, Option<&Tensor>)],
    scale: f64,
    max: f64,
    place: usize,
) -> Result<Tensor> {
    let mut batches = Vec::new();
    for (values, weight) in tensors {
        let dtypes = [weight.unwrap_or(values).dtype(), values.dtype()];
        let batch = batch_of(&mut batches, None, dtypes, weight.is_some(), 3);
        let at = super::place(values)?;
        let weight = weight.map(super::place).transpose()?;
        let flags = if weight.is_some() { WEIGHTED } else { 0 };
        let param = weight.as_ref().map_or(at.address, |weight| weight.address);
        let (grad, row, len) = (at.address, batch.row(&[scale, max, 1e-6]), values.elem_count());
        batch.push(Entry { param, grad, state: 0, len, key: 0, row, flags }, [], Some(at));
        batch.read.extend(weight.map(|weight| weight.handle));
    }
    // A device has no room of length 0.
    batches.retain(|batch| !batch.entries.is_empty());
    let placed = batches.iter().enumerate().map(|(i, batch)| batch.place(tables, device, "norm", i));
    let placed = placed.collect::<Result<Vec<_>>>()?;
    let partials: usize = placed.iter().map(|placed| placed.blocks as usize).sum();
    let sums = tables.room(device, ("norm", 0, "sums"), partials.max(1), DType::I64)?;
    let out = tables.room(device, ("norm", place, "out"), 2, super::wide_dtype(device))?;
    let rows = tables.bytes(device, ("norm", 0, "scalars"), wide(device, &[scale, max, 1e-6]))?;
    let mut first = 0;
    for (batch, placed) in batches.iter().zip(&placed) {
        launch(
            device,
            &Launch {
                rule: None,
                function: &format!("squares_{}", batch.suffix),
                blocks: placed.blocks,
                buffers: [&placed.tensors, &placed.chunks, &rows, &rows, &sums, &out],
                args: Args { partials: first, ..Args::default() },
                written: &[],
                read: &batch.read,
            },
        )?;
        first += u64::from(placed.blocks);
    }
    launch(
        device,
        &Launch {
            rule: None,
            function: "finish",
            blocks: 1,
            buffers: [&rows, &rows, &rows, &rows, &sums, &out],
            args: Args { partials: partials as u64, ..Args::default() },
            written: &[],
            read: &[],
        },
    )?;
    Ok(out)
}
