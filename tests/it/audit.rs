//! `emo audit` and `emo diff` as users and their pipelines meet them.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use emo_proto::tensor::{DataType, Tensor};
use emo_proto::tensor_shape_proto::{Dimension, dimension::Value as Extent};
use emo_proto::{
    AttributeProto, GraphProto, Message as _, ModelProto, NodeProto, OperatorSetIdProto,
    StringStringEntryProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};
use emo_tests::fixture;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::command::{EMO, emo, emo_with, json_of, refused};

fn dims(extents: &[&str]) -> TensorShapeProto {
    let dim = |extent: &&str| {
        let value = extent.parse().map_or_else(|_| Extent::DimParam((*extent).into()), Extent::DimValue);
        Dimension { value: Some(value), ..Default::default() }
    };
    TensorShapeProto { dim: extents.iter().map(dim).collect() }
}

/// A FLOAT value; without a shape where there are no extents.
fn value(name: &str, extents: Option<&[&str]>) -> ValueInfoProto {
    let tensor = type_proto::Tensor { elem_type: Some(DataType::Float.into()), shape: extents.map(dims) };
    let value = Some(type_proto::Value::TensorType(tensor));
    ValueInfoProto {
        name: Some(name.into()),
        r#type: Some(TypeProto { value, ..Default::default() }),
        ..Default::default()
    }
}

fn node(op: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: Some(op.into()),
        name: Some(format!("net.{output}")),
        input: inputs.iter().map(ToString::to_string).collect(),
        output: vec![output.into()],
        ..Default::default()
    }
}

fn model(inputs: Vec<ValueInfoProto>, initializer: Vec<TensorProto>, node: Vec<NodeProto>) -> ModelProto {
    let output = node.last().map(|last| value(&last.output[0], None)).into_iter().collect();
    let graph = GraphProto {
        name: Some("net".into()),
        input: inputs,
        output,
        initializer,
        node,
        ..Default::default()
    };
    let opset = OperatorSetIdProto { version: Some(17), ..Default::default() };
    ModelProto { ir_version: Some(8), graph: Some(graph), opset_import: vec![opset], ..Default::default() }
}

fn write(folder: &TempDir, name: &str, model: &ModelProto) -> PathBuf {
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, model.encode_to_vec()).unwrap();
    path
}

fn weight(name: &str, extents: &[usize]) -> TensorProto {
    Tensor::from_f32(extents.to_vec(), vec![0.5; extents.iter().product()]).unwrap().encode(name)
}

/// `images [batch, 3, height, width]`, a 3 × 3 convolution to 8 channels with a bias, a ReLU:
/// 3·3·3·8 + 8 = 224 parameters, 216 multiply-adds an output position.
fn convolution() -> ModelProto {
    let mut conv = node("Conv", &["images", "w", "b"], "conv");
    let pads = AttributeProto {
        name: Some("pads".into()),
        r#type: Some(emo_proto::attribute_proto::AttributeType::Ints.into()),
        ints: vec![1; 4],
        ..Default::default()
    };
    conv.attribute.push(pads);
    let inputs = vec![value("images", Some(&["batch", "3", "height", "width"]))];
    model(
        inputs,
        vec![weight("w", &[8, 3, 3, 3]), weight("b", &[8])],
        vec![conv, node("Relu", &["conv"], "y")],
    )
}

/// The same with an operator that nobody knows before the convolution's output is used.
fn with_unknown() -> ModelProto {
    let mut model = convolution();
    let graph = model.graph.as_mut().unwrap();
    graph.input = vec![value("images", Some(&["1", "3", "8", "8"]))];
    graph.node.push(node("Frobnicate", &["y"], "z"));
    graph.node.push(node("MatMul", &["z", "z"], "out"));
    graph.output = vec![value("out", None)];
    model
}

fn export(folder: &TempDir, arguments: &[&str], name: &str) {
    let (code, _, stderr) = emo(folder, &[&["export"], arguments, &["--no-verify", "-o", name]].concat());
    assert_eq!(code, 0, "{stderr}");
}

