//! Models against PyTorch's state dicts and published totals.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;

use emo_proto::tensor_proto::DataType;
use sha2::{Digest, Sha256};

use super::mmb::{Block, MetaMobileBlock};
use super::{Definition, MODELS, Model, deit, mobilenetv2};
use crate::builder::Builder;
use crate::graph::{Graph, Source};
use crate::layer::{Act, Norm};
use crate::profile::{PROFILES, Profile};
use crate::rewrite::Kind;
use crate::target::{Batch, Target};
use crate::weights::Parameter;

/// Written from PyTorch's state dicts, not from our files.
const PUBLISHED: &str = include_str!("../../tests/data/parameters.txt");

fn model(name: &str) -> &'static Model {
    Model::named(name).unwrap_or_else(|| panic!("{name} is a model"))
}

/// The models of the table with their number of entries, learnable parameters and digest.
fn published() -> impl Iterator<Item = (&'static Model, usize, usize, &'static str)> {
    PUBLISHED.lines().filter_map(|line| line.strip_prefix("model ")).map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        (model(words[0]), words[1].parse().unwrap(), words[2].parse().unwrap(), words[3])
    })
}

pub(super) fn learnable<'a>(parameters: impl IntoIterator<Item = &'a Parameter>) -> usize {
    let learnable = parameters.into_iter().filter(|p| !p.name.contains(".running_"));
    learnable.map(|p| p.shape.iter().product::<usize>()).sum()
}

/// A line an entry, as the table has them.
fn lines(model: &Model) -> Vec<String> {
    let line = |p: Parameter| {
        let extents: Vec<String> = p.shape.iter().map(ToString::to_string).collect();
        format!("{} {}", p.name, extents.join("x"))
    };
    let mut lines: Vec<String> = model.parameters().into_iter().map(line).collect();
    lines.sort();
    lines
}

#[test]
fn entries_are_the_published_ones_by_name_and_shape() {
    let mut entries = BTreeMap::<&str, Vec<&str>>::new();
    let mut name = "";
    for line in PUBLISHED.lines().skip_while(|line| !line.starts_with("entries ")) {
        match line.strip_prefix("entries ") {
            Some(next) => name = next,
            None => entries.entry(name).or_default().push(line),
        }
    }
    assert_eq!(entries.len(), 3, "a model of each family");
    for (name, entries) in entries {
        assert_eq!(lines(model(name)), entries, "{name}");
    }
}

#[test]
fn every_row_has_the_published_entries() {
    for (model, count, total, digest) in published() {
        let parameters = model.parameters();
        assert_eq!((parameters.len(), learnable(&parameters)), (count, total), "{}", model.name);
        let text = lines(model).iter().fold(String::new(), |text, line| text + line + "\n");
        let found = Sha256::digest(text).iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").unwrap();
            hex
        });
        assert_eq!(found, digest, "{}", model.name);
    }
    assert_eq!(published().count() + 4, MODELS.len(), "EMO's four are held to goldens elsewhere");
}

/// Stem, stages 1 to 4, final norm, head: the module tables of EMOv2's logs.
#[test]
fn stages_of_emov2_have_the_published_parameters() {
    let rows = [
        ("emo2-1m", [912, 10_912, 32_416, 453_344, 781_900, 360, 181_000]),
        ("emo2-2m", [912, 16_896, 47_440, 1_063_704, 1_053_960, 400, 201_000]),
        ("emo2-5m", [1_560, 33_792, 117_528, 2_347_824, 2_336_160, 576, 289_000]),
        ("emo2-20m", [2_336, 56_320, 303_616, 13_225_280, 6_157_760, 896, 449_000]),
        ("emo2-50m", [2_336, 96_640, 850_816, 29_423_872, 18_927_872, 1_024, 513_000]),
    ];
    let modules = ["stage0.", "stage1.", "stage2.", "stage3.", "stage4.", "norm.", "head."];
    for (name, totals) in rows {
        let parameters = model(name).parameters();
        let found = modules.map(|m| learnable(parameters.iter().filter(|p| p.name.starts_with(m))));
        assert_eq!(found, totals, "{name}");
    }
}

/// Elements that are learnt, of the initializers of a file.
pub(super) fn stored(graph: &Graph) -> i64 {
    let constants = graph.constants().into_iter().map(|v| graph.value(v));
    let weights = constants.filter(|v| !matches!(v.constant, Some(Source::Numbers(_))));
    let learnt = weights.filter(|v| !v.name.contains(".running_"));
    learnt.map(|v| v.shape.elements().unwrap().at_batch_one() as i64).sum()
}

