//! `emo dump FILE…`: a graph as text, types and shapes inferred, for eyes and for diffs.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use emo_proto::TensorProto;
use emo_proto::file::{self, OnnxFile};
use emo_proto::tensor_proto::DataType;
use emo_proto::text::{Text, digest};
use emo_verifier::fact::{Fact, Kind};
use emo_verifier::infer::{Bindings, Values, infer_file};
use emo_verifier::sym::Expr;
use rayon::prelude::*;
use serde_json::{Value, json};

use super::output::{Format, json as to_json};
use super::progress::Progress;
use super::{Outcome, Said, files};

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// ONNX files, or patterns of them
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

const EXAMPLES: &str = "\
Examples:
  emo dump model.onnx  the graph, a line for each node";

pub fn run(args: &Args) -> Said {
    let paths = files::expand(&args.files)?;
    let read = |path: &Path| anyhow::Ok((path.display().to_string(), file::open(path)?));
    let data = match args.format {
        Format::Text => {
            let text = |path: &Path| {
                let (name, file) = read(path)?;
                let title = if paths.len() > 1 { format!("file {name}\n") } else { String::new() };
                Ok(title + &text(&file))
            };
            files::each(&paths, text)?.join("\n")
        }
        Format::Json => {
            let fields = |path: &Path| read(path).map(|(name, file)| fields(&name, &file));
            to_json(&json!({ "schema": "emo.dump/1", "files": files::each(&paths, fields)? }))?
        }
    };
    Ok((data, Outcome::Pass))
}

fn text(file: &OnnxFile) -> String {
    let inference = infer_file(file, &Bindings::new());
    let bodies: HashMap<&str, _> = inference.bodies.iter().map(|b| (b.path.as_ref(), &b.values)).collect();
    let describe = |path: &str, name: &str| {
        let values = if path.is_empty() { &inference.values } else { *bodies.get(path)? };
        values.get(name).map(Fact::describe)
    };
    let digests = digests(file);
    Text { model: &file.model, external: &file.external, digests: &digests, describe: &describe }.to_string()
}

/// The digests of the main graph's initializers, by where these are in memory: side by side, since weights may be
/// gigabytes.
fn digests(file: &OnnxFile) -> HashMap<*const TensorProto, String> {
    let progress = Progress::new();
    progress.step("reading weights");
    let initializers: Vec<&TensorProto> = file.model.graph.iter().flat_map(|g| &g.initializer).collect();
    let digests: Vec<Option<String>> =
        initializers.par_iter().map(|tensor| digest(tensor, &file.external).ok()).collect();
    let places = initializers.into_iter().map(std::ptr::from_ref);
    places.zip(digests).filter_map(|(place, digest)| Some((place, digest?))).collect()
}

/// Every value with its type, of bodies with their path; initializers with their digests; nodes.
fn fields(path: &str, file: &OnnxFile) -> Value {
    let inference = infer_file(file, &Bindings::new());
    let graph = file.model.graph.as_ref();
    let named =
        |values: &[emo_proto::ValueInfoProto]| values.iter().map(|v| v.name().to_owned()).collect::<Vec<_>>();
    let digests = digests(file);
    let initializers: Vec<Value> = graph
        .iter()
        .flat_map(|g| &g.initializer)
        .map(|t| {
            let dtype = DataType::try_from(t.data_type()).map_or("?", |d| d.as_str_name());
            let digest = digests.get(&std::ptr::from_ref(t));
            json!({ "name": t.name(), "dtype": dtype, "shape": t.dims, "sha256": digest })
        })
        .collect();
    let mut values: Vec<Value> = listed("", &inference.values);
    for body in &inference.bodies {
        values.extend(listed(&body.path, &body.values));
    }
    let nodes: Vec<Value> = inference
        .nodes
        .iter()
        .map(|n| {
            json!({ "path": &*n.path, "name": n.node.name(), "domain": n.node.domain(),
                    "operator": n.node.op_type(), "inputs": n.node.input, "outputs": n.node.output,
                    "multiplicity": n.multiplicity, "problem": n.problem() })
        })
        .collect();
    json!({
        "file": path,
        "inputs": graph.map(|g| named(&g.input)),
        "outputs": graph.map(|g| named(&g.output)),
        "initializers": initializers,
        "values": values,
        "nodes": nodes,
    })
}

/// Values of a graph, by name.
fn listed(path: &str, values: &Values) -> Vec<Value> {
    let mut sorted: Vec<_> = values.iter().collect();
    sorted.sort_by_key(|(name, _)| *name);
    let field = |(name, fact): (&str, &Fact)| json!({ "path": path, "name": name, "type": type_of(fact) });
    sorted.into_iter().map(field).collect()
}

/// `{"dtype", "shape"}` of a tensor, nested for what holds others; null for what is not known.
fn type_of(fact: &Fact) -> Value {
    match &fact.kind {
        Kind::Tensor | Kind::Sparse => {
            let dtype = (fact.dtype != DataType::Undefined).then(|| fact.dtype.as_str_name());
            let extent = |dim: &Expr| if dim.is_known() { json!(dim) } else { Value::Null };
            let shape = fact.dims.as_ref().ok().map(|dims| dims.iter().map(extent).collect::<Vec<_>>());
            json!({ "dtype": dtype, "shape": shape, "sparse": matches!(fact.kind, Kind::Sparse) })
        }
        Kind::Sequence(sequence) => json!({ "sequence": type_of(&sequence.item) }),
        Kind::Optional(holds) => json!({ "optional": type_of(holds) }),
        Kind::Map(key, value) => json!({ "map": [key.as_str_name(), type_of(value)] }),
        Kind::Opaque => json!({ "opaque": true }),
    }
}