#[test]
fn every_grouping_adds_up_to_the_totals() {
    let folder = TempDir::new().unwrap();
    export(&folder, &["emo-1m", "--target", "reference"], "m.onnx");
    for by in ["op", "node", "block", "scope"] {
        let audit = json_of(&folder, 0, &["audit", "m.onnx", "--by", by, "--depth", "1"]);
        assert_eq!(audit["totals"]["params"], 1_361_168);
        assert_eq!(audit["totals"]["macs"], 255_237_672);
        assert_eq!(audit["totals"]["flops"], 2 * 255_237_672_u64);
        assert_eq!(audit["totals"]["fvcore"], 260_843_664);
        assert_eq!(audit["uncounted"], json!([]));
        for figure in ["params", "macs", "flops", "fvcore", "mmcv"] {
            let groups = audit["groups"].as_array().unwrap();
            let sum: u64 = groups.iter().map(|group| group[figure].as_u64().unwrap()).sum();
            assert_eq!(audit["totals"][figure], sum, "{by} {figure}");
        }
        assert_eq!(audit["stored"]["by_type"][0]["dtype"], "float");
        // Beside the initializers there are five lone numbers, as Constant nodes.
        assert_eq!(audit["float_initializers"], 1_369_824);
        assert_eq!(audit["stored"]["by_type"][0]["elements"], 1_369_824 + 5);
    }
    let blocks = json_of(&folder, 0, &["audit", "m.onnx", "--by", "block"]);
    let block = |name: &str| {
        let groups = blocks["groups"].as_array().unwrap();
        groups.iter().find(|group| group["name"] == name).unwrap().clone()
    };
    assert_eq!(block("head")["params"], 169_000);
    let (_, text, _) = emo(&folder, &["audit", "m.onnx"]);
    assert_eq!(text.lines().next(), Some("m.onnx  params 1,361,168  macs 255,237,672  fvcore 260,843,664"));
}

#[test]
fn conventions_are_explained() {
    let folder = TempDir::new().unwrap();
    export(&folder, &["emo-1m", "--target", "reference"], "m.onnx");
    let audit = json_of(&folder, 0, &["audit", "m.onnx", "--explain"]);
    let explained = audit["explain"].as_array().unwrap();
    for figure in ["macs", "flops", "fvcore", "mmcv"] {
        let sum: u64 = explained.iter().map(|row| row[figure].as_u64().unwrap()).sum();
        assert_eq!(audit["totals"][figure], sum, "{figure}");
    }
    let norm = explained.iter().find(|row| row["work"] == "batch norm").unwrap();
    assert_eq!((&norm["macs"], &norm["fvcore"]), (&json!(0), &json!(4_667_152)));
    assert_eq!(norm["rules"][2], json!({ "convention": "fvcore", "how": "2 an element" }));
    let (_, text, _) = emo(&folder, &["audit", "m.onnx", "--explain"]);
    assert!(text.contains("batch norm") && text.contains("2 an element"), "{text}");
}

#[test]
fn open_sizes_give_formulas_and_given_ones_numbers() {
    let folder = TempDir::new().unwrap();
    write(&folder, "c.onnx", &convolution());
    let open = json_of(&folder, 0, &["audit", "c.onnx"]);
    assert_eq!(open["totals"]["macs"], "216·batch·height·width");
    assert_eq!(open["totals"]["params"], 224);
    assert_eq!(open["peak_memory"]["bytes"], "64·batch·height·width");
    let (_, text, _) = emo(&folder, &["audit", "c.onnx", "--dim", "height=640", "--dim", "width=640"]);
    assert!(text.starts_with("c.onnx  params 224  macs 8.85e7·batch  fvcore 8.85e7·batch\n"), "{text}");
    let macs = 2 * 216 * 640 * 480_u64;
    for sizes in [
        &["--input", "images=2,3,640,480"][..],
        &["--input", "images=2x3x640x480"],
        &["--dim", "batch=2", "--dim", "height=640", "--dim", "width=480"],
        &["--dim", "images.0=2", "--dim", "height=640", "--dim", "width=480"],
    ] {
        let audit = json_of(&folder, 0, &[&["audit", "c.onnx"], sizes].concat());
        assert_eq!(audit["totals"]["macs"], macs, "{sizes:?}");
        assert_eq!(audit["outputs"][0]["shape"], json!([2, 8, 640, 480]), "{sizes:?}");
    }
    // An input may declare no shape at all.
    let mut bare = convolution();
    bare.graph.as_mut().unwrap().input = vec![value("images", None)];
    write(&folder, "bare.onnx", &bare);
    let audit = json_of(&folder, 0, &["audit", "bare.onnx", "--input", "images=2,3,640,480"]);
    assert_eq!(audit["totals"]["macs"], macs);
}

