//! Which kernels a step takes.
//!
//! All tensors of a kind (rule, dtypes) are updated by one launch, up to [`TENSORS_PER_LAUNCH`](crate::backend::nest). Nothing is
//! read back.

use super::dispatch::{launch, load, place_of, wide_dtype};
use super::launch::{Args, BY_NORM, Launch, Place};
use super::state::DeviceState;
use super::tables::{
    ADAPTIVE, AT_MOST_ONE, Batch, Entry, MASTER, Placed, STOCHASTIC, Tables, WEIGHTED, batch_of, wide,
};
use crate::backend::cpu::numbers::StepNumbers;
use crate::backend::kernel::Kernel;
use crate::backend::update::{Addition, Norm};
use crate::formula::trust_ratio::TrustRatio;
use candle_core::{DType, Device, Result, Tensor};

/// An update whose parameter is on a GPU.
pub(crate) struct Item<'a> {
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
pub(crate) struct Planned {
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
            load(device, self.rule(*by_tensor), function)?;
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
pub(crate) fn plan_step(
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
            let values = state.values.as_ref().map(place_of).transpose()?;
            let address = values.as_ref().map_or(0, |values| values.address);
            let (key, row) = (noise.unwrap_or(0), batch.row(&row));
            let entry = Entry { param: param.address, grad: grad.address, state: address, len, key, row, flags };
            batch.push(entry, [param].into_iter().chain(values), Some(grad));
        }
        let plan = |batch: Batch| {
            let placed = batch.place(tables, device, "update", number)?;
            let (update, room) = if batch.has_ratio {
                let sums = tables.room(device, ("update", number, "sums"), 2 * placed.blocks as usize, DType::I64)?;
                let (count, wide) = (batch.entries.len(), wide_dtype(device));
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
pub(crate) fn plan_add<'a>(
    tables: &mut Tables,
    device: &Device,
    nests: impl Iterator<Item = &'a [Addition<'a>]>,
) -> Result<Vec<Vec<Planned>>> {
    let mut number = 0;
    let mut plan = |additions: &'a [Addition<'a>]| {
        let mut batches = Vec::new();
        let mut norm = None;
        for addition in additions {
            let (to, addend) = (place_of(addition.to)?, place_of(&addition.addend)?);
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

/// The norm over all tensors, as [`global_norm`](crate::backend::step::global_norm), left on the device: the norm, then by what the gradients are to be
/// multiplied.
pub(crate) fn global_norm(
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
        let at = place_of(values)?;
        let weight = weight.map(place_of).transpose()?;
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
    let out = tables.room(device, ("norm", place, "out"), 2, wide_dtype(device))?;
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
