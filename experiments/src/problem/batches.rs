//! The batches that a trial trains on and is judged by: functions of the seed and the step.

use super::{
    data::{
        images::{Augment, ImageData, Split},
        loaded::Data,
        text,
    },
    models::shape::Shape,
};
use crate::config::augmentation::Augmentation;
use crate::random::{self, Purpose, stream};
use anyhow::{Result, bail};
use candle_core::{Device, Tensor};
use rand::RngExt;
use std::cell::OnceCell;

/// Images in a batch of an evaluation.
const EVALUATION_IMAGES: usize = 250;
/// Characters in a batch of an evaluation.
const EVALUATION_CHARACTERS: usize = 16_384;

/// What an update or a part of an evaluation takes, before it is on a device.
#[derive(Clone, Debug, PartialEq)]
pub enum Batch {
    /// Pixels in the order (image, channel, row, column), and labels.
    Images(Vec<f32>, Vec<u32>),
    /// The images of these numbers, of a part that stays on the device.
    Resident(Part, Vec<u32>),
    /// Tokens, window after window, and those that follow each of them.
    Windows(Vec<u32>, Vec<u32>),
}

/// A part of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What a model learns from.
    Train,
    /// What it is judged by.
    Test,
}

/// How batches are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampling {
    /// Examples per update.
    pub batch_size: usize,
    /// How training images are moved and mirrored.
    pub augment: Augmentation,
    /// The trial's seed.
    pub seed: u64,
}

/// The batches of a trial. An epoch visits each example once in seeded order, in full batches; the few that are left over differ
/// from epoch to epoch. The examples of a text are windows side by side, of which the first begins at another place in each epoch.
pub struct Batches<'a> {
    data: &'a Data,
    context: usize,
    batch_size: usize,
    augment: Augmentation,
    seed: u64,
    /// Whether images stay on a device, where they need not be made anew each time.
    are_resident: bool,
    epoch: Option<Epoch>,
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

/// The examples of the test data, images or windows of `context` characters, and how many are in a batch of an evaluation.
pub fn test_sizes(data: &Data, context: usize) -> (usize, usize) {
    match data {
        Data::Images(images) => (images.test.len(), EVALUATION_IMAGES),
        // The last character of a window needs one that follows it.
        Data::Text(text) => ((text.test.len() - 1) / context, (EVALUATION_CHARACTERS / context).max(1)),
    }
}

impl<'a> Batches<'a> {
    /// The batches of `data` for a model of this shape on `device`.
    pub fn new(data: &'a Data, shape: &Shape, sampling: Sampling, device: &Device) -> Self {
        let context = if let Shape::Text { context, .. } = shape { *context } else { 1 };
        let Sampling { batch_size, augment, seed } = sampling;
        Self { data, context, batch_size, augment, seed, are_resident: !device.is_cpu(), epoch: None }
    }

    /// What update `step`, counted from 0, trains on.
    pub fn train(&mut self, step: u64) -> Batch {
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
                self.images(images, Part::Train, examples, augment)
            }
            Data::Text(text) => {
                let starts: Vec<usize> = examples.iter().map(|window| epoch.offset + window * self.context).collect();
                self.windows(&text.train, &starts)
            }
        }
    }

    /// The first `count` training examples, as they are; fewer where there are not so many.
    pub fn first(&self, count: usize) -> Batch {
        let examples: Vec<usize> = (0..count.min(examples(self.data, self.context))).collect();
        match self.data {
            Data::Images(images) => self.images(images, Part::Train, &examples, None),
            Data::Text(text) => {
                let starts: Vec<usize> = examples.iter().map(|window| window * self.context).collect();
                self.windows(&text.train, &starts)
            }
        }
    }

    /// The number of batches of `part` examples of the test data, or of all.
    pub fn tests(&self, part: Option<usize>) -> u64 {
        let (examples, per_batch) = test_sizes(self.data, self.context);
        part.map_or(examples, |part| part.min(examples)).div_ceil(per_batch) as u64
    }

    /// Batch `index` of `part` examples of the test data, at equal distances from each other, or of all: images in order, or windows of
    /// the text side by side.
    pub fn test(&self, index: u64, part: Option<usize>) -> Batch {
        let (examples, per_batch) = test_sizes(self.data, self.context);
        let part = part.map_or(examples, |part| part.min(examples));
        let first = index as usize * per_batch;
        let chosen = (first..part.min(first + per_batch)).map(|place| place * examples / part);
        match self.data {
            Data::Images(images) => self.images(images, Part::Test, &chosen.collect::<Vec<_>>(), None),
            Data::Text(text) => {
                let starts: Vec<usize> = chosen.map(|window| window * self.context).collect();
                self.windows(&text.test, &starts)
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
        let augment = match self.augment {
            Augmentation::None => None,
            Augmentation::Random => {
                let draw = |_: &usize| Augment {
                    dy: rng.random_range(-4..=4),
                    dx: rng.random_range(-4..=4),
                    flip: rng.random(),
                    reflect: false,
                };
                Some(order.iter().map(draw).collect())
            }
            Augmentation::Alternating => {
                let mut coins = stream(self.seed, Purpose::Mirror, 0);
                let first: Vec<bool> = order.iter().map(|_| coins.random()).collect();
                let draw = |example: &usize| Augment {
                    dy: rng.random_range(-2..=2),
                    dx: rng.random_range(-2..=2),
                    flip: first[*example] != (index % 2 == 1),
                    reflect: true,
                };
                Some(order.iter().map(draw).collect())
            }
        };
        Epoch { index, order, offset, augment }
    }

    fn images(&self, images: &ImageData, part: Part, indices: &[usize], augment: Option<&[Augment]>) -> Batch {
        if self.are_resident && augment.is_none() {
            return Batch::Resident(part, indices.iter().map(|index| *index as u32).collect());
        }
        let (pixels, labels) = images.batch(part.of(images), indices, augment);
        Batch::Images(pixels, labels)
    }

    fn windows(&self, tokens: &[u32], starts: &[usize]) -> Batch {
        let (inputs, targets) = text::windows(tokens, starts, self.context);
        Batch::Windows(inputs, targets)
    }
}

impl Part {
    fn of(self, images: &ImageData) -> &Split {
        match self {
            Self::Train => &images.train,
            Self::Test => &images.test,
        }
    }
}

/// Puts batches on a device, as inputs and labels.
pub struct DeviceBatches<'a> {
    data: &'a Data,
    context: usize,
    device: &'a Device,
    /// Images and labels of each part that stays there.
    resident: [OnceCell<(Tensor, Tensor)>; 2],
}