#[test]
fn what_cannot_be_counted_is_said() {
    let folder = TempDir::new().unwrap();
    write(&folder, "u.onnx", &with_unknown());
    let audit = json_of(&folder, 3, &["audit", "u.onnx"]);
    assert_eq!((&audit["verdict"], &audit["lower_bound"]), (&json!("undecided"), &json!(true)));
    assert_eq!(audit["totals"]["macs"], 216 * 64);
    let uncounted = audit["uncounted"].as_array().unwrap();
    let names: Vec<&str> = uncounted.iter().map(|u| u["node"].as_str().unwrap()).collect();
    assert_eq!(names, ["net.z", "net.out"]);
    let (code, text, _) = emo(&folder, &["audit", "u.onnx"]);
    assert_eq!(code, 3);
    for words in [
        "macs at least 13,824",
        "net.z",
        "Frobnicate of ai.onnx is no operator that is known",
        "--allow-unknown",
    ] {
        assert!(text.contains(words), "expected {words:?} in: {text}");
    }
    let allowed = json_of(&folder, 0, &["audit", "u.onnx", "--allow-unknown"]);
    assert_eq!((&allowed["verdict"], &allowed["lower_bound"]), (&json!("pass"), &json!(true)));
}

#[test]
fn budgets_are_kept_or_broken() {
    let folder = TempDir::new().unwrap();
    write(&folder, "u.onnx", &with_unknown());
    write(&folder, "c.onnx", &convolution());
    let budget = |text: &str| fs::write(folder.path().join("b.toml"), text).unwrap();
    let known = ["--input", "images=1,3,8,8"];
    for (limits, file, code, words) in [
        ("params = 224\nmacs = 13824\nhighest_rank = 4", "c.onnx", 0, &[][..]),
        (
            "params = 223",
            "c.onnx",
            1,
            &["params", "expected 223 at most, found 224, 1 too many", "look at net.conv"],
        ),
        ("macs = 100", "c.onnx", 1, &["found 13,824"]),
        ("highest_rank = 3", "c.onnx", 1, &["highest_rank", "expected 3 at most, found 4"]),
        ("peak_memory = 100", "c.onnx", 1, &["peak_memory", "look at net.y"]),
        ("file_size = 10", "c.onnx", 1, &["file_size", "float"]),
        ("opset = { min = 18 }", "c.onnx", 1, &["expected 18 at least, found 17"]),
        ("ir_version = 7", "c.onnx", 1, &["expected 7 at most, found 8"]),
        ("[operators]\ndeny = [\"Relu\"]", "c.onnx", 1, &["operator Relu", "is denied", "net.y"]),
        ("[operators]\nallow = [\"Conv\"]", "c.onnx", 1, &["operator Relu", "not among those allowed"]),
        ("[scopes.net]\nmacs = 5", "c.onnx", 1, &["net, macs", "look at net.conv (13,824)"]),
        (
            "[scopes.nett]\nmacs = 5",
            "c.onnx",
            1,
            &["expected a module of this path, found none; did you mean net?"],
        ),
        // A lower bound breaks a limit all the same; one that keeps it is undecided.
        ("macs = 100", "u.onnx", 1, &["expected 100 at most, found at least 13,824"]),
        ("macs = 200000", "u.onnx", 3, &["found 13,824 and 2 nodes that could not be counted"]),
    ] {
        budget(limits);
        let (found, text, stderr) =
            emo(&folder, &[&["audit", file, "--budget", "b.toml"], &known[..]].concat());
        assert_eq!(found, code, "{limits}: {text}{stderr}");
        for word in words {
            assert!(text.contains(word), "{limits}: expected {word:?} in: {text}");
        }
    }
    // Without sizes there is a formula, and no verdict.
    budget("macs = 100");
    let (code, text, _) = emo(&folder, &["audit", "c.onnx", "--budget", "b.toml"]);
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("give the sizes of (--dim NAME=N) batch, height, width"), "{text}");
    fs::write(folder.path().join("b.json"), r#"{ "params": 1, "macs": 1 }"#).unwrap();
    let both = json_of(&folder, 1, &["audit", "c.onnx", "--budget", "b.json", "--input", "images=1,3,8,8"]);
    assert_eq!(both["findings"].as_array().unwrap().len(), 2);
}

