//! Pillow's bicubic resampling of 8-bit pictures, to the bit.
//!
//! The published transform runs on Pillow, whose filter others match to within a few levels only:
//! a = −1/2, support widened when it shrinks, weights rounded to 22-bit fixed point, rows before columns, each
//! pass rounded to 8 bits (Pillow's `Resample.c`).

/// Rows of pixels, red, green and blue interleaved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Picture {
    pub height: usize,
    pub width: usize,
    pub pixels: Vec<u8>,
}

const CHANNELS: usize = 3;
/// Bits of a weight behind the point.
const PRECISION: u32 = 22;
/// The filter is zero beyond this distance.
const SUPPORT: f64 = 2.0;

/// The picture with other sides.
pub(super) fn resized(picture: &Picture, height: usize, width: usize) -> Picture {
    let Picture { height: tall, width: wide, .. } = *picture;
    let mut pixels = picture.pixels.clone();
    if wide != width {
        pixels = pass(
            &pixels,
            &windows(wide, width),
            tall,
            (wide * CHANNELS, CHANNELS),
            (width * CHANNELS, CHANNELS),
        );
    }
    if tall != height {
        let row = width * CHANNELS;
        pixels = pass(&pixels, &windows(tall, height), width, (CHANNELS, row), (CHANNELS, row));
    }
    Picture { height, width, pixels }
}

/// Where a pixel of the result comes from: its first source, and a weight for it and each that follows.
struct Window {
    start: usize,
    weights: Vec<i32>,
}

fn windows(from: usize, to: usize) -> Vec<Window> {
    let scale = from as f64 / to as f64;
    let widening = scale.max(1.0);
    let support = SUPPORT * widening;
    let window = |i: usize| {
        let center = (i as f64 + 0.5) * scale;
        // Casts that saturate clip the window to the picture.
        let start = (center - support + 0.5) as usize;
        let end = ((center + support + 0.5) as usize).min(from);
        let weight = |j: usize| bicubic((j as f64 - center + 0.5) * (1.0 / widening));
        let weights: Vec<f64> = (start..end).map(weight).collect();
        let sum: f64 = weights.iter().sum();
        let fixed = |w: f64| (w / sum * f64::from(1 << PRECISION)).round() as i32;
        Window { start, weights: weights.into_iter().map(fixed).collect() }
    };
    (0..to).map(window).collect()
}

fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < SUPPORT {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// Resamples along one axis each of `lines` lines; a pair of strides is that from line to line, and along one.
fn pass(
    pixels: &[u8],
    windows: &[Window],
    lines: usize,
    source: (usize, usize),
    target: (usize, usize),
) -> Vec<u8> {
    let mut result = vec![0; lines * windows.len() * CHANNELS];
    for line in 0..lines {
        for (i, Window { start, weights }) in windows.iter().enumerate() {
            for channel in 0..CHANNELS {
                let first = line * source.0 + start * source.1 + channel;
                let from = pixels[first..].iter().step_by(source.1);
                let sum: i32 = from.zip(weights).map(|(&p, &w)| i32::from(p) * w).sum();
                let level = (sum + (1 << (PRECISION - 1))) >> PRECISION;
                result[line * target.0 + i * target.1 + channel] = level.clamp(0, 255) as u8;
            }
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Levels that a fixed rule draws, so that Pillow can be given the same picture.
    fn picture(height: usize, width: usize) -> Picture {
        let level = |i: usize| ((i * 7919 + i * i * 31 + 17) >> 3) as u8;
        Picture { height, width, pixels: (0..height * width * CHANNELS).map(level).collect() }
    }

    #[test]
    fn pillow_gives_the_same_levels() {
        let lines = include_str!("bicubic.txt").lines().filter(|line| !line.starts_with('#'));
        let mut cases = 0;
        for line in lines {
            let numbers: Vec<usize> = line.split(' ').map(|n| n.parse().unwrap()).collect();
            let [tall, wide, height, width, ref levels @ ..] = numbers[..] else { panic!("{line}") };
            let found: Vec<usize> =
                resized(&picture(tall, wide), height, width).pixels.into_iter().map(usize::from).collect();
            assert_eq!(found, levels, "{tall}x{wide} to {height}x{width}");
            cases += 1;
        }
        assert_eq!(cases, 8);
    }
}
