//! Dense models against the published parameters and PyTorch's shapes.

use std::collections::HashSet;

use emo_proto::tensor_proto::DataType;

use super::{retinanet, ssdlite};
use crate::graph::{Graph, Shape};
use crate::models::tests::{learnable, stored};
use crate::models::{DENSE, Model};
use crate::op::Op;
use crate::profile::{PROFILES, Profile};
use crate::rewrite::Kind;
use crate::target::{Batch, Output, Suppression, Target};
use crate::weights::Parameter;

fn model(name: &str) -> &'static Model {
    Model::named(name).unwrap_or_else(|| panic!("{name} is a model"))
}

/// Learnable parameters of the modules whose names begin so.
fn group(parameters: &[Parameter], prefix: &str) -> usize {
    learnable(parameters.iter().filter(|p| p.name.starts_with(prefix)))
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
            let groups = ["backbone.", "neck.", ""].map(|prefix| group(&parameters, prefix));
            assert_eq!(groups, [backbones[i], necks[i], backbones[i] + necks[i] + heads[i]], "{name}");
            known += 1;
        }
    }
    let alone = [("emo-6m", 5_846_856), ("emo2-50m", 49_815_560 - 1_024 - 513_000)];
    for (variant, total) in variants.into_iter().zip(backbones).chain(alone) {
        let name = format!("{variant}-backbone");
        assert_eq!(group(&model(&name).parameters(), "stage"), total, "{name}");
        assert_eq!(group(&model(&name).parameters(), ""), total, "{name}");
        known += 1;
    }
    assert_eq!(known, DENSE.len(), "models without a published total");
}

/// What PyTorch's definitions give at a size: each output's channels and sides.
#[test]
fn outputs_are_pytorchs_by_shape() {
    let levels = |channels: [usize; 2], sides: &[(usize, usize)]| -> Vec<[usize; 4]> {
        let level = |channels| sides.iter().map(move |&(h, w)| [1, channels, h, w]);
        channels.into_iter().flat_map(level).collect()
    };
    let small = [(20, 20), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1)];
    let large = [(32, 32), (16, 16), (8, 8), (4, 4), (2, 2), (1, 1)];
    let pyramid = [(40, 56), (20, 28), (10, 14), (5, 7), (3, 4)];
    let cases = [
        ("ssdlite-emo-5m", (320, 320), levels([486, 24], &small)),
        ("ssdlite-emo2-1m", (320, 320), levels([486, 24], &small)),
        ("ssdlite-emo2-5m", (512, 512), levels([486, 24], &large)),
        ("retinanet-emo-2m", (320, 448), levels([720, 36], &pyramid)),
        ("retinanet-emo2-1m", (320, 448), levels([720, 36], &pyramid)),
        ("deeplabv3-emo2-5m", (256, 320), vec![[1, 150, 256, 320]]),
        ("pspnet-emo2-2m", (320, 256), vec![[1, 150, 320, 256]]),
        ("semantic-fpn-emo-1m", (512, 512), vec![[1, 150, 512, 512]]),
        ("segformer-emo2-2m", (512, 512), vec![[1, 150, 512, 512]]),
        (
            "emo-1m-backbone",
            (200, 131),
            vec![[1, 32, 50, 33], [1, 48, 25, 17], [1, 80, 13, 9], [1, 168, 7, 5]],
        ),
    ];
    for (name, size, expected) in cases {
        for profile in &PROFILES {
            let graph = model(name).build(&Target { size, ..Target::new(profile) }).expect(name);
            let found: Vec<Shape> = graph.outputs.iter().map(|&output| graph.shape(output).clone()).collect();
            let expected: Vec<Shape> = expected.iter().copied().map(Shape::from).collect();
            assert_eq!(found, expected, "{name} for {}", profile.name);
        }
    }
}

/// At the published size, at an odd one and, where the target takes it, for any number of images.
#[test]
fn every_target_takes_every_model_and_its_account_closes() {
    let odd = (161, 227);
    for model in &*DENSE {
        let total = learnable(&model.parameters()) as i64;
        for profile in &PROFILES {
            let plain = model.target(profile);
            let mut targets = vec![plain, Target { size: odd, ..plain }];
            targets.push(Target { size: odd, batch: Batch::Dynamic, ..plain });
            targets.push(Target { dtype: DataType::Float16, ..plain });
            let others = &model.output_forms()[1..];
            targets.extend(others.iter().map(|&output| Target { size: odd, output: Some(output), ..plain }));
            for target in targets {
                let at = format!("{} for {}: {target:?}", model.name, profile.name);
                match (target.accept(), model.build(&target)) {
                    (Err(refusal), built) => {
                        assert_eq!(built.unwrap_err().to_string(), refusal.to_string(), "{at}");
                    }
                    (Ok(()), Ok(graph)) => holds(&graph, profile, total, &at),
                    // What no layer of any model is made of, and some runtimes lack.
                    (Ok(()), Err(refusal)) => {
                        let needs: &[&str] = match target.output {
                            Some(Output::Labels) => &["ArgMax"],
                            Some(Output::Nms) => &["TopK", "NonMaxSuppression", "Mod"],
                            _ => &[],
                        };
                        let lacks = needs.iter().any(|op| profile.conditions("", op).is_none());
                        assert!(lacks, "{at}: {refusal}");
                    }
                }
            }
        }
    }
}

