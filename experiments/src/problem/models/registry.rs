//! All models, and each by the text that users write: `NAME` or `NAME:KEY=VALUE,..`.

use super::{
    cnn, cnn4,
    forward::Model,
    gpt, mlp, resnet,
    shape::{ImageShape, Shape},
    spec::{Build, ModelConfig, ModelSpec, Value},
    speednet,
};
use crate::{
    config::names,
    problem::data::{loaded::Data, spec::Kind},
};
use anyhow::{Context, Result, anyhow, bail};
use candle_nn::VarBuilder;
use optim::text::SpecText;

/// All models, simplest first.
pub fn all() -> &'static [ModelSpec] {
    const ALWAYS: fn(&ModelConfig) -> std::result::Result<(), String> = |_| Ok(());
    &[
        ModelSpec {
            name: "mlp",
            doc: "two hidden layers of 128 and 64 with ReLU",
            keys: &[],
            check: ALWAYS,
            build: Build::Images(mlp::Mlp::build),
            least: mlp::least,
        },
        ModelSpec {
            name: "cnn",
            doc: "three 3x3 convolutions of 16, 32 and 64 channels with ReLU and max pooling",
            keys: &[],
            check: ALWAYS,
            build: Build::Images(cnn::Cnn::build),
            least: cnn::least,
        },
        ModelSpec {
            name: "cnn4",
            doc: "four 3x3 convolutions of 32, 64, 128 and 128 channels with ReLU, two of stride 2, and the global average",
            keys: cnn4::KEYS,
            check: ALWAYS,
            build: Build::Images(cnn4::Cnn4::build),
            least: cnn4::least,
        },
        ModelSpec {
            name: "resnet20",
            doc: "He et al.'s residual network for CIFAR with batch norm, 0.27 million parameters",
            keys: &[],
            check: ALWAYS,
            build: Build::Images(resnet::ResNet::build_20),
            least: resnet::least_20,
        },
        ModelSpec {
            name: "resnet18",
            doc: "He et al.'s residual network with batch norm and 64 to 512 channels, 11.2 million parameters",
            keys: &[],
            check: ALWAYS,
            build: Build::Images(resnet::ResNet::build_18),
            least: resnet::least_18,
        },
        ModelSpec {
            name: "speednet",
            doc: "a network for few passes over CIFAR-10: whitened patches, three blocks with batch norm; 2.0 million parameters",
            keys: speednet::KEYS,
            check: ALWAYS,
            build: Build::Images(speednet::SpeedNet::build),
            least: speednet::least,
        },
        ModelSpec {
            name: "gpt",
            doc: "a transformer that predicts the next character, 0.80 million parameters",
            keys: gpt::KEYS,
            check: gpt::check,
            build: Build::Text(gpt::Gpt::build),
            least: gpt::least,
        },
    ]
}

/// Reads a model, as in `--model NAME[:KEY=VALUE,..]`.
///
/// # Errors
/// An unknown name or key (with the nearest known one), a key that is given twice, or a value that is not allowed.
pub fn parse(text: &str) -> Result<ModelConfig> {
    let mut given = SpecText::of(text);
    if given.to_string() == format!("{}:", given.name) {
        given = given.without_blanks();
    }
    let name = given.name.as_str();
    let spec = all().iter().find(|spec| spec.name == name);
    let spec = spec.ok_or_else(|| names::unknown("model", name, all().iter().map(|spec| spec.name)))?;
    let mut values: Vec<Option<Value>> = vec![None; spec.keys.len()];
    for (name, value) in given.pairs().map_err(|error| anyhow!("{}: {error}", spec.name))? {
        let index = spec.keys.iter().position(|key| key.name == name).ok_or_else(|| match spec.keys {
            [] => anyhow!("{} has no keys, and `{name}` is given", spec.name),
            keys => names::unknown(&format!("key of {}", spec.name), name, keys.iter().map(|key| key.name)),
        })?;
        let allowed = &spec.keys[index].allowed;
        let wrong = || anyhow!("{}: {name} = {value} is not allowed: it must be {allowed}", spec.name);
        values[index] = Some(allowed.read(value).ok_or_else(wrong)?);
    }
    let values = values.iter().zip(spec.keys).map(|(value, key)| value.unwrap_or(key.default)).collect();
    let config = ModelConfig::new(spec, values);
    (spec.check)(&config).map_err(|problem| anyhow!("{}: {problem}", spec.name))?;
    Ok(config)
}

impl ModelConfig {
    /// What the model takes when it learns from `data`.
    ///
    /// # Errors
    /// When the model is for another kind of data, or no window fits into the text.
    pub fn shape(&self, data: &Data) -> Result<Shape> {
        self.demand(data.kind(), data.name())?;
        match data {
            Data::Images(data) => Ok(Shape::Images(ImageShape {
                channels: data.channels,
                height: data.height,
                width: data.width,
                classes: data.classes,
            })),
            Data::Text(data) => {
                let context = self.context().context("a model of text has a context")?;
                let shortest = data.train.len().min(data.test.len());
                if shortest <= context {
                    bail!(
                        "model {}: context = {context} is too large for {}: a part of it has {shortest} characters, and a \
                         window takes one more than its context",
                        self.name(),
                        data.name
                    );
                }
                Ok(Shape::Text { vocabulary: data.vocabulary.len(), context })
            }
        }
    }

