//! The witnesses of numerics against PyTorch's golden vectors, and mistakes made on purpose.

use emo_exporter::layer::{Act, Norm};
use emo_exporter::models::emo::{self, Stage};
use emo_exporter::models::mmb::Attention;
use emo_exporter::models::{Definition, Model, deit, emo2, mobilenetv2};
use emo_exporter::weights::{Weights, formula};
use emo_tests::golden::{CLASSIFICATION, FAMILIES, Golden};
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

/// A network of every family, small, whose windows are several and reach past the map of a [`SIDES`] input.
fn networks() -> [Definition; 4] {
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
    let late = Stage { dim: 16, norm: Norm::Layer, act: Act::Gelu, attention, ..early };
    let stages = || vec![early, late];
    let rows = [(1, 8, 1), (2, 12, 2)];
    let rows =
        rows.map(|(expansion, dim, depth)| mobilenetv2::Stage { expansion, dim, depth, stride: depth });
    [
        Definition::Emo(emo::Network { stem: 8, stages: stages() }),
        Definition::Emo2(emo2::Network { stem: 8, stages: stages() }),
        Definition::MobileNetV2(mobilenetv2::Network { stem: 8, stages: rows.into(), features: 16 }),
        Definition::Deit(deit::Network { dim: 12, depth: 2, heads: 2, patch: 32, side: SIDES.0 }),
    ]
}

/// Height and width, of which an eighth is no multiple of 3.
const SIDES: (usize, usize) = (224, 224);

/// A mistake changes what has the part that it is in and nothing else, and some network can make it.
#[test]
fn mistakes_are_made_where_they_can_be() {
    let mut idle: Vec<Mistake> = CAUSES.iter().flat_map(|cause| cause.tries).copied().collect();
    let all = idle.clone();
    for definition in networks() {
        let model = Model { name: "small".into(), title: "small".into(), classes: 10, definition };
        let weights = Weights::formula(0, &model.parameters());
        let reference = Reference::new(&model, &weights).unwrap();
        let shape = [1, 3, SIDES.0, SIDES.1];
        let input = Array4::from_shape_vec(shape, formula::input(&shape, 0)).unwrap();
        let image = input.mapv(f64::from).into_dyn();
        let mut made: Vec<Map> = Vec::new();
        for part in reference.parts() {
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
            for &mistake in &all {
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
