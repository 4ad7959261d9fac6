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

/// The batches of a trial. An epoch visits each example once in seeded order, in full batches; the few that are left over differ
/// from epoch to epoch. The examples of a text are windows side by side, of which the first begins at another place in each epoch.
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

/// What is drawn for an epoch.
struct Epoch {
    index: u64,
    order: Vec<usize>,
    /// Where the first window begins; 0 for images.
    offset: usize,
    augment: Option<Vec<Augment>>,
}

/// Updates in an epoch.
pub fn steps_per_epoch(data: &Data, shape: &Shape, batch_size: usize) -> u64 {
    let context = if let Shape::Text { context, .. } = shape { *context } else { 1 };
    (examples(data, context) / batch_size) as u64
}

/// Examples in an epoch: images, or the windows that have a place wherever the first begins.
fn examples(data: &Data, context: usize) -> usize {
    match data {
        Data::Images(images) => images.train.len(),
        Data::Text(text) => (text.train.len() / context).saturating_sub(1).max(1),
    }
}

impl<'a> Batches<'a> {
    /// The batches of the trial of `config`.
    pub fn new(data: &'a Data, shape: &Shape, config: &TrialConfig) -> Self {
        let context = if let Shape::Text { context, .. } = shape { *context } else { 1 };
        let (batch_size, augment, seed) = (config.batch_size, config.augment, config.seed);
        Self { data, context, batch_size, augment, seed, epoch: None, resident: Default::default() }
    }

    /// What update `step`, counted from 0, trains on: inputs and labels.
    ///
    /// # Errors
    /// When candle fails.
    pub fn train(&mut self, step: u64, device: &Device) -> Result<(Tensor, Tensor)> {
        let steps_per_epoch = (examples(self.data, self.context) / self.batch_size) as u64;
        let (index, batch) = (step / steps_per_epoch, (step % steps_per_epoch) as usize);
        if self.epoch.as_ref().is_none_or(|epoch| epoch.index != index) {
            self.epoch = Some(self.draw(index));
        }
        let epoch = self.epoch.as_ref().expect("it was just drawn");
        let range = batch * self.batch_size..(batch + 1) * self.batch_size;
        let examples = &epoch.order[range.clone()];
        match self.data {
            Data::Images(images) => {
                let augment = epoch.augment.as_ref().map(|augment| &augment[range]);
                self.images(&images.train, examples, augment, device)
            }
            Data::Text(text) => {
                let starts: Vec<usize> = examples.iter().map(|window| epoch.offset + window * self.context).collect();
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

    fn draw(&self, index: u64) -> Epoch {
        let order = random::order(self.seed, index, examples(self.data, self.context));
        let mut rng = stream(self.seed, Purpose::Augmentation, index);
        let offset = match self.data {
            Data::Images(_) => 0,
            // The last character of a window needs one that follows it.
            Data::Text(text) => {
                let most = text.train.len() - 1 - order.len() * self.context;
                rng.random_range(0..=most.min(self.context - 1))
            }
        };
        let augment = self.augment.then(|| {
            let mut draw =
                |_| Augment { dy: rng.random_range(-4..=4), dx: rng.random_range(-4..=4), flip: rng.random() };
            (0..order.len()).map(&mut draw).collect()
        });
        Epoch { index, order, offset, augment }
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
    use crate::{
        data::{TextData, digits},
        record::Phase,
    };

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

    fn config(batch_size: usize) -> TrialConfig {
        TrialConfig {
            phase: Phase::Final,
            dataset: "text".to_owned(),
            text_sha256: None,
            model: "gpt".to_owned(),
            optimizer: "adamw".to_owned(),
            schedule: "constant".to_owned(),
            clip: None,
            decay_matrices_only: true,
            batch_size,
            steps: 1,
            evaluate_every: 1,
            augment: false,
            max_loss: 1e3,
            probe: false,
            device: "cpu".to_owned(),
            seed: 5,
        }
    }

    /// A text whose tokens tell their places.
    fn counted(len: u32) -> Data {
        Data::Text(TextData {
            name: "counted".to_owned(),
            vocabulary: Vec::new(),
            train: (0..len).collect(),
            test: Vec::new(),
            floor: None,
            sha256: String::new(),
        })
    }

    #[test]
    fn an_epoch_of_text_visits_windows_side_by_side_once_each() {
        let (context, batch_size) = (8, 3);
        let shape = Shape::Text { vocabulary: 200, context };
        // 24 windows and one for the offset, of which nothing is left over.
        let data = counted(200);
        let config = config(batch_size);
        assert_eq!(steps_per_epoch(&data, &shape, batch_size), 8);
        let starts = |batches: &mut Batches, step: u64| -> Vec<u32> {
            let (x, labels) = batches.train(step, &Device::Cpu).unwrap();
            let x: Vec<Vec<u32>> = x.to_vec2().unwrap();
            let labels: Vec<u32> = labels.to_vec1().unwrap();
            assert!(x.concat().iter().zip(&labels).all(|(token, label)| token + 1 == *label));
            assert!(x.iter().all(|window| window.windows(2).all(|pair| pair[0] + 1 == pair[1])));
            x.iter().map(|window| window[0]).collect()
        };
        let mut batches = Batches::new(&data, &shape, &config);
        let mut epoch = |index: u64| -> Vec<u32> {
            (index * 8..index * 8 + 8).flat_map(|step| starts(&mut batches, step)).collect()
        };
        let epochs: Vec<Vec<u32>> = (0..6).map(&mut epoch).collect();
        let mut offsets = Vec::new();
        for epoch in &epochs {
            let mut sorted = epoch.clone();
            sorted.sort_unstable();
            assert_ne!(*epoch, sorted, "in order");
            assert!(sorted.windows(2).all(|pair| pair[0] + 8 == pair[1]), "{sorted:?}");
            assert_eq!(sorted.len(), 24);
            offsets.push(sorted[0]);
        }
        assert!(offsets.iter().any(|offset| *offset != offsets[0]) && offsets.iter().all(|offset| *offset < 8));
        // A trial that goes on from step 11 has the same batches.
        assert_eq!(starts(&mut Batches::new(&data, &shape, &config), 11), epochs[1][9..12]);
    }

    #[test]
    fn a_text_of_one_window_is_enough() {
        let shape = Shape::Text { vocabulary: 9, context: 8 };
        let (data, config) = (counted(9), config(1));
        assert_eq!(steps_per_epoch(&data, &shape, 1), 1);
        for step in 0..5 {
            let (x, _) = Batches::new(&data, &shape, &config).train(step, &Device::Cpu).unwrap();
            assert_eq!(x.to_vec2::<u32>().unwrap(), [[0, 1, 2, 3, 4, 5, 6, 7]]);
        }
    }
}
