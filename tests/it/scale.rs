//! Large graphs and large weights: what a process takes is bounded by what it needs.
//!
//! `tests/bench/scale.py` and `tests/bench/zoo.py` measure the same at full size.

#![cfg(target_os = "linux")]

use std::fs;
use std::process::{Command, Stdio};

use emo_proto::tensor::DataType;
use emo_proto::tensor_proto::DataLocation;
use emo_proto::{GraphProto, Message as _, ModelProto, StringStringEntryProto, TensorProto};
use emo_tests::onnx::{Extent, model, node, value};
use tempfile::TempDir;

use crate::command::EMO;

/// A graph of one operator after the other, each with a name.
fn chain(operator: &str, nodes: usize, initializer: Vec<TensorProto>) -> ModelProto {
    let last = format!("v{nodes}");
    let shape = [Extent::Number(1), Extent::Number(1 << 13)];
    let weight = |i: usize| initializer.get(i).map(|tensor| tensor.name().to_owned());
    let step = |i: usize| {
        let mut step = node(operator, &[&format!("v{i}")], &[&format!("v{}", i + 1)], vec![]);
        step.input.extend(weight(i));
        step.name = Some(format!("n{i}"));
        step
    };
    model(
        17,
        GraphProto {
            name: Some("chain".to_owned()),
            input: vec![value("v0", DataType::Float, &shape)],
            output: vec![value(&last, DataType::Float, &shape)],
            node: (0..nodes).map(step).collect(),
            initializer,
            ..Default::default()
        },
    )
}

/// Address space for a fifth of a million nodes, in kB: all of them are to take 600 MB, the program takes a few.
const A_FIFTH: u64 = 200_000;

#[test]
fn a_large_graph_takes_a_few_hundred_bytes_a_node() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("chain.onnx"), chain("Relu", 200_000, vec![]).encode_to_vec()).unwrap();
    for command in ["audit", "check"] {
        // A child's peak begins with that of whoever starts it, so that a limit tells more than a measurement.
        let mut run = Command::new("sh");
        run.args(["-c", &format!("ulimit -v {A_FIFTH}; exec \"$0\" \"$@\""), EMO, command, "chain.onnx"]);
        run.env("MALLOC_ARENA_MAX", "1").env("RAYON_NUM_THREADS", "2").current_dir(folder.path());
        let status = run.stdout(Stdio::null()).status().unwrap();
        assert_eq!(status.code(), Some(0), "{command}: {status}");
    }
}

/// Address space for the map of the weights and the program, and for no copy of any weight.
#[test]
fn weights_are_read_without_a_copy() {
    const EACH: u64 = 4 << 26;
    let folder = TempDir::new().unwrap();
    let entry =
        |key: &str, value: String| StringStringEntryProto { key: Some(key.into()), value: Some(value) };
    let weight = |i: u64| TensorProto {
        name: Some(format!("w{i}")),
        dims: vec![1 << 13, 1 << 13],
        data_type: Some(DataType::Float.into()),
        data_location: Some(DataLocation::External.into()),
        external_data: vec![
            entry("location", "weights.bin".to_owned()),
            entry("offset", (i * EACH).to_string()),
            entry("length", EACH.to_string()),
        ],
        ..Default::default()
    };
    let model = chain("MatMul", 3, (0..3).map(weight).collect());
    fs::write(folder.path().join("large.onnx"), model.encode_to_vec()).unwrap();
    fs::File::create(folder.path().join("weights.bin")).unwrap().set_len(3 * EACH).unwrap();
    for (command, code) in [("check", 0), ("dump", 0), ("verify", 1)] {
        let script =
            format!("ulimit -v {}; exec '{EMO}' {command} large.onnx", (3 * EACH + (200 << 20)) >> 10);
        let mut run = Command::new("bash");
        run.args(["-c", &script]).current_dir(folder.path());
        run.envs([("MALLOC_ARENA_MAX", "1"), ("RAYON_NUM_THREADS", "2")]);
        let run = run.output().unwrap();
        assert_eq!(run.status.code(), Some(code), "{command}: {}", String::from_utf8_lossy(&run.stderr));
    }
}
