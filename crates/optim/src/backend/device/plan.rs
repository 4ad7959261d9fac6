//! Which kernels a step takes.
//!
//! All tensors of a kind (rule, dtypes) are updated by one launch, up to [`TENSORS_PER_LAUNCH`](crate::backend::nest). Nothing is
//! read back.

use super::dispatch::{launch, load, place_of, wide_dtype};
use super::launch::{Args, BY_NORM, Launch, Place};
use super::state::DeviceState;
use super::tables::{
    ADAPTIVE, Batch, CAUTIOUS, CAUTIOUS_DECAY, Entry, MASTER, Placed, SCALED_BY_NORM, STOCHASTIC, TOWARD, Tables,
    WEIGHTED, batch_of, wide,
};
use crate::backend::cpu::loops::Term;
use crate::backend::cpu::numbers::StepNumbers;
use crate::backend::kept::Kept;
use crate::backend::kernel::Kernel;
use crate::backend::update::{Addition, Norm};
use crate::formula::sums::{MAX_FACTORS, Scope};
use candle_core::{DType, Device, Result, Tensor};
use std::collections::BTreeMap;

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
    pub by_norm: bool,
    pub noise: Option<u64>,
}

/// What the blocks of a launch are for.
#[derive(Clone, Copy)]
enum Blocks {
    Chunks,
    Tensors,
}

/// The launches of a batch, with all that they need on the device.
pub(crate) struct Planned {
    batch: Batch,
    placed: Placed,
    /// The functions of the first pass in turn, and those of the second.
    passes: [Vec<(String, Blocks)>; 2],
    norm: Option<Tensor>,
    /// Sums and factors.
    room: Option<(Tensor, Tensor)>,
    args: Args,
}

impl Planned {
    /// Loads the kernels.
    fn load(self, device: &Device) -> Result<Self> {
        self.passes.iter().flatten().try_for_each(|(function, _)| load(device, self.batch.rule, function))?;
        Ok(self)
    }

    /// Whether there is anything to do in the first pass.
    pub fn measures(&self) -> bool {
        !self.passes[0].is_empty()
    }

    /// Starts the kernels of the first or the second pass. The tensors have to be locked.
    pub fn launch(&self, device: &Device, pass: usize) -> Result<()> {
        let Self { batch, placed, norm, room, args, .. } = self;
        let none = &placed.rows;
        let (sums, out) = room.as_ref().map_or((none, none), |(sums, out)| (sums, out));
        for (function, blocks) in &self.passes[pass] {
            launch(
                device,
                &Launch {
                    rule: batch.rule,
                    function,
                    blocks: match blocks {
                        Blocks::Chunks => placed.blocks,
                        Blocks::Tensors => batch.entries.len() as u32,
                    },
                    buffers: [&placed.tensors, &placed.chunks, &placed.rows, norm.as_ref().unwrap_or(none), sums, out],
                    args: *args,
                    written: &batch.written,
                    read: &batch.read,
                },
            )?;
        }
        Ok(())
    }
}

/// The launch between the passes of a formula whose sums go over all tensors.
pub(crate) struct FactorsOfAll {
    rule: &'static Kernel,
    rows: Tensor,
    sums: Tensor,
    out: Tensor,
    args: Args,
}

impl FactorsOfAll {
    const FUNCTION: &str = "factors_of_all";

    pub fn launch(&self, device: &Device) -> Result<()> {
        let Self { rule, rows, sums, out, args } = self;
        let (rule, buffers) = (Some(*rule), [rows, rows, rows, rows, sums, out]);
        let (function, args) = (Self::FUNCTION, *args);
        launch(device, &Launch { rule, function, blocks: 1, buffers, args, written: &[], read: &[] })
    }
}

/// The launches of a step: those of each nest, and those between its two passes.
pub(crate) struct StepPlan {
    pub nests: Vec<Vec<Planned>>,
    pub between: Vec<FactorsOfAll>,
}

/// The partial sums that are to be added up for a formula whose sums go over all tensors.
#[derive(Default)]
struct OverAll {
    partials: u64,
    len: u64,
    rows: Option<Tensor>,
    first: Vec<f64>,
}