fn holds(graph: &Graph, profile: &Profile, total: i64, at: &str) {
    let removed: i64 = graph.rewrites.iter().map(|r| r.parameters).sum();
    assert_eq!(stored(graph) + removed, total, "{at}");
    assert!(graph.values.iter().all(|v| v.shape.rank() <= 4), "{at}");
    let names: HashSet<&str> = graph.nodes.iter().map(|n| n.name.as_str()).collect();
    assert_eq!(names.len(), graph.nodes.len(), "{at}");
    let norms = graph.nodes.iter().filter(|n| matches!(n.op, Op::BatchNormalization { .. }));
    assert_eq!(profile.forms.fold, norms.count() == 0, "{at}: norms");
    for op in graph.nodes.iter().map(|n| n.op.onnx_name()) {
        assert!(profile.conditions("", op).is_some(), "{at}: {op} is not on the row's list");
    }
}

#[test]
fn what_a_model_does_not_give_is_refused() {
    let build = |name, output| {
        let target = model(name).target(Profile::reference());
        model(name).build(&Target { output: Some(output), ..target }).map(|_| ()).map_err(|e| e.to_string())
    };
    assert_eq!(build("pspnet-emo-1m", Output::Labels), Ok(()));
    let why = "output: expected logits or logits-small or labels of pspnet-emo-1m, found raw";
    assert_eq!(build("pspnet-emo-1m", Output::Raw), Err(why.to_owned()));
    let why = "output: expected raw of emo-1m-backbone, found labels";
    assert_eq!(build("emo-1m-backbone", Output::Labels), Err(why.to_owned()));
    let pspnet = model("pspnet-emo-1m");
    let labels = |target| Target { output: Some(Output::Labels), ..target };
    let nnapi = pspnet.build(&labels(pspnet.target(Profile::named("nnapi").unwrap())));
    let why = nnapi.unwrap_err().to_string();
    assert!(why.contains("nnapi takes no ArgMax, which labels needs") && why.contains("qnn"), "{why}");
    let many = pspnet.with_classes(257).build(&labels(pspnet.target(Profile::reference())));
    assert!(many.unwrap_err().to_string().contains("256 classes at most"));
}

/// As many as mmdetection's generators make, and where they lie.
#[test]
fn anchors_are_the_published_ones() {
    let count = |name, size| {
        let target = Target { size, output: Some(Output::Decoded), ..Target::new(Profile::reference()) };
        let graph = model(name).build(&target).unwrap();
        let shapes = graph.outputs.iter().map(|&output| graph.shape(output).clone()).collect::<Vec<_>>();
        let priors = shapes[0].0[1].at_batch_one();
        assert_eq!(shapes, [[1, priors, 4], [1, priors, 80]].map(Shape::from), "{name}");
        priors
    };
    assert_eq!(count("ssdlite-emo-1m", (320, 320)), 3_234);
    assert_eq!(count("retinanet-emo-1m", (320, 448)), 26_883);
    assert_eq!(count("retinanet-emo2-5m", (800, 1344)), 201_600);
    let near = |found: [f64; 2], expected: [f64; 2]| {
        let close = found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9);
        assert!(close, "expected {expected:?}, found {found:?}");
    };
    // Six of a cell: a square, a larger one, then height by width of ½, 2, ⅓ and 3.
    let level = ssdlite::CODER.level(3, 3, 3);
    assert_eq!(level.len(), 54);
    near(level[6].centre, [160.5, 53.5]);
    near(level[6].sides, [202.0, 202.0]);
    near(level[7].sides, [(202.0_f64 * 253.0).sqrt(); 2]);
    near(level[8].sides, [202.0 * 2.0_f64.sqrt(), 202.0 / 2.0_f64.sqrt()]);
    near(level[11].sides, [202.0 / 3.0_f64.sqrt(), 202.0 * 3.0_f64.sqrt()]);
    // Nine of a cell, which lies at a multiple of its stride: three sizes of each shape.
    let level = retinanet::CODER.level(1, 2, 3);
    assert_eq!(level.len(), 54);
    near(level[9 * 4].centre, [16.0, 16.0]);
    near(level[3].sides, [64.0, 64.0]);
    near(level[4].sides, [64.0 * 2.0_f64.cbrt(); 2]);
    near(level[0].sides, [64.0 * 2.0_f64.sqrt(), 64.0 / 2.0_f64.sqrt()]);
}

