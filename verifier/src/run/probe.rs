//! The inputs on which two networks are compared: a table.
//!
//! One input is no evidence: zeros hide every weight, small values hide what saturates, noise hides
//! where a pixel goes. Each row is there for an error that the others may miss.

use emo_exporter::weights::formula;
use emo_proto::{Error, Result};

/// A row: an input, and the error that it brings to light.
#[derive(Debug, Clone, Copy)]
pub struct Probe {
    /// As reports name it.
    pub name: &'static str,
    pub why: &'static str,
    /// Images at least; more than one asks for a free batch.
    pub images: usize,
    /// Whether it is like what integers' ranges are calibrated on: neither flat nor at the ends of the range.
    pub mild: bool,
    /// Elements of an input of shape `[N, C, H, W]`, row-major.
    pub fill: fn(&[usize]) -> Vec<f32>,
}

pub const PROBES: &[Probe] = &[
    Probe {
        name: "noise-0",
        why: "variance 1 at every pixel, as normalised images have: the goldens' own input",
        images: 1,
        mild: true,
        fill: |shape| formula::input(shape, 0),
    },
    Probe {
        name: "noise-1",
        why: "another draw: agreement on one input may be chance",
        images: 1,
        mild: true,
        fill: |shape| formula::input(shape, 1),
    },
    Probe {
        name: "zeros",
        why: "what biases and running means do alone; padding looks like the picture",
        images: 1,
        mild: false,
        fill: |shape| constant(shape, 0.0),
    },
    Probe {
        name: "ones",
        why: "inside equal everywhere, so that what padding does to the border stands out",
        images: 1,
        mild: false,
        fill: |shape| constant(shape, 1.0),
    },
    Probe {
        name: "impulse",
        why: "one pixel off the centre: shifted kernels, flipped axes, a wrong window",
        images: 1,
        mild: true,
        fill: impulse,
    },
    Probe {
        name: "ramp",
        why: "grows along rows, columns and channels at different rates: exchanged axes or channels",
        images: 1,
        mild: true,
        fill: ramp,
    },
    Probe {
        name: "extremes",
        why: "black or white at every pixel, the ends of what normalised images hold: where approximations and \
              formats saturate first",
        images: 1,
        mild: false,
        fill: |shape| {
            formula::input(shape, 2).into_iter().map(|x| if x < 0.0 { BLACK } else { WHITE }).collect()
        },
    },
    Probe {
        name: "batch",
        why: "two images that differ: what mixes them, or is right for one image only",
        images: MOST_IMAGES,
        mild: true,
        fill: |shape| formula::input(shape, 3),
    },
];

/// What the second noise is called where a file's own digest draws it.
pub const OWN_NOISE: &str = "noise-own";

/// Images of the largest row where the batch is free.
pub const MOST_IMAGES: usize = 2;

/// Most elements of an input: the f64 reference holds some 30 times as many bytes.
const MOST_ELEMENTS: usize = 1 << 26;

/// Whether an input of that shape can be run here.
///
/// # Errors
/// It is empty, or too large.
pub fn runnable(shape: &[usize]) -> Result<()> {
    let elements = shape.iter().try_fold(1_usize, |product, &d| product.checked_mul(d));
    match elements {
        Some(0) => {
            Err(Error::new(format!("expected an input of an element at least, found the shape {shape:?}")))
        }
        Some(n) if n <= MOST_ELEMENTS => Ok(()),
        _ => Err(Error::new(format!(
            "an input of the shape {shape:?} is too large to run here; {MOST_ELEMENTS} elements fit"
        ))),
    }
}

/// The darkest and the brightest value of an image that is normalised by ImageNet's mean and deviation, over its three
/// channels: (0 − 0.485) / 0.229 and (1 − 0.406) / 0.225. A quantised file was made for what lies between.
const BLACK: f32 = -2.117_904;
const WHITE: f32 = 2.64;

/// The rows for a graph whose input has the shape `shape`, each with the shape that it takes: those of
/// several images only where the batch is free.
pub fn probes(shape: [usize; 4], free_batch: bool) -> impl Iterator<Item = (&'static Probe, [usize; 4])> {
    let [batch, channels, height, width] = shape;
    PROBES.iter().filter(move |probe| free_batch || probe.images <= batch).map(move |probe| {
        let images = if free_batch { probe.images } else { batch };
        (probe, [images, channels, height, width])
    })
}

fn constant(shape: &[usize], value: f32) -> Vec<f32> {
    vec![value; shape.iter().product()]
}

/// Of each channel one pixel, a third of the way down and two fifths across, with a value of its own.
fn impulse(shape: &[usize]) -> Vec<f32> {
    let mut values = constant(shape, 0.0);
    let [.., height, width] = shape else { return values };
    let at = height / 3 * width + width * 2 / 5;
    for (channel, plane) in values.chunks_exact_mut((height * width).max(1)).enumerate() {
        if let Some(pixel) = plane.get_mut(at) {
            *pixel = WHITE - 0.2 * (channel % 8) as f32;
        }
    }
    values
}

/// From about −1 to about 1 over each image, faster along columns than along rows, each channel higher.
fn ramp(shape: &[usize]) -> Vec<f32> {
    let [.., height, width] = shape else { return constant(shape, 0.0) };
    let (plane, (height, width)) = ((height * width).max(1), (*height as f32, *width as f32));
    let value = |i: usize| {
        let (channel, y, x) = (i / plane, i % plane / shape[shape.len() - 1], i % shape[shape.len() - 1]);
        1.2 * x as f32 / width - 0.8 * y as f32 / height + 0.1 * (channel % 8) as f32 - 0.3
    };
    (0..shape.iter().product()).map(value).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn rows_fill_their_shapes_and_differ() {
        for shape in [[1, 3, 224, 224], [2, 3, 33, 40], [1, 1, 1, 1]] {
            let filled: Vec<Vec<f32>> = PROBES.iter().map(|probe| (probe.fill)(&shape)).collect();
            for (probe, values) in PROBES.iter().zip(&filled) {
                assert_eq!(values.len(), shape.iter().product::<usize>(), "{}", probe.name);
                assert!(values.iter().all(|x| (BLACK..=WHITE).contains(x)), "{}", probe.name);
            }
        }
        let filled =
            PROBES.iter().map(|probe| (probe.fill)(&[3, 3, 32, 32]).iter().map(|x| x.to_bits()).collect());
        let filled: HashSet<Vec<u32>> = filled.collect();
        assert_eq!(filled.len(), PROBES.len());
        let names: HashSet<_> = PROBES.iter().map(|probe| probe.name).collect();
        assert_eq!(names.len(), PROBES.len());
    }

    #[test]
    fn several_images_need_a_batch_that_takes_them() {
        let shapes = |shape, free| {
            probes(shape, free).map(|(probe, shape)| (probe.name, shape[0])).collect::<Vec<_>>()
        };
        assert!(shapes([1, 3, 32, 32], false).iter().all(|&(name, images)| name != "batch" && images == 1));
        assert_eq!(shapes([1, 3, 32, 32], true).last(), Some(&("batch", 2)));
        assert_eq!(shapes([4, 3, 32, 32], false).last(), Some(&("batch", 4)));
    }

    #[test]
    fn an_impulse_is_one_pixel_a_channel() {
        let values = impulse(&[1, 3, 30, 50]);
        let lit: Vec<_> =
            values.iter().enumerate().filter(|(_, x)| **x != 0.0).map(|(i, &x)| (i, x)).collect();
        assert_eq!(lit, [(520, 2.64), (2020, 2.44), (3520, 2.24)]);
    }
}
