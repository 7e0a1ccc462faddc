//! The witnesses of numerics against PyTorch's golden vectors, and mistakes made on purpose.

use emo_exporter::layer::{Act, Norm};
use emo_exporter::models::dense::{self, Head};
use emo_exporter::models::emo::{self, Stage};
use emo_exporter::models::mmb::Attention;
use emo_exporter::models::{Definition, Model, deit, emo2, mobilenetv2};
use emo_exporter::weights::{Weights, formula};
use emo_tests::golden::{CLASSIFICATION, DECODED, DETECTORS, FAMILIES, Golden, SEGMENTERS};
use emo_verifier::compare::FLOAT64;
use emo_verifier::reference::{Map, Mistake, Reference, Source};
use emo_verifier::verify::cause::CAUSES;
use ndarray::Array4;

/// The parameters, the features of every stage and the logits, of every golden.
#[test]
fn the_reference_holds() {
    for name in CLASSIFICATION.iter().chain(&FAMILIES) {
        let golden = Golden::load(name);
        let model = golden.model();
        let parameters = model.parameters();
        if let Some(published) = golden.params {
            let learnt = parameters.iter().filter(|p| !p.name.contains(".running_"));
            let count: usize = learnt.map(|p| p.shape.iter().product::<usize>()).sum();
            assert_eq!(count as u64, published, "{name}: parameters");
        }
        let weights = Weights::formula(golden.seed, &parameters);
        let reference = Reference::new(&model, &weights).expect(name);
        let mut stages = 0;
        let outputs = reference.outputs_with(golden.input().mapv(f64::from), None, |block, map| {
            if let Some(stage) = block.ends() {
                assert_eq!(stage, golden.features[stages].name, "{name}");
                let values = map.as_slice().expect("blocks give maps in standard layout");
                golden.check(stages, values, map.shape(), &FLOAT64).expect(name);
                stages += 1;
            }
        });
        assert_eq!(stages, golden.features.len(), "{name}: stages");
        let [output] = outputs.as_slice() else { panic!("{name}: outputs") };
        assert_eq!(output.name, "logits", "{name}");
        let logits = &output.value;
        let values = logits.as_slice().expect("logits are in standard layout");
        golden.check_logits(values, logits.shape(), &FLOAT64).expect(name);
    }
}

/// The outputs of dense models in a form, against those of their goldens.
fn hold(names: &[&str], form: &str) {
    for name in names {
        let golden = Golden::load(name);
        let model = golden.model();
        let weights = Weights::formula(golden.seed, &model.parameters());
        let reference = Reference::new(&model, &weights).expect(name);
        let outputs = reference.outputs_as(form, &golden.input().mapv(f64::from), None).expect(name);
        assert_eq!(outputs.len(), golden.outputs.len(), "{name}: outputs");
        for (position, output) in outputs.iter().enumerate() {
            let values = output.value.as_slice().expect("outputs are in standard layout");
            golden.check_output(position, values, output.value.shape(), &FLOAT64).expect(name);
        }
    }
}

#[test]
fn the_reference_of_detectors_holds() {
    hold(&DETECTORS, "raw");
}

#[test]
fn the_reference_of_segmenters_holds() {
    hold(&SEGMENTERS, "logits");
}

#[test]
fn decoded_boxes_and_scores_hold() {
    hold(&DECODED, "decoded");
}

/// A segmenter's forms are one network's, and a part's values stand in for the part.
#[test]
fn the_forms_of_a_segmenter_agree() {
    let model = Model::named("segformer-emo2-1m").unwrap();
    let reference = Reference::new(model, &Weights::formula(0, &model.parameters())).unwrap();
    assert_eq!(reference.forms().collect::<Vec<_>>(), ["logits", "logits-small", "labels"]);
    let shape = [1, 3, 64, 96];
    let input = Array4::from_shape_vec(shape, formula::input(&shape, 0)).unwrap().mapv(f64::from);
    let of = |form: &str| reference.outputs_as(form, &input, None).unwrap().remove(0).value;
    let (logits, small, labels) = (of("logits"), of("logits-small"), of("labels"));
    assert_eq!(small.shape(), [1, 150, 16, 24]);
    assert_eq!(logits.shape(), [1, 150, 64, 96]);
    assert_eq!(labels.shape(), [1, 64, 96]);
    for ((n, row, column), &label) in labels.into_dimensionality::<ndarray::Ix3>().unwrap().indexed_iter() {
        let of = |class: usize| logits[[n, class, row, column]];
        let first = (0..150).reduce(|best, class| if of(class) > of(best) { class } else { best });
        assert_eq!(first, Some(label as usize));
    }
    let head = reference.parts().iter().position(|part| part.name() == "decode_head.conv_seg").unwrap();
    let image = input.clone().into_dyn();
    let from = reference.outputs_from("logits", &image, &[(head, &small)], None).unwrap();
    assert_eq!(from[0].value, logits);
    assert!(reference.outputs_as("decoded", &input, None).is_err());
}