#[test]
fn a_written_budget_holds_for_its_file_alone() {
    let folder = TempDir::new().unwrap();
    export(&folder, &["emo-1m"], "one.onnx");
    export(&folder, &["emo-2m"], "two.onnx");
    let (code, _, stderr) = emo(&folder, &["audit", "one.onnx", "--write-budget", "b.toml"]);
    assert_eq!(code, 0, "{stderr}");
    let text = fs::read_to_string(folder.path().join("b.toml")).unwrap();
    // 5 % more than 1,356,680, rounded up.
    assert!(text.contains("params = 1424514\n"), "{text}");
    assert_eq!(emo(&folder, &["audit", "one.onnx", "--budget", "b.toml"]).0, 0);
    let (code, text, _) = emo(&folder, &["audit", "two.onnx", "--budget", "b.toml"]);
    assert_eq!(code, 1);
    assert!(text.contains("error[budget] params: expected 1,424,514 at most"), "{text}");
}

#[test]
fn wrong_requests_are_told_apart() {
    let folder = TempDir::new().unwrap();
    write(&folder, "c.onnx", &convolution());
    fs::write(folder.path().join("b.toml"), "parms = 1").unwrap();
    fs::write(folder.path().join("text.onnx"), "hello").unwrap();
    for (arguments, words) in [
        (
            &["c.onnx", "--budget", "b.toml"][..],
            &["b.toml", "there is no limit parms; did you mean params?"][..],
        ),
        (&["c.onnx", "--budget", "none.toml"], &["none.toml"]),
        (&["c.onnx", "--dim", "bach=1"], &["batch", "found bach"]),
        (&["c.onnx", "--dim", "batch"], &["expected a dimension as batch=1"]),
        (&["c.onnx", "--input", "pixels=1,3,8,8"], &["images", "found pixels"]),
        (&["c.onnx", "--input", "images=1,3,8"], &["c.onnx: input images: expected 4 extents, found 3"]),
        (
            &["c.onnx", "--input", "images=1,3,8,8", "--dim", "batch=2"],
            &["expected one size for batch, found 2 and 1"],
        ),
        (&["c.onnx", "--by", "block"], &["--by scope"]),
        (&["none.onnx"], &["none.onnx"]),
        (&["text.onnx"], &["text.onnx", "not an ONNX model"]),
        (&["no/*.onnx"], &["no/*.onnx", "found none"]),
        (&["c.onnx", "c.onnx", "--plot", "p.svg"], &["--plot takes the figures of one file, found 2"]),
    ] {
        refused(&folder, &[&["audit"], arguments].concat(), words);
    }
}