    /// Creates the model's layers in `vb`.
    ///
    /// # Errors
    /// When the model is for another kind of data or another context, or candle fails.
    pub fn build(&self, shape: &Shape, vb: VarBuilder) -> Result<Box<dyn Model>> {
        match (self.spec().build, *shape) {
            (Build::Images(build), Shape::Images(shape)) => Ok(build(self, shape, vb)?),
            (Build::Text(_), Shape::Text { context, .. }) if self.context() != Some(context) => {
                bail!("model {self}: its context cannot be {context}")
            }
            (Build::Text(build), Shape::Text { vocabulary, .. }) => Ok(build(self, vocabulary, vb)?),
            _ => self.demand(shape.kind(), "the data").and_then(|()| bail!("model {self} cannot be built")),
        }
    }

    fn demand(&self, kind: Kind, data: &str) -> Result<()> {
        if self.kind() == kind {
            return Ok(());
        }
        let fitting = all().iter().filter(|spec| spec.kind() == kind).map(|spec| spec.name).collect::<Vec<_>>();
        bail!("model {} takes {}, and {data} has {kind} (for {})", self.name(), self.kind(), fitting.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::{
        data::{digits, text::TextData},
        models::parameters::Parameters,
    };
    use candle_core::Device;

    #[test]
    fn a_model_prints_as_what_is_read() {
        let all_keys = "gpt:layers=4,heads=4,width=128,context=64,dropout=0,norm=pre";
        for (text, expected) in [
            ("mlp", "mlp"),
            ("resnet20", "resnet20"),
            ("gpt", all_keys),
            ("gpt:", all_keys),
            (all_keys, all_keys),
            ("gpt:norm=post,layers=6", "gpt:layers=6,heads=4,width=128,context=64,dropout=0,norm=post"),
            ("gpt:dropout=0.20", "gpt:layers=4,heads=4,width=128,context=64,dropout=0.2,norm=pre"),
        ] {
            let config = parse(text).unwrap();
            assert_eq!(config.to_string(), expected);
            assert_eq!(parse(expected).unwrap(), config);
        }
        assert_ne!(parse("gpt").unwrap(), parse("gpt:norm=post").unwrap());
        assert_eq!((parse("gpt:context=32").unwrap().context(), parse("cnn").unwrap().context()), (Some(32), None));
    }

    #[test]
    fn wrong_models_are_errors_of_one_line() {
        for (text, expected) in [
            (
                "gtp",
                "unknown model `gtp`: did you mean `gpt`? (known: mlp, cnn, cnn4, resnet20, resnet18, speednet, gpt)",
            ),
            (
                "gpt:layer=2",
                "unknown key of gpt `layer`: did you mean `layers`? (known: layers, heads, width, context, dropout, norm)",
            ),
            ("mlp:layers=2", "mlp has no keys, and `layers` is given"),
            ("gpt:layers", "gpt: `layers` is not of the form key=value"),
            ("gpt:layers=2,layers=2", "gpt: `layers` is given twice"),
            ("gpt:layers=0", "gpt: layers = 0 is not allowed: it must be a whole number from 1 to 96"),
            ("gpt:layers=2.5", "gpt: layers = 2.5 is not allowed: it must be a whole number from 1 to 96"),
            ("gpt:dropout=1", "gpt: dropout = 1 is not allowed: it must be a number from 0 to below 1"),
            ("gpt:dropout=NaN", "gpt: dropout = NaN is not allowed: it must be a number from 0 to below 1"),
            ("gpt:norm=mid", "gpt: norm = mid is not allowed: it must be pre or post"),
            ("gpt:width=30", "gpt: width = 30 is not a multiple of heads = 4"),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn a_model_and_its_data_are_of_one_kind() {
        let images = Data::Images(digits::load());
        let text = Data::Text(TextData::from_text("ab", &"ab".repeat(500)).unwrap());
        let (mlp, gpt) = (parse("mlp").unwrap(), parse("gpt").unwrap());
        let shape = mlp.shape(&images).unwrap();
        assert_eq!(shape, Shape::Images(ImageShape { channels: 1, height: 8, width: 8, classes: 10 }));
        assert_eq!(gpt.shape(&text).unwrap(), Shape::Text { vocabulary: 2, context: 64 });
        let error = |result: Result<Shape>| result.unwrap_err().to_string();
        assert_eq!(error(mlp.shape(&text)), "model mlp takes images, and ab has text (for gpt)");
        assert_eq!(
            error(gpt.shape(&images)),
            "model gpt takes text, and digits has images (for mlp, cnn, cnn4, resnet20, resnet18, speednet)"
        );
        let wide = parse("gpt:context=100").unwrap();
        assert_eq!(
            error(wide.shape(&text)),
            "model gpt: context = 100 is too large for ab: a part of it has 100 characters, and a window takes one more \
             than its context"
        );

        let parameters = Parameters::new(0);
        let build = |config: &ModelConfig, shape| {
            config.build(&shape, parameters.builder(&Device::Cpu)).map(|_| ()).map_err(|error| error.to_string())
        };
        assert_eq!(
            build(&gpt, shape).unwrap_err(),
            "model gpt takes text, and the data has images (for mlp, cnn, cnn4, resnet20, resnet18, speednet)"
        );
        let wrong = build(&gpt, Shape::Text { vocabulary: 2, context: 32 }).unwrap_err();
        assert!(wrong.starts_with("model gpt:") && wrong.ends_with("its context cannot be 32"), "{wrong}");
        assert_eq!(build(&gpt, Shape::Text { vocabulary: 2, context: 64 }), Ok(()));
    }
}
