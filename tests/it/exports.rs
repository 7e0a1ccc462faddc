//! Exported files: their numbers in tract, their counts, their structure, their bytes.

use emo_exporter::Export;
use emo_exporter::builder::Builder;
use emo_exporter::encode::{encode, outline};
use emo_exporter::layer::Form;
use emo_exporter::layer::{Act, Norm};
use emo_exporter::models::mmb::{Attention, Block, MetaMobileBlock};
use emo_exporter::models::{MODELS, Model};
use emo_exporter::profile::{OPSETS, PROFILES, Profile};
use emo_exporter::target::{Batch, Target};
use emo_exporter::weights::{Parameter, Spec, Weights, formula};
use emo_proto::file::OnnxFile;
use emo_proto::tensor::External;
use emo_proto::tensor_proto::DataType;
use emo_tests::golden::{CLASSIFICATION, Golden};
use emo_tests::table;
use emo_tests::{Order, emos};
use emo_verifier::audit::{Audit, audit};
use emo_verifier::compare::FLOAT32;
use emo_verifier::identity::Identity;
use emo_verifier::infer::{Bindings, infer};
use emo_verifier::runtime::{Runtime, Tract};
use emo_verifier::written::{count, findings};
use ndarray::ArrayD;

/// Sizes whose maps divide by the window, that do not, and whose window grid is not square.
const SIZES: [(usize, usize); 6] = [(224, 224), (256, 320), (200, 131), (160, 288), (333, 77), (32, 32)];

/// The published model and the default; `profiles` has the others.
fn requests(variant: &'static Model) -> impl Iterator<Item = Order> {
    let profiles = PROFILES.iter().filter(|p| ["reference", "portable"].contains(&p.name));
    let forms = profiles.flat_map(|p| OPSETS.iter().map(move |o| (p, o)));
    forms.map(move |(profile, opset)| Order::new(variant, profile).with(|t| t.opset = opset))
}

fn export(request: &Order) -> Export {
    request.export(&Spec::Formula(0)).unwrap()
}

fn open(export: &Export) -> OnnxFile {
    OnnxFile::from_bytes(export.bytes.clone().into(), External::none()).unwrap()
}

fn counts(request: &Order) -> Audit {
    audit(&open(&export(request)).model, &Bindings::new())
}

/// The value that a stage's last node writes.
fn stage_output(export: &Export, stage: usize) -> String {
    let prefix = format!("stage{stage}.");
    let last = export.graph.nodes.iter().rfind(|n| n.name.starts_with(&prefix)).unwrap();
    export.graph.value(last.outputs[0]).name.clone()
}

/// Features of all stages and logits, every profile and opset, fixed and free batch.
#[test]
fn tract_equals_the_goldens() {
    for name in CLASSIFICATION {
        let golden = Golden::load(name);
        for request in requests(golden.variant()) {
            let [n, _, height, width] = golden.input;
            for batch in [Batch::Fixed(n), Batch::Dynamic] {
                if batch == Batch::Dynamic && n == 1 {
                    continue;
                }
                let request = request.with(|t| {
                    t.size = (height, width);
                    t.batch = batch;
                });
                let place =
                    format!("{name} {} {}", request.target.profile.name, request.target.opset.version);
                let export = export(&request);
                let mut outputs: Vec<_> = (0..5).map(|stage| stage_output(&export, stage)).collect();
                outputs.push("logits".to_owned());
                let input = ("input".to_owned(), golden.input.to_vec());
                let mut session = Tract.prepare(&open(&export), &[input], &outputs).expect(&place);
                let values = session.run(&[golden.input().into_dyn()]).expect(&place);
                let (logits, features) = values.split_last().unwrap();
                for (stage, feature) in features.iter().enumerate() {
                    let values: Vec<f64> = feature.iter().map(|&x| x.into()).collect();
                    golden.check(stage, &values, feature.shape(), &FLOAT32).expect(&place);
                }
                let values: Vec<f64> = logits.iter().map(|&x| x.into()).collect();
                golden.check_logits(&values, logits.shape(), &FLOAT32).expect(&place);
            }
        }
    }
}

/// Every block, every stage and the total of the published per-module tables.
#[test]
fn reference_files_count_as_published() {
    let tables = table("blocks.json");
    for variant in emos() {
        let rows = tables[&*variant.name].as_object().unwrap();
        for request in requests(variant).filter(|r| r.target.profile.name == "reference") {
            let audit = counts(&request);
            assert!(audit.uncounted.is_empty(), "{:?}", audit.uncounted);
            let mut found: Vec<_> = audit.blocks.iter().chain(&audit.stages()).cloned().collect();
            found.push(("model".to_owned(), audit.totals.clone()));
            for (name, row) in rows {
                let (_, counts) = found.iter().find(|(n, _)| n == name).expect(name);
                let pair = [counts.params.count(), counts.cost.fvcore.count()];
                assert_eq!(pair, [row[0].as_u64(), row[1].as_u64()], "{} {name}", variant.name);
            }
            for (name, _) in &found {
                assert!(rows.contains_key(name), "{}: {name} is in no published table", variant.name);
            }
        }
    }
}

