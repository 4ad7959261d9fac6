//! The batches that a trial trains on and is judged by, as tensors: functions of the seed and the step.

use crate::{
    data::{Augment, Data, Split, text},
    models::Shape,
    random::{self, Purpose, stream},
    record::TrialConfig,
};
use anyhow::Result;
use candle_core::{Device, Tensor};
use rand::RngExt;
use std::cell::OnceCell;

/// Images in a batch of an evaluation.
const EVALUATION_IMAGES: usize = 250;
/// Characters in a batch of an evaluation.
const EVALUATION_CHARACTERS: usize = 16_384;

/// The batches of a trial. An epoch of images visits each once in seeded order, in full batches; the few that are left over
/// differ from epoch to epoch. A batch of text is windows at seeded places, and an epoch as many as the text is long.
pub struct Batches<'a> {
    data: &'a Data,
    context: usize,
    batch_size: usize,
    augment: bool,
    seed: u64,
    epoch: Option<Epoch>,
    /// Images and labels of the training and of the test part where they are on a GPU.
    resident: [OnceCell<(Tensor, Tensor)>; 2],
}

/// What is drawn for an epoch of images.
struct Epoch {
    index: u64,
    order: Vec<usize>,
    augment: Option<Vec<Augment>>,
}

/// Updates in an epoch.
pub fn steps_per_epoch(data: &Data, shape: &Shape, batch_size: usize) -> u64 {
    let examples = match (data, shape) {
        (Data::Images(images), _) => images.train.len(),
        (Data::Text(text), Shape::Text { context, .. }) => text.train.len() / context,
        (Data::Text(text), Shape::Images(_)) => text.train.len(),
    };
    (examples / batch_size) as u64
}

impl<'a> Batches<'a> {
    /// The batches of the trial of `config`.
    pub fn new(data: &'a Data, shape: &Shape, config: &TrialConfig) -> Self {
        let context = if let Shape::Text { context, .. } = shape { *context } else { 0 };
        let (batch_size, augment, seed) = (config.batch_size, config.augment, config.seed);
        Self { data, context, batch_size, augment, seed, epoch: None, resident: Default::default() }
    }

    /// What update `step`, counted from 0, trains on: inputs and labels.
    ///
    /// # Errors
    /// When candle fails.
    pub fn train(&mut self, step: u64, device: &Device) -> Result<(Tensor, Tensor)> {
        match self.data {
            Data::Images(images) => {
                let steps_per_epoch = (images.train.len() / self.batch_size) as u64;
                let (index, batch) = (step / steps_per_epoch, (step % steps_per_epoch) as usize);
                if self.epoch.as_ref().is_none_or(|epoch| epoch.index != index) {
                    self.epoch = Some(self.draw(index, images.train.len()));
                }
                let epoch = self.epoch.as_ref().expect("it was just drawn");
                let range = batch * self.batch_size..(batch + 1) * self.batch_size;
                let augment = epoch.augment.as_ref().map(|augment| &augment[range.clone()]);
                self.images(&images.train, &epoch.order[range.clone()], augment, device)
            }
            Data::Text(text) => {
                let mut rng = stream(self.seed, Purpose::Order, step);
                let places = text.train.len() - self.context;
                let starts: Vec<usize> = (0..self.batch_size).map(|_| rng.random_range(0..places)).collect();
                self.windows(&text.train, &starts, device)
            }
        }
    }

    /// The batches of the test data: all images in order, or all of the text in windows side by side.
    pub fn test<'b>(&'b self, device: &'b Device) -> Box<dyn Iterator<Item = Result<(Tensor, Tensor)>> + 'b> {
        match self.data {
            Data::Images(images) => Box::new((0..images.test.len()).step_by(EVALUATION_IMAGES).map(move |start| {
                let indices: Vec<usize> = (start..images.test.len().min(start + EVALUATION_IMAGES)).collect();
                self.images(&images.test, &indices, None, device)
            })),
            Data::Text(text) => {
                // The last character of a window needs one that follows it.
                let windows = (text.test.len() - 1) / self.context;
                let starts: Vec<usize> = (0..windows).map(|window| window * self.context).collect();
                let per_batch = (EVALUATION_CHARACTERS / self.context).max(1);
                let batches: Vec<Vec<usize>> = starts.chunks(per_batch).map(<[usize]>::to_vec).collect();
                Box::new(batches.into_iter().map(move |starts| self.windows(&text.test, &starts, device)))
            }
        }
    }

