//! What a probed training step tells of the gradients, the updates and the model's inside.

use crate::{
    problem::models::probe::{LayerOutput, Probe, layer_of},
    record::metric::{LayerProbe, Metric},
};
use candle_core::{Result, Tensor, Var, backprop::GradStore};

/// Watches the updates of parameters.
pub struct Prober {
    parameters: Vec<(String, Var)>,
    update: Option<Vec<Tensor>>,
}

/// What is known before an update.
pub struct Watch {
    parameters: Vec<Tensor>,
    /// By parameter; none without a gradient.
    squared_grads: Vec<Option<f64>>,
}

fn squared_norm(tensor: &Tensor) -> Result<f64> {
    Ok(f64::from(tensor.sqr()?.sum_all()?.to_scalar::<f32>()?))
}

/// To seven significant digits, the precision of what is measured: a probe has a line per step.
fn rounded(x: f64) -> f64 {
    format!("{x:.6e}").parse().unwrap_or(x)
}

/// What a layer puts out, as it is recorded; its gradient and its update are not known yet.
fn of_output(output: LayerOutput) -> LayerProbe {
    let LayerOutput { layer, activation_max, attention_logit_max } = output;
    LayerProbe { layer, activation_max, attention_logit_max, ..LayerProbe::default() }
}

impl Prober {
    /// Watches `parameters`.
    pub fn new(parameters: Vec<(String, Var)>) -> Self {
        Self { parameters, update: None }
    }

    /// The latest update, by parameter.
    pub fn update(&self) -> Option<&[Tensor]> {
        self.update.as_deref()
    }

    /// Puts the latest update back.
    pub fn set_update(&mut self, update: Option<Vec<Tensor>>) {
        self.update = update;
    }

    /// Looks at everything that the update will change.
    ///
    /// # Errors
    /// When candle fails.
    pub fn before(&self, grads: &GradStore) -> Result<Watch> {
        let copy = |(_, var): &(String, Var)| var.force_contiguous();
        let squared = |(_, var): &(String, Var)| grads.get(var).map(squared_norm).transpose();
        Ok(Watch {
            parameters: self.parameters.iter().map(copy).collect::<Result<_>>()?,
            squared_grads: self.parameters.iter().map(squared).collect::<Result<_>>()?,
        })
    }