/// Every stage of every EMOv2, as the official module counts it; and what is published at 512 × 512 with windows of 8.
#[test]
fn stages_count_as_the_second_familys_tables_say() {
    let count = |model: &Model, side: usize| {
        let target = Target { size: (side, side), ..Target::new(Profile::reference()) };
        let graph = model.build(&target).unwrap();
        audit(&outline(&graph, target.opset, &[]).unwrap().model, &Bindings::new())
    };
    for (name, stages) in table("emo2_stages.json").as_object().unwrap() {
        let audit = count(Model::named(name).unwrap(), 224);
        for (stage, row) in stages.as_object().unwrap() {
            let (_, counts) = audit.stages().iter().find(|(n, _)| n == stage).cloned().expect(stage);
            let pair = [counts.params.count(), counts.cost.fvcore.count()];
            assert_eq!(pair, [row[0].as_u64(), row[1].as_u64()], "{name} {stage}");
        }
    }
    let large = count(&Model::named("emo2-5m").unwrap().with_window(8), 512);
    assert_eq!(large.totals.cost.fvcore.count(), Some(5_627_331_840));
}

/// Totals, multiply-adds and stored floats of the published table; the printed figures too.
#[test]
fn published_figures_are_the_tables() {
    for row in table("classifiers.json")["models"].as_array().unwrap() {
        let name = row["name"].as_str().unwrap().to_lowercase();
        let p = emo_verifier::models::figures::published(&name).expect(&name);
        assert_eq!(Some(p.exact_params), row["exact_params"].as_u64());
        assert_eq!(Some(p.exact_fvcore), row["exact_flops_fvcore"].as_u64());
        assert_eq!(Some(p.exact_macs), row["exact_macs"].as_u64());
        assert_eq!(p.params, format!("{}M", row["params_m"]));
        assert_eq!(p.flops, format!("{}M", row["flops_m"]));
        assert_eq!(Some(p.top1), row["top1"].as_f64());
        let variant = Model::named(&name).unwrap();
        for (profile, column) in
            [("reference", "stored_floats_with_bn_stats"), ("portable", "floats_after_all_bn_fold")]
        {
            let audit = counts(&Order::new(variant, Profile::named(profile).unwrap()));
            assert_eq!(audit.float_initializers.count(), row[column].as_u64(), "{name} {profile}");
            assert_eq!(audit.totals.cost.macs.count(), row["exact_macs"].as_u64(), "{name} {profile}");
        }
    }
}

/// What `portable` holds plus what its folds removed is what `reference` holds, at any size.
#[test]
fn folds_account_for_every_difference() {
    for variant in emos() {
        for size in SIZES {
            for batch in [Batch::Fixed(1), Batch::Fixed(2), Batch::Dynamic] {
                let counted = |profile: &str| {
                    let request = Order::new(variant, Profile::named(profile).unwrap()).with(|t| {
                        t.size = size;
                        t.batch = batch;
                    });
                    let file = open(&export(&request));
                    let identity = Identity::read(&file.model).unwrap();
                    let (audit, claim) = count(&file.model, &identity);
                    assert!(claim.holds);
                    assert_eq!(findings(&file.model, &identity, &audit, &claim), []);
                    [claim.params, claim.macs, claim.fvcore]
                };
                assert_eq!(counted("portable"), counted("reference"), "{} {size:?} {batch:?}", variant.name);
            }
        }
    }
}

/// The reference profile's initializers are the published state dict, name for name.
#[test]
#[cfg_attr(not(shared), ignore = "needs the files of ../shared")]
fn reference_initializers_are_the_state_dict() {
    let path = emo_tests::fixture("third_party/emo_1m_train.pth");
    let variant = Model::named("emo-1m").unwrap();
    // The checkpoint loads only if it holds exactly these entries.
    let spec = Spec::File(path);
    for request in requests(variant).filter(|r| r.target.profile.name == "reference") {
        let export = request.export(&spec).unwrap();
        let graph = open(&export).model.graph.unwrap();
        let mut names: Vec<_> = graph.initializer.iter().map(emo_proto::TensorProto::name).collect();
        names.sort_unstable();
        assert!(names.iter().copied().eq(export.weights.names()));
    }
}

