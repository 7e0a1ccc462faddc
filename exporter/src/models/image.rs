//! An image of bytes as the network's input.

use emo_proto::Result;
use emo_proto::tensor_proto::DataType;

use crate::builder::Builder;
use crate::graph::{Dim, Part, Value};
use crate::op::Binary;
use crate::rewrite::{Kind, Rewrite};

/// Mean and standard deviation of ImageNet's red, green and blue, as shares of white; the
/// published models were trained on what is normalised by them.
pub const MEAN: [f64; 3] = [0.485, 0.456, 0.406];
pub const DEVIATION: [f64; 3] = [0.229, 0.224, 0.225];

/// Mean and deviation in levels of bytes, in words.
pub(super) fn said() -> String {
    let levels = |shares: [f64; 3]| shares.map(|share| format!("{:.3}", 255.0 * share)).join(" ");
    format!("mean {}\ndeviation {}", levels(MEAN), levels(DEVIATION))
}

/// `image: uint8 [N, H, W, 3]`, RGB → `[N, 3, H, W]`, (x/255 − mean)/deviation.
///
/// The mean cannot go into the stem's convolution: its padding is zero after normalisation, and
/// would be black before.
///
/// # Errors
/// As every layer: a shape does not fit.
pub(super) fn input(b: &mut Builder, batch: Dim, (height, width): (usize, usize)) -> Result<Value> {
    let x = b.input("image", [batch, height.into(), width.into(), 3.into()], DataType::Uint8);
    b.part(Part::Image, |b| {
        b.within("image", |b| {
            let x = b.cast("float", x, DataType::Float)?;
            let white = |shares: [f64; 3]| shares.map(|share| (255.0 * share) as f32).to_vec();
            let mean = b.numbers("image.mean", [3].into(), white(MEAN));
            let deviation = b.numbers("image.deviation", [3].into(), white(DEVIATION));
            let centred = b.binary("centred", Binary::Sub, x, mean)?;
            let normal = b.binary("normal", Binary::Div, centred, deviation)?;
            // Means and deviations of the input are no parameters.
            b.rewrote(Rewrite::free(Kind::Image, "input".to_owned(), b.path("normal")));
            b.transpose("channels_first", normal, &[0, 3, 1, 2])
        })
    })
}