/// A backbone's outputs are the maps of the stages that were chosen.
#[test]
fn a_backbone_gives_the_chosen_maps() {
    let network = |stages: Vec<usize>| dense::Network {
        backbone: Box::new(four_stages()),
        head: Head::Maps { stages },
        sizes: &[SIDES],
    };
    let outputs = |stages: Vec<usize>| {
        let definition = Definition::Dense(network(stages));
        let model = Model { name: "small".into(), title: "small".into(), classes: 0, definition };
        let weights = Weights::formula(0, &model.parameters());
        let shape = [1, 3, 64, 96];
        let input = Array4::from_shape_vec(shape, formula::input(&shape, 0)).unwrap().mapv(f64::from);
        Reference::new(&model, &weights).unwrap().outputs(&input, None)
    };
    let all = outputs((0..=4).collect());
    let names: Vec<_> = all.iter().map(|output| output.name.as_ref()).collect();
    assert_eq!(names, ["stage0", "stage1", "stage2", "stage3", "stage4"]);
    let shapes: Vec<_> = all.iter().map(|output| output.value.shape()[2..].to_vec()).collect();
    assert_eq!(shapes, [[32, 48], [16, 24], [8, 12], [4, 6], [2, 3]]);
    assert_eq!(outputs(vec![1, 3]), [all[1].clone(), all[3].clone()]);
}

/// A network of every family, small, whose windows are several and reach past the map of an input of these sides.
fn networks() -> Vec<(Definition, (usize, usize))> {
    let [early, late] = stages();
    let stages = || vec![early, late];
    let rows = [(1, 8, 1), (2, 12, 2)];
    let rows =
        rows.map(|(expansion, dim, depth)| mobilenetv2::Stage { expansion, dim, depth, stride: depth });
    let classifiers = [
        Definition::Emo(emo::Network { stem: 8, stages: stages() }),
        Definition::Emo2(emo2::Network { stem: 8, stages: stages() }),
        Definition::MobileNetV2(mobilenetv2::Network { stem: 8, stages: rows.into(), features: 16 }),
        Definition::Deit(deit::Network { dim: 12, depth: 2, heads: 2, patch: 32, side: SIDES.0 }),
    ];
    // Every map of ODD is of odd sides; a strided level has more than a pixel, bins overlap, dilations end inside.
    const ODD: (usize, usize) = (66, 66);
    let heads = [
        (Head::Ssdlite, (260, 260)),
        (Head::RetinaNet, ODD),
        (Head::DeepLabV3, (1216, 64)),
        (Head::PspNet, (256, 256)),
        (Head::SemanticFpn, ODD),
        (Head::SegFormer { channels: 12 }, ODD),
    ];
    let heads = heads.map(|(head, sides)| {
        let network = dense::Network { backbone: Box::new(four_stages()), head, sizes: &[SIDES] };
        (Definition::Dense(network), sides)
    });
    classifiers.into_iter().map(|definition| (definition, SIDES)).chain(heads).collect()
}

/// A stage that convolves, and one that attends.
fn stages() -> [Stage; 2] {
    let early = Stage {
        depth: 2,
        dim: 12,
        expansion: 2.0,
        kernel: 3,
        norm: Norm::Batch,
        act: Act::Silu,
        attention: None,
    };
    let attention = Some(Attention { head_dim: 4, window: Some(3) });
    [early, Stage { dim: 16, norm: Norm::Layer, act: Act::Gelu, attention, ..early }]
}

fn four_stages() -> Definition {
    let [early, late] = stages();
    Definition::Emo(emo::Network { stem: 8, stages: vec![early, early, late, late] })
}

/// Height and width, of which an eighth is no multiple of 3.
const SIDES: (usize, usize) = (224, 224);

/// A mistake changes what has the part that it is in and nothing else, and some network can make it.
#[test]
fn mistakes_are_made_where_they_can_be() {
    let mut idle: Vec<Mistake> = CAUSES.iter().flat_map(|cause| cause.tries).copied().collect();
    let all = idle.clone();
    for (definition, (height, width)) in networks() {
        let is_dense = matches!(definition, Definition::Dense(_));
        let model = Model { name: "small".into(), title: "small".into(), classes: 10, definition };
        let weights = Weights::formula(0, &model.parameters());
        let reference = Reference::new(&model, &weights).unwrap();
        let shape = [1, 3, height, width];
        let input = Array4::from_shape_vec(shape, formula::input(&shape, 0)).unwrap();
        let image = input.mapv(f64::from).into_dyn();
        let mut made: Vec<Map> = Vec::new();
        for (position, part) in reference.parts().iter().enumerate() {
            let take = |source: &Source| match *source {
                Source::Image => &image,
                Source::Part(at) => &made[at],
            };
            let inputs: Vec<&Map> = part.takes().iter().map(take).collect();
            let given = part.forward(&inputs);
            // Loud enough for the bound of ReLU6.
            let loud: Vec<Map> = inputs.iter().map(|map| map.mapv(|x| 256.0 * x)).collect();
            let loud: Vec<&Map> = loud.iter().collect();
            let truth = part.forward(&loud);
            // Blocks of backbones are the classifiers'.
            let known = is_dense && position < reference.blocks().len();
            for &mistake in all.iter().filter(|_| !known) {
                let changes = part.forward_with(&loud, Some(mistake)) != truth;
                let place = format!("{:?}: {} {mistake:?}", model.definition, part.name());
                assert_eq!(changes, part.can_make(mistake), "{place}");
                idle.retain(|&idle| !changes || idle != mistake);
            }
            made.push(given);
        }
    }
    assert_eq!(idle, [], "mistakes that no network makes");
}
