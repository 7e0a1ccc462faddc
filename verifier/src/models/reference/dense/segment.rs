//! What a segmenter makes of its head's logits.

use ndarray::{Array3, Axis, Zip};

use super::layer::size;
use crate::models::reference::Mistake;
use crate::models::reference::ops::planes;
use crate::models::reference::parts::{Junction, Map, Part, Parts, Source};
use crate::models::reference::resize::{linear, linear_can_make};

/// Logits at the head's size and at the input's, and the classes of the input's pixels.
pub fn finish(parts: &mut Parts, small: Source) {
    let logits = parts.push("logits", Enlarge, [small, Source::Image]);
    let labels = parts.push("labels", Labels, [logits]);
    let of = |name: &'static str, source| vec![(name.into(), source)];
    parts.forms = vec![
        ("logits", of("logits", logits)),
        ("logits-small", of("logits", small)),
        ("labels", of("labels", labels)),
    ];
}

/// The first map, bilinearly at the size of the second.
struct Enlarge;

impl Junction for Enlarge {
    fn forward(&self, maps: &[&Map], mistake: Option<Mistake>) -> Map {
        let [x, image] = maps else { panic!("expected a map and an image, found {} maps", maps.len()) };
        linear(&planes(x), size(image), mistake).into_dyn()
    }

    fn can_make(&self, mistake: Mistake) -> bool {
        linear_can_make(mistake)
    }
}

/// The channel with the largest value of each pixel, [N, H, W]; of equal ones the first.
struct Labels;

impl Part for Labels {
    fn forward(&self, x: &Map, _: Option<Mistake>) -> Map {
        let x = planes(x);
        let (n, _, height, width) = x.dim();
        let mut labels = Array3::zeros((n, height, width));
        let mut largest = Array3::from_elem((n, height, width), f64::NEG_INFINITY);
        for (class, plane) in x.axis_iter(Axis(1)).enumerate() {
            Zip::from(&mut labels).and(&mut largest).and(plane).for_each(|label, largest, &x| {
                if x > *largest {
                    (*label, *largest) = (class as f64, x);
                }
            });
        }
        labels.into_dyn()
    }

    fn can_make(&self, _: Mistake) -> bool {
        false
    }
}