#[test]
fn kept_boxes_have_a_fixed_number_of_places() {
    let reference = Profile::reference();
    let retinanet = model("retinanet-emo-1m");
    let target = Target { size: (64, 64), output: Some(Output::Nms), ..Target::new(reference) };
    let build = |suppression| retinanet.build(&Target { suppression, ..target }).map_err(|e| e.to_string());
    let none = Suppression::default();
    let shapes = |suppression| -> Vec<Shape> {
        let graph = build(suppression).unwrap();
        graph.outputs.iter().map(|&output| graph.shape(output).clone()).collect()
    };
    let places = |n: usize| vec![[1, n, 4].into(), [1, n].into(), [1, n].into(), [1].into()];
    assert_eq!(shapes(none), places(100));
    assert_eq!(shapes(Suppression { most: Some(7), ..none }), places(7));
    let why = |suppression| build(suppression).unwrap_err();
    assert_eq!(why(Suppression { most: Some(0), ..none }), "detections: expected 1 to 10000, found 0");
    let beyond = Suppression { score_threshold: Some(1.5), ..none };
    assert_eq!(why(beyond), "score threshold: expected 0 to 1, found 1.5");
    let nan = Suppression { iou_threshold: Some(f32::NAN), ..none };
    assert_eq!(why(nan), "IoU threshold: expected 0 to 1, found NaN");
    let several = retinanet.build(&Target { batch: Batch::Fixed(2), ..target }).unwrap_err().to_string();
    assert!(several.contains("expected a batch of 1 for nms"), "{several}");
    let web =
        retinanet.build(&Target { output: Some(Output::Nms), ..Target::new(Profile::named("web").unwrap()) });
    let why = web.unwrap_err().to_string();
    assert!(
        why.contains("takes no Mod, NonMaxSuppression, ScatterND") || why.contains("NonMaxSuppression"),
        "{why}"
    );
}

/// Logits of a map of 8 × 10 cells as two products instead of a resize, which the account tells.
#[test]
fn a_resize_as_products_has_its_entry() {
    let deeplab = model("deeplabv3-emo-1m");
    let target = |name| Target { size: (256, 320), ..Target::new(Profile::named(name).unwrap()) };
    let resizes = |name| -> Vec<(String, i64, i64)> {
        let rewrites = deeplab.build(&target(name)).unwrap().rewrites;
        let resizes = rewrites.into_iter().filter(|r| r.kind == Kind::Resize);
        resizes.map(|r| (r.what, r.macs, r.fvcore)).collect()
    };
    let macs = 150 * 320 * 8 * (10 + 256);
    let entry = ("logits.resize".to_owned(), -macs, 4 * 150 * 256 * 320 - macs);
    assert_eq!(resizes("ort-cpu"), std::slice::from_ref(&entry));
    let pooled = 256 * 10 * (1 + 8);
    let pooled = ("decode_head.image_pool.resize".to_owned(), -pooled, 4 * 256 * 8 * 10 - pooled);
    assert_eq!(resizes("tract"), [pooled, entry]);
    assert_eq!(resizes("portable"), []);
}

#[test]
fn files_tell_their_input_and_their_classes() {
    let told = |name, output: Option<Output>| {
        let target = model(name).target(Profile::reference());
        model(name).interface(&Target { output, ..target })
    };
    let ssdlite = told("ssdlite-emo2-1m", Some(Output::Decoded));
    assert_eq!(ssdlite[0], ("emo.output", "decoded".to_owned()));
    let input = "size 320x320\nkeep_ratio false\nmultiple 1\nchannels RGB\nmean 123.675 116.280 103.530\n\
                 deviation 58.395 57.120 57.375";
    assert_eq!(ssdlite[1], ("emo.input", input.to_owned()));
    for (name, count) in [("retinanet-emo-1m", 80), ("pspnet-emo-5m", 150)] {
        let told = told(name, None);
        let (_, names) = told.iter().find(|(key, _)| *key == "emo.classes").expect(name);
        let names: Vec<&str> = names.split(", ").collect();
        assert_eq!((names.len(), names.iter().collect::<HashSet<_>>().len()), (count, count), "{name}");
        let five = model(name).with_classes(5);
        assert!(
            five.interface(&five.target(Profile::reference())).iter().all(|(key, _)| *key != "emo.classes")
        );
    }
    assert_eq!(told("emo-1m-backbone", None).len(), 2);
    assert_eq!(told("emo-1m", None), []);
}