/// Plans the update of all, nest by nest.
pub(crate) fn plan_step(
    tables: &mut Tables,
    kept: &mut Kept,
    device: &Device,
    nests: Vec<Vec<Item<'_>>>,
    norm: Option<&Norm>,
) -> Result<StepPlan> {
    let norm = if let Some(Norm::Device(norm)) = norm { Some(norm) } else { None };
    let mut number = 0;
    let mut over_all: BTreeMap<&'static str, (&'static Kernel, OverAll)> = BTreeMap::new();
    let mut place = |items: Vec<Item<'_>>| {
        let mut batches = Vec::new();
        for Item { param, grad, dtypes, len, state, kernel, scalars, numbers, by_norm, noise } in items {
            let row = [
                &[numbers.lr, numbers.weight_decay, numbers.grad_scale, numbers.clip_value, numbers.smallest_state][..],
                &scalars,
            ]
            .concat();
            let measures = !kernel.sums.is_none() || numbers.cautious;
            let batch = batch_of(&mut batches, Some(kernel), dtypes, measures, row.len());
            let flags = [
                (state.has_master, MASTER),
                (noise.is_some(), STOCHASTIC),
                (numbers.cautious, CAUTIOUS),
                (numbers.cautious_decay, CAUTIOUS_DECAY),
                (by_norm && norm.is_some(), SCALED_BY_NORM),
            ];
            let flags = flags.iter().map(|(is_set, flag)| if *is_set { *flag } else { 0 }).sum();
            let values = state.values.as_ref().map(place_of).transpose()?;
            let address = values.as_ref().map_or(0, |values| values.address);
            let (key, row) = (noise.unwrap_or(0), batch.row(&row));
            let entry = Entry { param: param.address, grad: grad.address, state: address, len, key, row, flags };
            batch.push(entry, [param].into_iter().chain(values), Some(grad));
        }
        let place = |batch: Batch| {
            let placed = batch.place(tables, device, "update", number)?;
            let mut first = 0;
            if let Some(kernel) = batch.rule.filter(|kernel| kernel.sums.scope == Scope::All) {
                let (_, all) = over_all.entry(kernel.name).or_insert_with(|| (kernel, OverAll::default()));
                first = all.partials;
                all.partials += u64::from(placed.blocks);
                all.len += batch.entries.iter().map(|entry| entry.len as u64).sum::<u64>();
                if all.rows.is_none() {
                    all.first = batch.rows[batch.width - kernel.sums.factors..batch.width].to_vec();
                    all.rows = Some(placed.rows.clone());
                }
            }
            number += 1;
            Ok((batch, placed, number - 1, first))
        };
        batches.into_iter().filter(|batch| !batch.entries.is_empty()).map(place).collect::<Result<Vec<_>>>()
    };
    let placed = nests.into_iter().map(&mut place).collect::<Result<Vec<_>>>()?;
    let mut rooms = BTreeMap::new();
    let mut between = Vec::new();
    for (name, (rule, all)) in over_all {
        let count = rule.sums.of.len() * all.partials as usize;
        let sums = tables.room(device, (name, 0, "sums"), count, DType::I64)?;
        let out = kept.on_device(device, rule, &all.first)?;
        rooms.insert(name, (sums.clone(), out.clone()));
        load(device, Some(rule), FactorsOfAll::FUNCTION)?;
        let args = Args { partials: all.partials, len: all.len, ..Args::default() };
        between.extend(all.rows.map(|rows| FactorsOfAll { rule, rows, sums, out, args }));
    }
    let mut plan = |(batch, placed, number, first): (Batch, Placed, usize, u64)| {
        let update = vec![(format!("update_{}", batch.suffix), Blocks::Chunks)];
        let (mut measure, mut room) = (Vec::new(), None);
        if let Some(kernel) = batch.rule.filter(|_| batch.measures) {
            measure.push((format!("measure_{}", batch.suffix), Blocks::Chunks));
            room = rooms.get(kernel.name).cloned();
            if room.is_none() {
                let count = kernel.sums.of.len().max(1) * placed.blocks as usize;
                let sums = tables.room(device, ("update", number, "sums"), count, DType::I64)?;
                let (count, wide) = (MAX_FACTORS * batch.entries.len(), wide_dtype(device));
                room = Some((sums, tables.room(device, ("update", number, "factors"), count, wide)?));
                measure.push(("factors".to_string(), Blocks::Tensors));
            }
        }
        let args = Args { partials: first, ..Args::default() };
        Planned { batch, placed, passes: [measure, update], norm: norm.cloned(), room, args }.load(device)
    };
    let nests = placed.into_iter().map(|nest| nest.into_iter().map(&mut plan).collect()).collect::<Result<_>>()?;
    Ok(StepPlan { nests, between })
}

/// Plans the addition of all, nest by nest.
pub(crate) fn plan_add<'a>(
    tables: &mut Tables,
    device: &Device,
    nests: impl Iterator<Item = &'a [Addition]>,
) -> Result<Vec<Vec<Planned>>> {
    let mut number = 0;
    let mut plan = |additions: &'a [Addition]| {
        let mut batches = Vec::new();
        let mut norm = None;
        for addition in additions {
            let (to, addend) = (place_of(&addition.to)?, place_of(&addition.addend)?);
            if let Some((Norm::Device(by), _)) = &addition.by_norm {
                norm = Some(by);
            }
            let row = [addition.scale, addition.by_norm.as_ref().map_or(0.0, |(_, epsilon)| *epsilon)];
            let dtypes = [addition.to.dtype(), addition.addend.dtype()];
            let batch = batch_of(&mut batches, None, dtypes, false, row.len());
            let (len, row) = (addition.to.elem_count(), batch.row(&row));
            let flags = match addition.term {
                Term::Scaled => 0,
                Term::Adaptive => ADAPTIVE,
                Term::Toward => TOWARD,
            };
            let entry = Entry { param: to.address, grad: addend.address, state: 0, len, key: 0, row, flags };
            batch.push(entry, [to], Some(addend));
        }
        let plan = |batch: Batch| {
            let placed = batch.place(tables, device, "add", number)?;
            let add = vec![(format!("add_{}", batch.suffix), Blocks::Chunks)];
            number += 1;
            let args = Args { flags: if norm.is_some() { BY_NORM } else { 0 }, ..Args::default() };
            Planned { batch, placed, passes: [Vec::new(), add], norm: norm.cloned(), room: None, args }.load(device)
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
