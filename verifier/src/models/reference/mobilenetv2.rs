//! MobileNetV2.
//!
//! Source: "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (CVPR 2018, arXiv 1801.04381), table 1, table 2
//! and section 3.3; the weights' names are those of timm.

use emo_exporter::models::mobilenetv2::Network;
use emo_proto::Result;
use ndarray::{Array4, ArrayRef4};

use super::classifier::Classifier;
use super::convolution::Convolution;
use super::ops::{Activation, BatchNorm, Norm, Pointwise, planes};
use super::scope::Scope;
use super::{Block, Map, Mistake, OfImage, Part, Parts};

/// The published networks' ε, which is PyTorch's own.
const EPSILON: f64 = 1e-5;
/// Side of every kernel that is not pointwise.
const KERNEL: usize = 3;

pub fn load(network: &Network, root: &Scope) -> Result<Parts> {
    let mut channels = network.stem;
    let stem = Layer::Spatial(Convolution::full(&root.at("conv_stem"), 3, channels, KERNEL, 2)?);
    let stem =
        Step { layer: stem, norm: BatchNorm::load(&root.at("bn1"), channels, EPSILON)?, bounded: true };
    let mut blocks =
        vec![Block::new("conv_stem", OfImage(Bottleneck { steps: vec![stem], shortcut: false }))];
    for (stage, row) in network.stages.iter().enumerate() {
        let name = format!("blocks.{stage}");
        for index in 0..row.depth {
            let stride = if index == 0 { row.stride } else { 1 };
            let scope = root.at(&name).at(&index.to_string());
            let block = Bottleneck::load(&scope, [channels, row.expansion * channels, row.dim], stride)?;
            let block = Block::new(format!("{name}.{index}"), block);
            blocks.push(if index + 1 == row.depth { block.ending(&name) } else { block });
            channels = row.dim;
        }
    }
    let features = Step::pointwise(root, "conv_head", "bn2", [channels, network.features], true)?;
    blocks.push(Block::new("conv_head", Bottleneck { steps: vec![features], shortcut: false }));
    let linear = Pointwise::classifier(&root.at("classifier"), network.features)?;
    Ok(Parts::classifier(blocks, Classifier { norm: Norm::None, linear }))
}

/// A convolution without bias, its batch norm, and ReLU6 where the map is not a bottleneck's.
struct Step {
    layer: Layer,
    norm: BatchNorm,
    bounded: bool,
}

enum Layer {
    Pointwise(Pointwise),
    Spatial(Convolution),
}

impl Step {
    fn pointwise(
        scope: &Scope,
        layer: &str,
        norm: &str,
        [inputs, outputs]: [usize; 2],
        bounded: bool,
    ) -> Result<Self> {
        Ok(Self {
            layer: Layer::Pointwise(Pointwise::unbiased(&scope.at(layer), inputs, outputs)?),
            norm: BatchNorm::load(&scope.at(norm), outputs, EPSILON)?,
            bounded,
        })
    }

    fn depthwise(scope: &Scope, norm: &str, channels: usize, stride: usize) -> Result<Self> {
        let layer = Convolution::depthwise(&scope.at("conv_dw"), channels, KERNEL, stride)?;
        Ok(Self {
            layer: Layer::Spatial(layer),
            norm: BatchNorm::load(&scope.at(norm), channels, EPSILON)?,
            bounded: true,
        })
    }

    fn forward(&self, x: &ArrayRef4<f64>, mistake: Option<Mistake>) -> Array4<f64> {
        let mut y = match &self.layer {
            Layer::Pointwise(layer) => layer.forward(x),
            Layer::Spatial(layer) => layer.forward(x),
        };
        self.norm.apply(&mut y, mistake);
        if self.bounded {
            Activation::Relu6.apply(&mut y, mistake);
        }
        y
    }
}

/// Steps one behind the other, and their input again where stride and channels allow it.
struct Bottleneck {
    steps: Vec<Step>,
    shortcut: bool,
}

impl Bottleneck {
    /// The inverted residual: expansion, depthwise convolution, linear bottleneck. Without an expansion the first
    /// of the three is left out, and the names of timm are those of a depthwise separable convolution.
    fn load(scope: &Scope, [inputs, expanded, outputs]: [usize; 3], stride: usize) -> Result<Self> {
        let steps = if inputs == expanded {
            vec![
                Step::depthwise(scope, "bn1", inputs, stride)?,
                Step::pointwise(scope, "conv_pw", "bn2", [inputs, outputs], false)?,
            ]
        } else {
            vec![
                Step::pointwise(scope, "conv_pw", "bn1", [inputs, expanded], true)?,
                Step::depthwise(scope, "bn2", expanded, stride)?,
                Step::pointwise(scope, "conv_pwl", "bn3", [expanded, outputs], false)?,
            ]
        };
        Ok(Self { steps, shortcut: inputs == outputs && stride == 1 })
    }
}

impl Part for Bottleneck {
    fn forward(&self, x: &Map, mistake: Option<Mistake>) -> Map {
        let x = planes(x);
        let mut y = x.to_owned();
        for step in &self.steps {
            y = step.forward(&y, mistake);
        }
        if self.shortcut && mistake != Some(Mistake::NoShortcut) {
            y += &x;
        }
        y.into_dyn()
    }

    fn can_make(&self, mistake: Mistake) -> bool {
        match mistake {
            Mistake::Epsilon(_) => mistake.is_of_norm(EPSILON),
            Mistake::NoShortcut => self.shortcut,
            other => self.steps.iter().any(|step| step.bounded) && Activation::Relu6.can_make(other),
        }
    }
}