#[test]
fn several_files_keep_their_order_in_every_format() {
    let folder = TempDir::new().unwrap();
    write(&folder, "zoo/b/u.onnx", &with_unknown());
    write(&folder, "zoo/a.onnx", &convolution());
    let audits = json_of(&folder, 3, &["audit", "zoo/b/u.onnx", "zoo/a.onnx"]);
    let names: Vec<&str> = audits.as_array().unwrap().iter().map(|a| a["file"].as_str().unwrap()).collect();
    assert_eq!(names, ["zoo/b/u.onnx", "zoo/a.onnx"]);
    let run = |format: &str| {
        let (code, text, stderr) = emo(&folder, &["audit", "zoo/**/*.onnx", "--format", format]);
        assert_eq!(code, 3, "{stderr}");
        text
    };
    let csv = run("csv");
    let mut lines = csv.lines();
    assert_eq!(lines.next(), Some("file,op,operator,nodes,params,macs,flops,fvcore,mmcv,activations"));
    assert!(lines.next().unwrap().starts_with("zoo/a.onnx,Conv,Conv,1,224,216·batch·height·width,"), "{csv}");
    let github = run("github");
    assert!(github.contains("::notice file=zoo/a.onnx,title=emo audit::params 224"), "{github}");
    assert!(
        github.contains(
            "::warning file=zoo/b/u.onnx,title=emo audit%3A uncounted::cannot be decided: node \"net.z\""
        ),
        "{github}"
    );
    let junit = run("junit");
    assert!(junit.contains(r#"<testsuites name="emo audit" tests="3" failures="0" errors="2">"#), "{junit}");
    let markdown = run("markdown");
    assert!(markdown.starts_with("### emo audit: 1 of 2 files cannot be decided\n"), "{markdown}");
    let sarif: Value = serde_json::from_str(&run("sarif")).unwrap();
    let results = sarif["runs"][0]["results"].as_array().unwrap();
    let at = &results[0]["locations"][0];
    assert_eq!(at["physicalLocation"]["artifactLocation"]["uri"], "zoo/b/u.onnx");
    assert_eq!(results[0]["ruleId"], "uncounted");
}

#[test]
fn text_suits_its_terminal() {
    let folder = TempDir::new().unwrap();
    export(&folder, &["emo-1m"], "m.onnx");
    let (_, plain, _) = emo(&folder, &["audit", "m.onnx", "--by", "node"]);
    assert!(!plain.contains('\x1b') && plain.contains("\nstage3.1.conv_local.conv "), "{plain}");
    let (_, narrow, _) = emo_with(&folder, &["audit", "m.onnx", "--by", "node"], &[("COLUMNS", "80")]);
    let row =
        |text: &str| text.lines().filter(|line| line.starts_with("stage")).map(|l| l.chars().count()).max();
    assert!(row(&narrow) <= Some(80) && row(&plain) > Some(80), "{narrow}");
    assert!(narrow.contains('…'), "{narrow}");
    let force = ("CLICOLOR_FORCE", "1");
    assert!(emo_with(&folder, &["audit", "m.onnx"], &[force]).1.starts_with("\x1b[1mm.onnx\x1b[0m"));
    assert!(!emo_with(&folder, &["audit", "m.onnx"], &[("NO_COLOR", "1")]).1.contains('\x1b'));
}

#[test]
fn changes_are_found() {
    let folder = TempDir::new().unwrap();
    export(&folder, &["emo-1m", "--target", "reference"], "a.onnx");
    export(&folder, &["emo-1m", "--opset", "20"], "b.onnx");
    let same = json_of(&folder, 0, &["diff", "a.onnx", "a.onnx", "--fail-on", "any"]);
    assert_eq!(same["changes"], json!([]));
    let diff = json_of(&folder, 0, &["diff", "a.onnx", "b.onnx"]);
    let change = |kind: &str, what: &str| {
        let changes = diff["changes"].as_array().unwrap();
        changes.iter().find(|c| c["kind"] == kind && c["what"] == what).cloned().unwrap_or_default()
    };
    // The reference profile's 21 batch norms hold 8,656 parameters; folding leaves 4,168 of them.
    assert_eq!(change("operators", "BatchNormalization")["before"], 21);
    assert_eq!(change("operators", "BatchNormalization")["after"], Value::Null);
    assert_eq!(change("params", "params")["difference"], 1_356_680 - 1_361_168);
    assert_eq!(
        (&change("opset", "ai.onnx")["before"], &change("opset", "ai.onnx")["after"]),
        (&json!(17), &json!(20))
    );
    assert_eq!(change("cost", "macs"), Value::Null);
    assert_ne!(change("scope", "stage1 params"), Value::Null);
    for (kinds, code) in [("cost,params", 1), ("opset", 1), ("interface", 0), ("any", 1)] {
        let (found, text, _) = emo(&folder, &["diff", "a.onnx", "b.onnx", "--fail-on", kinds]);
        assert_eq!(found, code, "{kinds}: {text}");
    }
    export(&folder, &["emo-1m", "--size", "256x320"], "c.onnx");
    let (code, text, _) = emo(&folder, &["diff", "b.onnx", "c.onnx", "--fail-on", "interface"]);
    assert_eq!(code, 1);
    assert!(text.contains("float [1, 3, 224, 224]") && text.contains("float [1, 3, 256, 320]"), "{text}");
}

/// A linear layer whose weight of `[rows, 1]` is kept in `weights.bin`.
pub fn external(rows: i64, location: &str) -> ModelProto {
    let entry =
        |key: &str, value: String| StringStringEntryProto { key: Some(key.into()), value: Some(value) };
    let weight = TensorProto {
        name: Some("w".into()),
        dims: vec![rows, 1],
        data_type: Some(DataType::Float.into()),
        data_location: Some(emo_proto::tensor_proto::DataLocation::External.into()),
        external_data: vec![entry("location", location.to_owned()), entry("length", (4 * rows).to_string())],
        ..Default::default()
    };
    let rows = rows.to_string();
    model(vec![value("x", Some(&["1", rows.as_str()]))], vec![weight], vec![node("MatMul", &["x", "w"], "y")])
}

/// Peak memory of a process of a few kilobytes of graph, in kilobytes: far below its weights.
#[cfg(target_os = "linux")]
#[test]
fn twenty_gigabytes_of_weights_are_not_read() {
    let folder = TempDir::new().unwrap();
    let rows = 5_i64 << 30;
    write(&folder, "large.onnx", &external(rows, "weights.bin"));
    let weights = fs::File::create(folder.path().join("weights.bin")).unwrap();
    weights.set_len(20 << 30).unwrap();
    let script = format!("ulimit -v 100000; '{EMO}' audit large.onnx --format json");
    let run = Command::new("bash").args(["-c", &script]).current_dir(folder.path()).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let audit: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(audit["totals"]["params"], rows);
    assert_eq!(audit["stored"]["external_bytes"], 20_i64 << 30);
    assert_eq!(audit["findings"], json!([]));
    // What is no EMO needs no weights to be told so: they are mapped, and no page of them is read.
    let mut verify = Command::new(EMO);
    verify
        .args(["verify", "large.onnx"])
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let ended = wait4::Wait4::wait4(&mut verify.spawn().unwrap()).unwrap();
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.rusage.maxrss < 200 << 20, "{} bytes", ended.rusage.maxrss);
}

#[test]
fn weights_may_be_absent() {
    let folder = TempDir::new().unwrap();
    for (location, severity, words) in [
        ("weights.bin", "note", "the file is not there; no count needs it"),
        ("../weights.bin", "warning", "outside the model's folder"),
        ("/etc/passwd", "warning", "outside the model's folder"),
    ] {
        write(&folder, "m.onnx", &external(1000, location));
        let audit = json_of(&folder, 0, &["audit", "m.onnx"]);
        assert_eq!(audit["totals"]["params"], 1000);
        assert_eq!(audit["findings"][0]["severity"], severity);
        assert!(audit["findings"][0]["message"].as_str().unwrap().contains(words), "{audit}");
    }
}

#[test]
fn a_plot_is_drawn() {
    let folder = TempDir::new().unwrap();
    export(&folder, &["emo-1m"], "m.onnx");
    assert_eq!(emo(&folder, &["audit", "m.onnx", "--plot", "p.svg"]).0, 0);
    let svg = fs::read_to_string(folder.path().join("p.svg")).unwrap();
    for words in ["<svg ", "m.onnx", "stage3", "MACs", "parameters", "stage1.0.v.conv", "</svg>"] {
        assert!(svg.contains(words), "expected {words:?} in: {svg}");
    }
}

#[test]
fn checks_keep_their_schema() {
    let folder = TempDir::new().unwrap();
    export(&folder, &["emo-1m"], "m.onnx");
    write(&folder, "u.onnx", &with_unknown());
    assert_eq!(json_of(&folder, 0, &["check", "m.onnx"])["verdict"], "pass");
    let both = json_of(&folder, 1, &["check", "m.onnx", "u.onnx"]);
    assert_eq!(both[1]["verdict"], "fail");
}

/// What PyTorch and optimisers write is counted to the end, and its modules are found.
#[test]
#[cfg_attr(not(shared), ignore = "needs the files of ../shared")]
fn every_third_party_file_is_counted() {
    let files = fixture("third_party");
    let folder = TempDir::new().unwrap();
    let pattern = files.join("*.onnx").display().to_string();
    let audits = json_of(&folder, 0, &["audit", &pattern, "--by", "block", "--dim", "batch=1"]);
    for audit in audits.as_array().unwrap() {
        let file = audit["file"].as_str().unwrap();
        // Convolutions, products and the classifier cost the same in every form.
        assert_eq!(audit["totals"]["macs"], 255_237_672, "{file}");
        let groups = audit["groups"].as_array().unwrap();
        let last = groups.iter().find(|group| group["name"] == "head").unwrap();
        assert_eq!(last["params"], 169_000, "{file}");
    }
}