impl<'a> DeviceBatches<'a> {
    /// Puts batches of `data` on `device`.
    pub fn new(data: &'a Data, shape: &Shape, device: &'a Device) -> Self {
        let context = if let Shape::Text { context, .. } = shape { *context } else { 1 };
        Self { data, context, device, resident: Default::default() }
    }

    /// The inputs and labels of `batch`.
    ///
    /// # Errors
    /// When candle fails.
    pub fn place(&self, batch: Batch) -> Result<(Tensor, Tensor)> {
        match (batch, self.data) {
            (Batch::Windows(inputs, targets), _) => {
                let n = targets.len();
                let x = Tensor::from_vec(inputs, (n / self.context, self.context), self.device)?;
                Ok((x, Tensor::from_vec(targets, n, self.device)?))
            }
            (Batch::Images(pixels, labels), Data::Images(data)) => self.images(data, pixels, labels),
            (Batch::Resident(part, indices), Data::Images(data)) => {
                let resident = &self.resident[part as usize];
                if resident.get().is_none() {
                    let split = part.of(data);
                    let all: Vec<usize> = (0..split.len()).collect();
                    let (pixels, labels) = data.batch(split, &all, None);
                    let _ = resident.set(self.images(data, pixels, labels)?);
                }
                let (x, labels) = resident.get().expect("it was just set");
                let indices = Tensor::new(indices, self.device)?;
                Ok((x.index_select(&indices, 0)?, labels.index_select(&indices, 0)?))
            }
            (_, Data::Text(_)) => bail!("a batch of images is given, and the data is text"),
        }
    }

