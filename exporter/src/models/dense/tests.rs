//! Dense models against the published parameters and PyTorch's shapes.

use crate::models::{DENSE, Model};
use crate::weights::Parameter;

fn model(name: &str) -> &'static Model {
    Model::named(name).unwrap_or_else(|| panic!("{name} is a model"))
}

/// Learnable parameters of the modules whose names begin so.
fn learnable(parameters: &[Parameter], prefix: &str) -> usize {
    let learnable = parameters.iter().filter(|p| !p.name.contains(".running_") && p.name.starts_with(prefix));
    learnable.map(|p| p.shape.iter().product::<usize>()).sum()
}

/// The backbone, the neck and the head of each model, as the papers' logs sum them.
#[test]
fn every_group_has_the_published_parameters() {
    // EMO-1M, 2M, 5M; EMOv2-1M, 2M, 5M, 20M.
    let variants = ["emo-1m", "emo-2m", "emo-5m", "emo2-1m", "emo2-2m", "emo2-5m", "emo2-20m"];
    let backbones = [1_191_832, 2_176_072, 4_819_272, 1_279_484, 2_182_912, 4_836_864, 19_745_312];
    let pyramid = [2_445_312, 2_463_744, 2_506_752, 2_448_384, 2_463_744, 2_506_752, 2_607_104];
    let rows = [
        (
            "ssdlite",
            [372_288, 380_480, 403_008, 375_360, 380_480, 403_008, 443_968],
            [747_860, 786_164, 854_260, 754_244, 786_164, 854_260, 1_024_500],
        ),
        (
            "retinanet",
            [2_824_192, 2_916_352, 3_158_016, 2_854_912, 2_916_352, 3_158_016, 3_622_912],
            [6_463_220; 7],
        ),
        ("deeplabv3", [0; 7], [4_237_974, 4_475_542, 5_128_854, 4_327_062, 4_475_542, 5_128_854, 6_316_694]),
        ("pspnet", [0; 7], [2_959_510, 3_066_006, 3_358_870, 2_999_446, 3_066_006, 3_358_870, 3_891_350]),
        ("semantic-fpn", pyramid, [1_643_158; 7]),
        ("segformer", [0; 7], [0, 0, 0, 219_750, 493_206, 541_590, 654_486]),
    ];
    let mut known = 0;
    for (head, necks, heads) in rows {
        for (i, variant) in variants.iter().enumerate().filter(|&(i, _)| heads[i] > 0) {
            let name = format!("{head}-{variant}");
            let parameters = model(&name).parameters();
            let groups = ["backbone.", "neck.", ""].map(|prefix| learnable(&parameters, prefix));
            assert_eq!(groups, [backbones[i], necks[i], backbones[i] + necks[i] + heads[i]], "{name}");
            known += 1;
        }
    }
    let alone = [("emo-6m", 5_846_856), ("emo2-50m", 49_815_560 - 1_024 - 513_000)];
    for (variant, total) in variants.into_iter().zip(backbones).chain(alone) {
        let name = format!("{variant}-backbone");
        assert_eq!(learnable(&model(&name).parameters(), "stage"), total, "{name}");
        assert_eq!(learnable(&model(&name).parameters(), ""), total, "{name}");
        known += 1;
    }
    assert_eq!(known, DENSE.len(), "models without a published total");
}
