//! Pictures as the network takes them, by the published test transform: resized so that the network sees
//! its middle 224 of 256 parts, cropped, scaled to 0…1, normalised by ImageNet's mean and deviation.

use std::io::Cursor;
use std::path::Path;

use emo_proto::{Bytes, Error, Result, file};
use ndarray::{Array4, ArrayD};

use super::bicubic::{Picture, resized};
use crate::image::{DEVIATION, MEAN};

/// A picture of 224 is the middle of one of 256.
const CROP: usize = 224;
const WHOLE: usize = 256;
/// Pixels beyond which a picture is held to be a trap: 8,192 × 4,096, above any of ImageNet.
const MOST_PIXELS: usize = 1 << 25;
/// What a PNG file starts with.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

/// The picture (PNG or JPEG) at `path` as the network input `[1, 3, height, width]`.
///
/// # Errors
/// It cannot be read or decoded; names the path.
pub fn image(path: &Path, size: (usize, usize)) -> Result<ArrayD<f32>> {
    let input = input(&decode(path)?, size).map_err(|error| error.at(path.display()))?;
    Ok(input.into_dyn())
}

fn decode(path: &Path) -> Result<Picture> {
    let error = |cause: &dyn std::fmt::Display| Error::new(cause).at(path.display());
    let bytes = plain(file::map(path)?);
    let open = || image::ImageReader::new(Cursor::new(&bytes)).with_guessed_format();
    let (width, height) =
        open().map_err(|cause| error(&cause))?.into_dimensions().map_err(|cause| error(&cause))?;
    if u64::from(width) * u64::from(height) > MOST_PIXELS as u64 {
        let found = format!("expected {MOST_PIXELS} pixels at most, found {width} by {height}");
        return Err(error(&found));
    }
    let mut reader = open().map_err(|cause| error(&cause))?;
    let mut limits = image::Limits::default();
    limits.max_alloc = Some(MOST_PIXELS as u64 * 8);
    reader.limits(limits);
    let picture = reader.decode().map_err(|cause| error(&cause))?.into_rgb8();
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    if width == 0 || height == 0 {
        return Err(error(&"expected a picture, found one without pixels"));
    }
    Ok(Picture { height, width, pixels: picture.into_raw() })
}

/// A PNG file without what pixels do not need: profiles and texts are packed, and unpack to a thousand times
/// their size. Any other file as it is.
fn plain(file: Bytes) -> Bytes {
    let Some(mut rest) = file.strip_prefix(PNG) else { return file };
    let mut kept = PNG.to_vec();
    // A length, a name, so many bytes and a checksum.
    while let Some((length, name)) = rest.first_chunk().zip(rest.get(4..8)) {
        let end = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX).saturating_add(12);
        let (chunk, after) = rest.split_at(end.min(rest.len()));
        // Small letters first: what a reader need not know. Transparency is of the pixels.
        if name[0].is_ascii_uppercase() || name == b"tRNS" {
            kept.extend(chunk);
        }
        rest = after;
    }
    kept.into()
}

/// The middle of the picture, resized and normalised.
fn input(picture: &Picture, (height, width): (usize, usize)) -> Result<Array4<f32>> {
    let (tall, wide) = whole(picture, (height, width));
    if tall.checked_mul(wide).is_none_or(|pixels| pixels > MOST_PIXELS) {
        let (h, w) = (picture.height, picture.width);
        return Err(Error::new(format!(
            "expected sides of like length, found {h} and {w}; crop the picture"
        )));
    }
    let picture = resized(picture, tall, wide);
    let (top, left) = (middle(tall, height), middle(wide, width));
    Ok(Array4::from_shape_fn((1, 3, height, width), |(_, channel, y, x)| {
        let value = picture.pixels[((top + y) * wide + left + x) * 3 + channel];
        (f32::from(value) / 255.0 - MEAN[channel] as f32) / DEVIATION[channel] as f32
    }))
}

/// Height and width of the resized picture: its sides keep their ratio, and the shorter side, measured by the
/// crop's, is as long as the published transform has it.
fn whole(picture: &Picture, (height, width): (usize, usize)) -> (usize, usize) {
    let (tall, wide) = (picture.height, picture.width);
    let larger = |side: usize| side * WHOLE / CROP;
    if tall * width <= wide * height {
        let side = larger(height);
        (side, (side * wide / tall).max(width))
    } else {
        let side = larger(width);
        ((side * tall / wide).max(height), side)
    }
}

/// Where a crop starts: the published transform rounds a half to even.
fn middle(whole: usize, crop: usize) -> usize {
    let twice = whole.saturating_sub(crop);
    let half = twice / 2;
    if twice % 2 == 1 { half + half % 2 } else { half }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_the_published_ones() {
        let picture = |height, width| Picture { height, width, pixels: Vec::new() };
        // torchvision's Resize(256): the shorter side is 256, the longer one int(256 * longer / shorter).
        assert_eq!(whole(&picture(375, 500), (224, 224)), (256, 341));
        assert_eq!(whole(&picture(500, 375), (224, 224)), (341, 256));
        assert_eq!(whole(&picture(10, 10), (224, 224)), (256, 256));
        assert_eq!(whole(&picture(300, 400), (448, 448)), (512, 682));
        assert!(input(&picture(1, 1 << 20), (224, 224)).is_err());
        // A crop of another ratio fits all the same.
        assert_eq!(whole(&picture(300, 300), (200, 131)), (228, 228));
        assert_eq!(whole(&picture(100, 1000), (200, 131)), (228, 2280));
    }

    #[test]
    fn a_crop_starts_where_python_rounds_to() {
        for (whole, crop, start) in
            [(256, 224, 16), (341, 224, 58), (227, 224, 2), (225, 224, 0), (224, 224, 0)]
        {
            assert_eq!(middle(whole, crop), start, "{whole} {crop}");
        }
    }

    #[test]
    fn one_colour_stays_itself() {
        let picture = Picture { height: 40, width: 60, pixels: [255, 0, 51].repeat(40 * 60) };
        let input = input(&picture, (32, 48)).unwrap();
        assert_eq!(input.shape(), [1, 3, 32, 48]);
        for (channel, level) in [1.0, 0.0, 0.2_f32].into_iter().enumerate() {
            let expected = (level - MEAN[channel] as f32) / DEVIATION[channel] as f32;
            let plane = input.index_axis(ndarray::Axis(1), channel);
            assert!(plane.iter().all(|&x| x == expected), "{channel}");
        }
    }
}
