//! Weights computed from their names, so that a comparison needs no weight file.
//!
//! FNV-1a of the name seeds a splitmix64 stream, one draw an element. The values have
//! the spread of a fresh initialisation, so activations stay of order one.

/// 24 bits of a draw become a float in [0, 1).
const UNIT: f64 = 1.0 / (1u64 << 24) as f64;

/// The parameter `name` of the given shape, row-major.
///
/// `*.running_var` and one-dimensional `*.weight`: uniform in [0.5, 1.5). Any other
/// `*.weight`: uniform with variance 1 / fan-in. Everything else: uniform in [-0.2, 0.2).
pub fn tensor(name: &str, shape: &[usize], seed: u64) -> Vec<f32> {
    let weight = name.ends_with(".weight");
    if name.ends_with(".running_var") || (weight && shape.len() == 1) {
        return fill(name, shape, seed, |u| 0.5 + u);
    }
    let amplitude = if weight {
        let fan_in: usize = shape.iter().skip(1).product();
        (3.0 / fan_in as f64).sqrt()
    } else {
        0.2
    };
    fill(name, shape, seed, |u| (2.0 * u - 1.0) * amplitude)
}

/// A network input of the given shape: uniform with variance 1, row-major.
pub fn input(shape: &[usize], seed: u64) -> Vec<f32> {
    let amplitude = 3f64.sqrt();
    fill("input", shape, seed, |u| (2.0 * u - 1.0) * amplitude)
}

/// `value` of as many draws from [0, 1) as the shape holds; computed in f64, stored in f32.
fn fill(name: &str, shape: &[usize], seed: u64, value: impl Fn(f64) -> f64) -> Vec<f32> {
    let start = fnv1a(name) ^ seed;
    let draw = |i: u64| (splitmix64(start, i) >> 40) as f64 * UNIT;
    let len: usize = shape.iter().product();
    (0..len as u64).map(|i| value(draw(i)) as f32).collect()
}

fn fnv1a(name: &str) -> u64 {
    name.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}

/// Element `index` of the splitmix64 stream that starts at `state`.
fn splitmix64(state: u64, index: u64) -> u64 {
    let mut z = state.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_check_value() {
        let values = tensor("stage0.0.convs.0.0.weight", &[24, 3, 3, 3], 0);
        assert_eq!(values.len(), 648);
        let published = ["0.264550567", "0.288370758", "-0.161428094", "0.0455221348"];
        assert_eq!(values[..4], published.map(|value| value.parse::<f32>().unwrap()));
    }

    #[test]
    fn every_kind_keeps_to_its_range() {
        let cases: [(&str, &[usize], f32, f32); 7] = [
            ("stage1.0.norm.running_var", &[512], 0.5, 1.5),
            ("norm.norm.weight", &[512], 0.5, 1.5),
            ("head.weight", &[8, 75], -0.2, 0.2), // sqrt(3 / 75)
            ("head.bias", &[512], -0.2, 0.2),
            ("stage1.0.ls.gamma", &[1, 512, 1, 1], -0.2, 0.2),
            ("cls_token", &[1, 1, 512], -0.2, 0.2),
            ("pos_embed", &[1, 197, 192], -0.2, 0.2),
        ];
        for (name, shape, low, high) in cases {
            let values = tensor(name, shape, 7);
            assert!(values.iter().all(|v| (low..=high).contains(v)), "{name}");
            let middle = (low + high) / 2.0;
            assert!(values.iter().any(|&v| v < middle) && values.iter().any(|&v| v > middle), "{name}");
        }
    }

    #[test]
    fn seeds_and_names_give_other_values() {
        let values = |name, seed| tensor(name, &[16], seed);
        assert_eq!(values("a.bias", 1), values("a.bias", 1));
        assert_ne!(values("a.bias", 1), values("a.bias", 2));
        assert_ne!(values("a.bias", 1), values("b.bias", 1));
        assert_ne!(input(&[16], 0), input(&[16], 1));
    }
}