/// Rank 4 at most in every tensor, and no shape arithmetic where the maps divide.
#[test]
fn portable_files_are_plain() {
    for variant in emos() {
        for request in requests(variant).filter(|r| r.target.profile.name == "portable") {
            for size in SIZES {
                for batch in [Batch::Fixed(1), Batch::Fixed(3), Batch::Dynamic] {
                    let file = open(&export(&request.with(|t| {
                        t.size = size;
                        t.batch = batch;
                    })));
                    let place = format!("{} {size:?} {batch:?}", variant.name);
                    let inference = infer(&file.model, &Bindings::new());
                    for fact in inference.values.values() {
                        assert!(fact.rank().is_some_and(|rank| rank <= 4), "{place}: {fact:?}");
                    }
                    let operators = inference.nodes.iter().map(|n| n.node.op_type());
                    for operator in operators {
                        let shuffles = ["Shape", "Gather", "Einsum", "Expand", "Tile"].contains(&operator);
                        let pads = size == (224, 224) && ["Pad", "Slice"].contains(&operator);
                        assert!(!shuffles && !pads, "{place}: {operator}");
                    }
                }
            }
        }
    }
}

/// `ir_version` is the lowest that may declare the opset.
#[test]
fn files_declare_the_lowest_ir_version() {
    for request in requests(&MODELS[0]) {
        let model = open(&export(&request)).model;
        let expected = if request.target.opset.version == 17 { 8 } else { 9 };
        assert_eq!((model.ir_version(), model.opset_import.len()), (expected, 1));
        assert_eq!(model.opset_import[0].version(), request.target.opset.version);
    }
}

#[test]
fn the_same_request_gives_the_same_bytes() {
    for request in requests(&MODELS[2]) {
        assert_eq!(export(&request).bytes, export(&request).bytes);
    }
}

/// The four values of the Meta Mobile Block: parameters and multiply-adds are the closed formulas
/// of a norm, the expansion, F and the projection, and the block runs.
#[test]
fn the_meta_mobile_block_has_four_values() {
    let (c, lambda, side, k) = (24_usize, 4_usize, 14_usize, 3_usize);
    let (m, n) = (c * lambda, side * side);
    let attention = Attention { head_dim: 8, window: Some(7) };
    let local = |m: usize| (k * k * m + 2 * m, n * k * k * m);
    let attend = |tokens: usize| (2 * c * c + 2 * c, n * 2 * c * c + 2 * n * tokens * c);
    let rows = [
        ("inverted residual", MetaMobileBlock::inverted_residual(4.0, k, 1), m, vec![local(m)]),
        ("attention", MetaMobileBlock::attention(8), c, vec![attend(n)]),
        ("feed-forward", MetaMobileBlock::feed_forward(4.0), m, vec![]),
        ("iRMB", MetaMobileBlock::irmb(4.0, k, 1, Some(attention)), m, vec![attend(49), local(m)]),
    ];
    for (name, mmb, m, operator) in rows {
        let form = Form { profile: Profile::named("reference").unwrap(), opset: &OPSETS[0], half: false };
        let layout = &emo_exporter::models::emo::IRMB;
        let block = Block { mmb, dim_in: c, dim_out: c, norm: Norm::Layer, act: Act::Gelu, layout };
        let mut b = Builder::new(name);
        let x = b.input("input", [1, c, side, side], DataType::Float);
        let y = block.build(&mut b, x, form).unwrap();
        b.output(y, "output");
        let graph = b.finish();
        let parameters: Vec<_> = graph.constants().into_iter().map(|v| graph.value(v)).collect();
        let parameters = parameters.iter().filter(|v| v.is_parameter()).map(|v| Parameter {
            name: v.name.clone(),
            shape: v.shape.0.iter().map(|d| d.at_batch_one()).collect(),
        });
        let weights = Weights::formula(0, &parameters.collect::<Vec<_>>());
        let bytes = encode(&graph, form.opset, &[], &weights).unwrap();
        let file = OnnxFile::from_bytes(bytes.into(), External::none()).unwrap();
        let totals = audit(&file.model, &Bindings::new()).totals;
        // 2 for the norm, the biased expansion, the projection; F adds its own.
        let params = 2 * c + c * m + m + m * c + operator.iter().map(|o| o.0).sum::<usize>();
        let macs = n * c * m + n * m * c + operator.iter().map(|o| o.1).sum::<usize>();
        assert_eq!((totals.params, totals.cost.macs), (params.into(), macs.into()), "{name}");
        let mut session =
            Tract.prepare(&file, &[("input".to_owned(), vec![1, c, side, side])], &[]).expect(name);
        let input = formula::input(&[1, c, side, side], 0);
        let output =
            session.run(&[ArrayD::from_shape_vec(vec![1, c, side, side], input).unwrap()]).expect(name);
        assert!(output[0].iter().all(|x| x.is_finite()), "{name}");
    }
}