    fn draw(&self, index: u64, len: usize) -> Epoch {
        let order = random::order(self.seed, index, len);
        let augment = self.augment.then(|| {
            let mut rng = stream(self.seed, Purpose::Augmentation, index);
            let mut draw =
                |_| Augment { dy: rng.random_range(-4..=4), dx: rng.random_range(-4..=4), flip: rng.random() };
            (0..order.len()).map(&mut draw).collect()
        });
        Epoch { index, order, augment }
    }

    fn images(
        &self,
        split: &Split,
        indices: &[usize],
        augment: Option<&[Augment]>,
        device: &Device,
    ) -> Result<(Tensor, Tensor)> {
        let Data::Images(data) = self.data else { unreachable!("only called for images") };
        // Augmented images are made anew each time, on the host.
        if !device.is_cpu() && augment.is_none() {
            return self.chosen(split, indices, device);
        }
        let (pixels, labels) = data.batch(split, indices, augment);
        let n = labels.len();
        let x = Tensor::from_vec(pixels, (n, data.channels, data.height, data.width), device)?;
        Ok((x, Tensor::from_vec(labels, n, device)?))
    }

    /// Images out of all of a part, which stay on the device.
    fn chosen(&self, split: &Split, indices: &[usize], device: &Device) -> Result<(Tensor, Tensor)> {
        let Data::Images(data) = self.data else { unreachable!("only called for images") };
        let resident = &self.resident[usize::from(std::ptr::eq(split, &data.test))];
        if resident.get().is_none() {
            let all: Vec<usize> = (0..split.len()).collect();
            let (pixels, labels) = data.batch(split, &all, None);
            let n = labels.len();
            let x = Tensor::from_vec(pixels, (n, data.channels, data.height, data.width), device)?;
            let _ = resident.set((x, Tensor::from_vec(labels, n, device)?));
        }
        let (x, labels) = resident.get().expect("it was just set");
        let indices: Vec<u32> = indices.iter().map(|i| *i as u32).collect();
        let indices = Tensor::new(indices, device)?;
        Ok((x.index_select(&indices, 0)?, labels.index_select(&indices, 0)?))
    }

    fn windows(&self, tokens: &[u32], starts: &[usize], device: &Device) -> Result<(Tensor, Tensor)> {
        let (inputs, targets) = text::windows(tokens, starts, self.context);
        let n = targets.len();
        Ok((Tensor::from_vec(inputs, (starts.len(), self.context), device)?, Tensor::from_vec(targets, n, device)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::digits;

    #[test]
    fn images_that_stay_on_a_device_are_those_of_the_host() -> Result<()> {
        let data = Data::Images(digits::load());
        let Data::Images(images) = &data else { unreachable!("digits are images") };
        let batches = Batches {
            data: &data,
            context: 0,
            batch_size: 4,
            augment: false,
            seed: 0,
            epoch: None,
            resident: Default::default(),
        };
        for split in [&images.train, &images.test, &images.train] {
            let indices = [3, 0, split.len() - 1, 3];
            let (x, labels) = batches.images(split, &indices, None, &Device::Cpu)?;
            let (chosen, chosen_labels) = batches.chosen(split, &indices, &Device::Cpu)?;
            assert_eq!(x.dims(), chosen.dims());
            assert_eq!(x.flatten_all()?.to_vec1::<f32>()?, chosen.flatten_all()?.to_vec1::<f32>()?);
            assert_eq!(labels.to_vec1::<u32>()?, chosen_labels.to_vec1::<u32>()?);
        }
        Ok(())
    }
}