    /// The record of the update, and the global norm of its gradient.
    ///
    /// # Errors
    /// When candle fails.
    pub fn after(&mut self, step: u64, watch: Watch, probe: &Probe) -> Result<(Metric, f64)> {
        // With the squares of its update and its parameters; none for a layer without parameters.
        let mut layers: Vec<(LayerProbe, Option<[f64; 2]>)> =
            probe.layers().into_iter().map(|output| (of_output(output), None)).collect();
        let (mut squared_grad, mut squared_update, mut squared_weight) = (0.0, 0.0, 0.0);
        let mut update = Vec::with_capacity(self.parameters.len());
        for (((name, var), before), grad) in self.parameters.iter().zip(&watch.parameters).zip(watch.squared_grads) {
            let change = (var.as_tensor() - before)?.detach();
            let (moved, weight) = (squared_norm(&change)?, squared_norm(before)?);
            let at = layers.iter().position(|(layer, _)| layer.layer == layer_of(name)).unwrap_or_else(|| {
                layers.push((LayerProbe { layer: layer_of(name).to_owned(), ..LayerProbe::default() }, None));
                layers.len() - 1
            });
            let (layer, sums) = &mut layers[at];
            if let Some(grad) = grad {
                // The squares are summed here, and the root is taken below.
                layer.grad_norm = Some(layer.grad_norm.unwrap_or(0.0) + grad);
                squared_grad += grad;
            }
            let sums = sums.get_or_insert([0.0; 2]);
            sums[0] += moved;
            sums[1] += weight;
            squared_update += moved;
            squared_weight += weight;
            update.push(change);
        }
        let ratio = |[moved, weight]: [f64; 2]| (moved / weight).sqrt();
        let layers = layers.into_iter().map(|(layer, sums)| LayerProbe {
            grad_norm: layer.grad_norm.map(|squared| rounded(squared.sqrt())),
            update_ratio: sums.map(|sums| rounded(ratio(sums))),
            activation_max: layer.activation_max.map(rounded),
            attention_logit_max: layer.attention_logit_max.map(rounded),
            layer: layer.layer,
        });
        let layers = layers.collect();
        let update_angle = match &self.update {
            None => None,
            Some(last) => {
                let mut dot = 0.0;
                let mut squared_last = 0.0;
                for (now, last) in update.iter().zip(last) {
                    dot += f64::from((now * last)?.sum_all()?.to_scalar::<f32>()?);
                    squared_last += squared_norm(last)?;
                }
                // An update of no length has no direction.
                let moved = squared_update != 0.0 && squared_last != 0.0;
                let cosine = dot / (squared_update * squared_last).sqrt();
                moved.then(|| rounded(cosine.clamp(-1.0, 1.0).acos().to_degrees()))
            }
        };
        self.update = Some(update);
        let update_ratio = rounded(ratio([squared_update, squared_weight]));
        Ok((Metric::Probe { step, update_ratio, update_angle, layers }, squared_grad.sqrt()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn norms_ratios_and_angles_by_hand() {
        let var = |values: &[f32]| Var::new(values, &Device::Cpu).unwrap();
        let (a, b) = (var(&[3.0, 4.0]), var(&[0.0, 12.0]));
        let mut prober = Prober::new(vec![("a.weight".to_owned(), a.clone()), ("b.weight".to_owned(), b.clone())]);
        let loss = ((a.as_tensor() * 2.0).unwrap() + b.as_tensor()).unwrap().sum_all().unwrap();
        let grads = loss.backward().unwrap();
        let set = |var: &Var, values: &[f32]| var.set(&Tensor::new(values, &Device::Cpu).unwrap()).unwrap();

        let watch = prober.before(&grads).unwrap();
        set(&a, &[3.0, 5.0]);
        let (metric, norm) = prober.after(1, watch, &Probe::default()).unwrap();
        assert!((norm - 10f64.sqrt()).abs() < 1e-12);
        let Metric::Probe { step: 1, update_ratio, update_angle: None, layers } = metric else { panic!("{metric:?}") };
        assert_eq!(update_ratio, 0.07692308); // 1 / 13
        let of = |layer: &LayerProbe| (layer.layer.clone(), layer.grad_norm.unwrap(), layer.update_ratio.unwrap());
        assert_eq!(of(&layers[0]), ("a".to_owned(), rounded(8f64.sqrt()), 0.2));
        assert_eq!(of(&layers[1]), ("b".to_owned(), rounded(2f64.sqrt()), 0.0));

        let watch = prober.before(&grads).unwrap();
        set(&a, &[4.0, 5.0]);
        let (metric, _) = prober.after(2, watch, &Probe::default()).unwrap();
        let Metric::Probe { update_angle: Some(angle), .. } = metric else { panic!("{metric:?}") };
        assert!((angle - 90.0).abs() < 1e-9, "{angle}");

        let watch = prober.before(&grads).unwrap();
        let (metric, _) = prober.after(3, watch, &Probe::default()).unwrap();
        let Metric::Probe { update_angle: None, .. } = metric else { panic!("nothing moved: {metric:?}") };
    }

    #[test]
    fn what_overflows_is_measured_all_the_same() {
        let var = |values: &[f32]| Var::new(values, &Device::Cpu).unwrap();
        let (a, zero) = (var(&[3.0, 4.0]), var(&[0.0, 0.0]));
        let mut prober = Prober::new(vec![("a.weight".to_owned(), a.clone()), ("zero.bias".to_owned(), zero.clone())]);
        let set = |var: &Var, values: &[f32]| var.set(&Tensor::new(values, &Device::Cpu).unwrap()).unwrap();
        let probe = Probe::default();
        probe.activation("relu", &Tensor::new(&[1f32, f32::INFINITY], &Device::Cpu).unwrap()).unwrap();
        let mut step = |number, values: &[f32], scale: f64| {
            let loss = ((a.as_tensor() * scale).unwrap() + zero.as_tensor()).unwrap().sum_all().unwrap();
            let watch = prober.before(&loss.backward().unwrap()).unwrap();
            set(&a, values);
            set(&zero, &[1.0, 0.0]);
            prober.after(number, watch, &probe).unwrap()
        };
        step(1, &[3.0, 5.0], 1.0);
        let (metric, norm) = step(2, &[3.0, f32::INFINITY], 1e30);
        let Metric::Probe { update_ratio, update_angle, layers, .. } = metric else { panic!("{metric:?}") };
        assert_eq!((norm, update_ratio), (f64::INFINITY, f64::INFINITY));
        assert!(update_angle.is_some_and(f64::is_nan), "{update_angle:?}");
        let of = |name: &str| layers.iter().find(|layer| layer.layer == name).unwrap();
        assert_eq!((of("a").grad_norm, of("a").update_ratio), (Some(f64::INFINITY), Some(f64::INFINITY)));
        // A layer without parameters has neither.
        assert_eq!((of("relu").grad_norm, of("relu").update_ratio), (None, None));
        assert_eq!(of("relu").activation_max, Some(f64::INFINITY));
    }

    #[test]
    fn parameters_that_were_all_zero_have_a_ratio_too() {
        let zero = Var::new(&[0f32, 0.0], &Device::Cpu).unwrap();
        let mut prober = Prober::new(vec![("zero.bias".to_owned(), zero.clone())]);
        let loss = zero.as_tensor().sum_all().unwrap();
        let watch = prober.before(&loss.backward().unwrap()).unwrap();
        zero.set(&Tensor::new(&[1f32, 0.0], &Device::Cpu).unwrap()).unwrap();
        let (metric, _) = prober.after(1, watch, &Probe::default()).unwrap();
        let Metric::Probe { layers, .. } = metric else { panic!("{metric:?}") };
        assert_eq!(layers[0].update_ratio, Some(f64::INFINITY));
    }
}
