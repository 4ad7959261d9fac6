//! A look into a model while it computes.

use candle_core::{DType, Result, Tensor};
use std::cell::RefCell;

/// What a probe sees of a layer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LayerOutput {
    /// Its name: the part that its parameters' names share, such as `blocks.0`.
    pub layer: String,
    /// The largest absolute value that it puts out.
    pub activation_max: Option<f64>,
    /// The largest absolute attention logit before masking; none outside attention.
    pub attention_logit_max: Option<f64>,
}

/// Collects the largest values that the layers of a model put out in one forward pass.
///
/// A model shows what it wishes, under names that are prefixes of its parameters' names ([`layer_of`]).
#[derive(Debug, Default)]
pub struct Probe {
    layers: RefCell<Vec<LayerOutput>>,
}

impl Probe {
    /// One that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// What was seen, by layer, in the order of the forward pass.
    pub fn layers(&self) -> Vec<LayerOutput> {
        self.layers.borrow().clone()
    }

    /// Sees `x` put out by `layer`.
    ///
    /// # Errors
    /// When candle fails.
    pub fn activation(&self, layer: &str, x: &Tensor) -> Result<()> {
        self.see(layer, x, |probe| &mut probe.activation_max)
    }

    /// Sees the attention logits of `layer`: after scaling, before masking.
    ///
    /// # Errors
    /// When candle fails.
    pub fn attention_logits(&self, layer: &str, logits: &Tensor) -> Result<()> {
        self.see(layer, logits, |probe| &mut probe.attention_logit_max)
    }

    fn see(&self, layer: &str, x: &Tensor, field: fn(&mut LayerOutput) -> &mut Option<f64>) -> Result<()> {
        let values = x.detach().flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
        // A value that is not a number must show, and `f32::max` would hide it.
        let max = values.iter().fold(0f32, |max, x| if x.abs() > max || x.is_nan() { x.abs() } else { max });
        let mut layers = self.layers.borrow_mut();
        let index = layers.iter().position(|probe| probe.layer == layer).unwrap_or_else(|| {
            layers.push(LayerOutput { layer: layer.to_owned(), ..LayerOutput::default() });
            layers.len() - 1
        });
        let value = field(&mut layers[index]);
        let max = f64::from(max);
        *value = Some(value.map_or(max, |old| if old > max || old.is_nan() { old } else { max }));
        Ok(())
    }
}

/// The layer that a parameter belongs to: the first part of its name, with the number that follows it if there is one.
///
/// `hidden1.weight` belongs to `hidden1`, `stage2.0.conv1.weight` to `stage2.0` and `blocks.3.mlp.norm.weight` to `blocks.3`.
pub fn layer_of(parameter: &str) -> &str {
    let ends = |from: usize| parameter[from..].find('.').map_or(parameter.len(), |at| from + at);
    let first = ends(0);
    let second = parameter.get(first + 1..).map_or(first, |_| ends(first + 1));
    let number = parameter.get(first + 1..second).is_some_and(|part| part.parse::<usize>().is_ok());
    &parameter[..if number { second } else { first }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn parameters_belong_to_layers() {
        for (parameter, layer) in [
            ("hidden1.weight", "hidden1"),
            ("conv.weight", "conv"),
            ("stage2.0.norm1.bias", "stage2.0"),
            ("blocks.11.mlp.norm.weight", "blocks.11"),
            ("embedding.token", "embedding"),
            ("blocks.3", "blocks.3"),
            ("scale", "scale"),
            ("scale.", "scale"),
            ("", ""),
        ] {
            assert_eq!(layer_of(parameter), layer, "{parameter}");
        }
    }

    #[test]
    fn a_probe_keeps_the_largest_absolute_value_and_the_order() {
        let tensor = |values: &[f32]| Tensor::new(values, &Device::Cpu).unwrap();
        let probe = Probe::new();
        probe.activation("b", &tensor(&[1.0, -3.0])).unwrap();
        probe.attention_logits("a", &tensor(&[0.5])).unwrap();
        probe.activation("b", &tensor(&[2.0])).unwrap();
        probe.activation("c", &tensor(&[1.0, f32::NAN, 9.0, f32::INFINITY])).unwrap();
        let layers = probe.layers();
        let names: Vec<&str> = layers.iter().map(|probe| probe.layer.as_str()).collect();
        assert_eq!(names, ["b", "a", "c"]);
        assert_eq!((layers[0].activation_max, layers[0].attention_logit_max), (Some(3.0), None));
        assert_eq!((layers[1].activation_max, layers[1].attention_logit_max), (None, Some(0.5)));
        assert!(layers[2].activation_max.unwrap().is_nan());
        // Also where the layer puts out more after it.
        probe.activation("c", &tensor(&[1.0])).unwrap();
        assert!(probe.layers()[2].activation_max.unwrap().is_nan());
    }
}
