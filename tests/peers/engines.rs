//! What every engine makes of the models in a folder, for `engines.py`.
//!
//! The folder has `cases.json`: a list of `{"model": file, "inputs": [[name, shape, file], …]}`, where an input's
//! file holds f32, little-endian. A line of JSON a model and an engine comes out: its outputs, each with its shape
//! and its elements in hexadecimal, or why there are none.

use std::path::Path;

use emo_proto::file::open;
use emo_verifier::runtime::{Concrete, ENGINES, Failure, Form, Options, silence_guarded_panics};
use ndarray::ArrayD;
use serde_json::{Value, json};

#[expect(clippy::print_stdout, reason = "it is what a script reads")]
fn main() {
    silence_guarded_panics();
    let folder = std::env::args().nth(1).expect("the folder of models");
    let folder = Path::new(&folder);
    let cases = std::fs::read_to_string(folder.join("cases.json")).expect("cases.json");
    let cases: Vec<Value> = serde_json::from_str(&cases).expect("a list of cases");
    for case in &cases {
        let model = case["model"].as_str().expect("a model");
        let (inputs, values) = inputs(folder, case);
        let plain = open(&folder.join(model)).map_err(Failure::from).and_then(|file| {
            let cut = Concrete::new(&file, &inputs)?.cut(&[], &[], Form::Plain)?;
            Ok(!cut.unrounded.is_empty())
        });
        let unrounded = plain.unwrap_or(false);
        for engine in ENGINES {
            let run = || -> Result<Vec<ArrayD<f32>>, Failure> {
                let runtime = (engine.open)(&Options { threads: Some(1), ..Options::default() })?;
                runtime.prepare(&open(&folder.join(model))?, &inputs, &[])?.run(&values)
            };
            let line = match run() {
                Ok(outputs) => json!({"outputs": outputs.iter().map(array).collect::<Vec<_>>()}),
                Err(failure) => json!({"kind": kind(&failure), "why": failure.to_string()}),
            };
            println!(
                "{}",
                json!({"model": model, "engine": engine.name, "unrounded": unrounded, "result": line})
            );
        }
    }
}

type Shapes = Vec<(String, Vec<usize>)>;

fn inputs(folder: &Path, case: &Value) -> (Shapes, Vec<ArrayD<f32>>) {
    let list = case["inputs"].as_array().expect("inputs");
    let input = |input: &Value| {
        let name = input[0].as_str().expect("a name").to_owned();
        let shape: Vec<usize> = serde_json::from_value(input[1].clone()).expect("a shape");
        let bytes = std::fs::read(folder.join(input[2].as_str().expect("a file"))).expect("elements");
        let values = bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
        ((name, shape.clone()), ArrayD::from_shape_vec(shape, values).expect("as many elements"))
    };
    list.iter().map(input).unzip()
}

fn kind(failure: &Failure) -> &'static str {
    match failure {
        Failure::Wrong(_) => "wrong",
        Failure::Lacking { .. } => "lacking",
        Failure::Refused { .. } => "refused",
    }
}

fn array(array: &ArrayD<f32>) -> Value {
    let hex: String = array.iter().flat_map(|x| x.to_le_bytes()).map(|byte| format!("{byte:02x}")).collect();
    json!([array.shape(), hex])
}