/// What a file stores and what its account says was taken out are the published parameters; no
/// value has more than four axes, no two nodes have one name, and the row lists their operators.
#[test]
fn every_target_takes_every_model_and_its_account_closes() {
    for (model, _, total, _) in published() {
        let sizes: &[_] = if matches!(model.definition, Definition::Deit(_)) {
            &[(224, 224)]
        } else {
            &[(224, 224), (64, 97)]
        };
        for (profile, &size) in PROFILES.iter().flat_map(|p| sizes.iter().map(move |size| (p, size))) {
            let at = format!("{} for {} at {size:?}", model.name, profile.name);
            let graph = model.build(&Target { size, ..Target::new(profile) }).expect(&at);
            let removed: i64 = graph.rewrites.iter().map(|r| r.parameters).sum();
            assert_eq!(stored(&graph) + removed, total as i64, "{at}");
            assert!(graph.values.iter().all(|v| v.shape.rank() <= 4), "{at}");
            let names: HashSet<&str> = graph.nodes.iter().map(|n| n.name.as_str()).collect();
            assert_eq!(names.len(), graph.nodes.len(), "{at}");
            for op in graph.nodes.iter().map(|n| n.op.onnx_name()) {
                assert!(profile.conditions("", op).is_some(), "{at}: {op} is not on the row's list");
            }
            if profile == Profile::reference() {
                assert!(graph.rewrites.is_empty(), "{at}: {:?}", graph.rewrites);
            }
        }
    }
}

#[test]
fn the_batch_may_be_free_or_several() {
    for (model, batch) in published().flat_map(|(m, ..)| [(m, Batch::Dynamic), (m, Batch::Fixed(3))]) {
        for profile in &PROFILES {
            let target = Target { batch, ..Target::new(profile) };
            match (target.accept(), model.build(&target)) {
                (Ok(()), built) => assert!(built.is_ok(), "{} for {}: {built:?}", model.name, profile.name),
                (Err(refusal), built) => assert_eq!(built.unwrap_err().to_string(), refusal.to_string()),
            }
        }
    }
}

/// At 224 × 224 pixels the last stage of EMOv2-1M is one window of 7 × 7 tokens, whose 180 channels weigh 630 values.
#[test]
fn one_window_attends_once() {
    let portable = Target::new(Profile::named("portable").unwrap());
    let spared = |model: &Model| -> Vec<(String, i64)> {
        let graph = model.build(&portable).unwrap();
        let once = graph.rewrites.into_iter().filter(|r| r.kind == Kind::Pattern);
        once.map(|r| (r.what, r.macs)).collect()
    };
    let macs = 49 * 49 * (180 + 630);
    let attention = |j: usize| (format!("stage4.{j}.eops.0.attn"), macs);
    assert_eq!(spared(model("emo2-1m")), [attention(1), attention(2)]);
    assert_eq!(spared(&model("emo2-1m").with_window(4)), []);
}

#[test]
fn a_window_is_that_of_every_stage_that_attends() {
    let windows = |model: &Model| -> HashSet<Option<usize>> {
        model.blocks().iter().filter_map(|(_, b)| b.mmb.operator.attention).map(|a| a.window).collect()
    };
    for name in ["emo-1m", "emo2-1m"] {
        assert_eq!(windows(&model(name).with_window(8)), HashSet::from([Some(8)]), "{name}");
    }
    assert_eq!(windows(&model("deit-tiny").with_window(8)), HashSet::from([None]));
    assert_eq!(model("mobilenetv2-100").with_window(8), *model("mobilenetv2-100"));
    let none = model("emo2-1m").with_window(0).build(&Target::new(Profile::reference()));
    let why = none.unwrap_err().to_string();
    assert!(why.contains("window: expected 1 to 64 tokens a side, found 0"), "{why}");
}

#[test]
fn places_have_their_embeddings() {
    let build = |size| model("deit-tiny").build(&Target { size, ..Target::new(Profile::reference()) });
    for size in [(256, 256), (224, 240)] {
        let why = build(size).unwrap_err().to_string();
        assert!(why.contains("expected 224x224 pixels"), "{why}");
    }
    assert!(build((224, 224)).is_ok());
}

/// A block that its family cannot publish is refused: nothing of it is left out.
#[test]
fn a_layout_names_all_parts_of_a_block() {
    let form = Target::new(Profile::reference()).form();
    let attends = MetaMobileBlock::attention(8);
    let cases = [
        (attends, &mobilenetv2::SEPARABLE, "attention"),
        (MetaMobileBlock::inverted_residual(1.0, 3, 1), &deit::ATTENTION, "a depthwise convolution"),
        (MetaMobileBlock::inverted_residual(2.0, 3, 1), &mobilenetv2::SEPARABLE, "16 channels"),
    ];
    for (mmb, layout, expected) in cases {
        let block = Block { mmb, dim_in: 16, dim_out: 16, norm: Norm::Batch, act: Act::Relu6, layout };
        let mut b = Builder::new("block");
        let x = b.input("input", [1, 16, 14, 14], DataType::Float);
        let why = b.within("blocks.0", |b| block.build(b, x, form)).unwrap_err().to_string();
        assert!(why.contains("blocks.0") && why.contains(expected), "{why}");
    }
}

#[test]
fn the_smallest_maps_are_built() {
    for name in ["emo-1m", "emo2-1m", "mobilenetv2-100"] {
        let build =
            |side| model(name).build(&Target { size: (side, 224), ..Target::new(Profile::reference()) });
        assert!(build(32).is_ok() && build(31).is_err(), "{name}");
    }
}
