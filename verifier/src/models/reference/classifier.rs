//! The head of a classifier that reads a map: norm, mean over the pixels, linear layer.

use emo_exporter::layer::NORM_EPSILON;
use ndarray::Axis;

use super::ops::{Norm, Pointwise, mean_over_pixels, planes};
use super::{Map, Mistake, Part};

pub struct Classifier {
    pub norm: Norm,
    pub linear: Pointwise,
}

impl Part for Classifier {
    fn forward(&self, map: &Map, mistake: Option<Mistake>) -> Map {
        let mut map = planes(map).into_owned();
        self.norm.apply(&mut map, mistake);
        let logits = self.linear.forward(&mean_over_pixels(&map, mistake));
        logits.remove_axis(Axis(3)).remove_axis(Axis(2)).into_dyn()
    }

    fn can_make(&self, mistake: Mistake) -> bool {
        mistake.is_of_norm(NORM_EPSILON) && !matches!(self.norm, Norm::None)
    }
}