    fn images(&self, data: &ImageData, pixels: Vec<f32>, labels: Vec<u32>) -> Result<(Tensor, Tensor)> {
        let n = labels.len();
        let x = Tensor::from_vec(pixels, (n, data.channels, data.height, data.width), self.device)?;
        Ok((x, Tensor::from_vec(labels, n, self.device)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::{
        data::{digits, text::TextData},
        models::shape::ImageShape,
    };

    #[test]
    fn images_that_stay_on_a_device_are_those_of_the_host() -> Result<()> {
        let data = Data::Images(digits::load());
        let Data::Images(images) = &data else { unreachable!("digits are images") };
        let shape = Shape::Images(ImageShape { channels: 1, height: 8, width: 8, classes: 10 });
        let mut batches = Batches::new(&data, &shape, sampling(4), &Device::Cpu);
        let mut resident = Batches { are_resident: true, ..Batches::new(&data, &shape, sampling(4), &Device::Cpu) };
        let on_device = DeviceBatches::new(&data, &shape, &Device::Cpu);
        let check = |host: Batch, resident: Batch| -> Result<()> {
            assert!(matches!(host, Batch::Images(..)) && matches!(resident, Batch::Resident(..)));
            let ((x, labels), (chosen, chosen_labels)) = (on_device.place(host)?, on_device.place(resident)?);
            assert_eq!(x.dims(), chosen.dims());
            assert_eq!(x.flatten_all()?.to_vec1::<f32>()?, chosen.flatten_all()?.to_vec1::<f32>()?);
            assert_eq!(labels.to_vec1::<u32>()?, chosen_labels.to_vec1::<u32>()?);
            Ok(())
        };
        for step in [0, 7, 359] {
            check(batches.train(step), resident.train(step))?;
            check(batches.test(step % 2, None), resident.test(step % 2, None))?;
            check(batches.test(0, Some(100)), resident.test(0, Some(100)))?;
        }
        // Images that are moved are made anew each time.
        resident.augment = Augmentation::Random;
        assert!(matches!(resident.train(1000), Batch::Images(..)));
        assert_eq!((images.test.len(), batches.tests(None)), (359, 2));
        Ok(())
    }

    /// Every image is as it was or mirrored, in every second pass, and half of them in the first; moved by two pixels at most.
    #[test]
    fn alternating_images_are_mirrored_in_every_second_pass() {
        let data = Data::Images(digits::load());
        let shape = Shape::Images(ImageShape { channels: 1, height: 8, width: 8, classes: 10 });
        let sampling = Sampling { augment: Augmentation::Alternating, ..sampling(4) };
        let batches = Batches::new(&data, &shape, sampling, &Device::Cpu);
        let by_image = |index: u64| -> Vec<Augment> {
            let Epoch { order, augment, .. } = batches.draw(index);
            let mut by_image = vec![Augment::default(); order.len()];
            order.iter().zip(augment.unwrap()).for_each(|(image, augment)| by_image[*image] = augment);
            by_image
        };
        let epochs: Vec<Vec<Augment>> = (0..4).map(by_image).collect();
        for (index, epoch) in epochs.iter().enumerate() {
            for (own, first) in epoch.iter().zip(&epochs[0]) {
                assert_eq!(own.flip == first.flip, index % 2 == 0);
                assert!(own.reflect && own.dx.abs() <= 2 && own.dy.abs() <= 2);
            }
        }
        let mirrored = epochs[0].iter().filter(|augment| augment.flip).count() as f64 / epochs[0].len() as f64;
        assert!((0.45..0.55).contains(&mirrored), "{mirrored}");
        assert_ne!(epochs[0], epochs[2], "moved anew");
    }

    /// A part of the test data is spread over all of it, and no example comes twice.
    #[test]
    fn a_part_of_the_test_data_is_spread_over_it() {
        let data = Data::Text(TextData { test: (0..401).collect(), ..text_of(counted(200)) });
        let shape = Shape::Text { vocabulary: 401, context: 8 };
        let batches = Batches::new(&data, &shape, sampling(1), &Device::Cpu);
        for (part, expected) in [
            (None, (0..50).collect::<Vec<u32>>()),
            (Some(50), (0..50).collect()),
            (Some(99), (0..50).collect()),
            (Some(5), vec![0, 10, 20, 30, 40]),
            (Some(1), vec![0]),
        ] {
            let starts = (0..batches.tests(part)).flat_map(|index| match batches.test(index, part) {
                Batch::Windows(inputs, _) => inputs.chunks(8).map(|window| window[0] / 8).collect::<Vec<_>>(),
                other => panic!("{other:?}"),
            });
            assert_eq!(starts.collect::<Vec<_>>(), expected, "{part:?}");
        }
    }

    fn text_of(data: Data) -> TextData {
        let Data::Text(text) = data else { panic!("no text") };
        text
    }

    fn sampling(batch_size: usize) -> Sampling {
        Sampling { batch_size, augment: Augmentation::None, seed: 5 }
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
        let sampling = sampling(batch_size);
        assert_eq!(steps_per_epoch(&data, &shape, batch_size), 8);
        let on_device = DeviceBatches::new(&data, &shape, &Device::Cpu);
        let new = || Batches::new(&data, &shape, sampling, &Device::Cpu);
        let starts = |batches: &mut Batches, step: u64| -> Vec<u32> {
            let (x, labels) = on_device.place(batches.train(step)).unwrap();
            let x: Vec<Vec<u32>> = x.to_vec2().unwrap();
            let labels: Vec<u32> = labels.to_vec1().unwrap();
            assert!(x.concat().iter().zip(&labels).all(|(token, label)| token + 1 == *label));
            assert!(x.iter().all(|window| window.windows(2).all(|pair| pair[0] + 1 == pair[1])));
            x.iter().map(|window| window[0]).collect()
        };
        let mut batches = new();
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
        assert_eq!(starts(&mut new(), 11), epochs[1][9..12]);
    }

    #[test]
    fn a_text_of_one_window_is_enough() {
        let shape = Shape::Text { vocabulary: 9, context: 8 };
        let (data, sampling) = (counted(9), sampling(1));
        assert_eq!(steps_per_epoch(&data, &shape, 1), 1);
        for step in 0..5 {
            let batch = Batches::new(&data, &shape, sampling, &Device::Cpu).train(step);
            assert_eq!(batch, Batch::Windows((0..8).collect(), (1..9).collect()));
        }
    }
}
