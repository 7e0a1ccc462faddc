//! A file at given input shapes, and the graphs that are cut out of it.

use std::borrow::Cow;
use std::collections::HashMap;

use emo_proto::file::OnnxFile;
use emo_proto::tensor::Tensor;
use emo_proto::tensor_proto::DataType;
use emo_proto::tensor_shape_proto::{Dimension, dimension};
use emo_proto::{
    GraphProto, ModelProto, OperatorSetIdProto, SparseTensorProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, type_proto,
};

use super::value::{Value, cast};
use super::{afford, coarse, dequantise, fold, inline, widen};
use crate::audit::Sizes;
use crate::fact::Fact;
use crate::infer::{Bindings, infer, infer_file, order};
use crate::run::failure::Failure;

/// How a graph is handed to an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Its nodes as the file has them. What starts from other values than the graph's inputs is folded
    /// all the same, since shapes are computed from these.
    Written,
    /// Integers that the input shapes decide are constants, functions and decided branches are written out,
    /// float16 and bfloat16 are f32, and QuantizeLinear before DequantizeLinear keeps its bounds, not its rounding.
    Plain,
    /// As `Plain`, but with types as written, and floats are computed however small: for our own evaluation.
    Typed,
}

/// A graph that was cut out.
#[derive(Debug, Clone)]
pub struct Cut {
    pub model: ModelProto,
    /// The values that it takes, as the file calls them, each with its shape.
    pub inputs: Vec<(String, Vec<usize>)>,
    /// Nodes behind the inputs, by label, that round to 16 bits or to units of a scale in the file, and do not here.
    pub unrounded: Vec<String>,
}

/// A file at given input shapes.
#[derive(Debug)]
pub struct Concrete<'a> {
    file: &'a OnnxFile,
    /// Functions and decided branches written out.
    flat: Cow<'a, ModelProto>,
    /// What the input shapes decide.
    known: HashMap<String, Tensor>,
    values: HashMap<String, Value>,
    /// No name of the file starts with it.
    mark: String,
}

impl<'a> Concrete<'a> {
    /// `file` for `inputs`, the graph's inputs with a shape each.
    ///
    /// # Errors
    ///
    /// An input of the graph is not in `inputs` or one of `inputs` not in the graph, a shape contradicts the
    /// declared one, functions come to more nodes than any honest file has, or values to more bytes than fit.
    pub fn new(file: &'a OnnxFile, inputs: &[(String, Vec<usize>)]) -> Result<Self, Failure> {
        let bindings = bindings(&file.model, inputs)?;
        let mark = inline::mark(&file.model);
        let mut flat = inline::functions(file, &mark)?;
        let (known, values) = loop {
            let inference = match &flat {
                Cow::Borrowed(_) => infer_file(file, &bindings),
                // What is written out has its data inside.
                Cow::Owned(model) => infer(model, &bindings),
            };
            let decided = inline::decided(&inference);
            if decided.is_empty() {
                afford::afford(&flat, &inference)?;
                break (fold::known(&inference), fold::values(&inference));
            }
            flat = Cow::Owned(inline::branches(file, &flat, &decided, &mark)?);
        };
        Ok(Self { file, flat, known, values, mark })
    }

    /// The shape of a value of the main graph, where it is known.
    #[must_use]
    pub fn shape(&self, value: &str) -> Option<&[usize]> {
        self.values.get(value)?.dims.as_deref()
    }

    /// Whether the main graph has a value of this name.
    pub(crate) fn has(&self, value: &str) -> bool {
        self.values.contains_key(value)
    }

    /// The element type of a value of the main graph.
    pub(crate) fn dtype(&self, value: &str) -> DataType {
        self.values.get(value).map_or(DataType::Undefined, |value| value.dtype)
    }

    /// The names of the graph's inputs, without those that it gives a value to itself.
    #[must_use]
    pub fn inputs(&self) -> Vec<String> {
        self.file.model.graph.iter().flat_map(crate::audit::inputs).map(|v| v.name().to_owned()).collect()
    }

    /// The names of the graph's outputs.
    #[must_use]
    pub fn outputs(&self) -> Vec<String> {
        self.file.model.graph.iter().flat_map(|g| &g.output).map(|v| v.name().to_owned()).collect()
    }

    /// The file whose graph computes `outputs` from `inputs`, any values of the main graph; without names
    /// the graph's own. The graph's inputs and outputs are f32, in this order, whatever is between; every
    /// weight is in it as raw data, shared with the file where it was raw f32 there.
    ///
    /// # Errors
    ///
    /// A name is none of the graph's, an input's shape is not known, or `outputs` need more than `inputs`.
    pub fn cut(&self, inputs: &[String], outputs: &[String], form: Form) -> Result<Cut, Failure> {
        let own = self.inputs();
        let inputs = if inputs.is_empty() { own.clone() } else { inputs.to_vec() };
        let outputs = if outputs.is_empty() { self.outputs() } else { outputs.to_vec() };
        let written = form == Form::Written && inputs.iter().all(|input| own.contains(input));
        let integers = || {
            let float = |t: &Tensor| Fact::scalar(t.dtype).is_float();
            let known = self.known.iter().filter(|(_, tensor)| !float(tensor));
            known.map(|(name, tensor)| (name.clone(), tensor.clone())).collect()
        };
        let (model, known) = match (written, form) {
            (true, _) => (&self.file.model, &HashMap::new()),
            (false, Form::Typed) => (&*self.flat, &integers()),
            (false, _) => (&*self.flat, &self.known),
        };
        let Some(graph) = &model.graph else { return Err(Failure::wrong("expected a graph, found none")) };

        let dtype = |name: &str| match self.dtype(name) {
            DataType::Float16 | DataType::Bfloat16 if form == Form::Plain => DataType::Float,
            other => other,
        };
        let needed = fold::needed(graph, known, &inputs, &outputs)?;
        let mut cut = GraphProto { name: Some("cut".to_owned()), ..GraphProto::default() };
        let mut shapes = Vec::new();
        for name in &inputs {
            let dims = self.shape(name).ok_or_else(|| {
                Failure::wrong("its shape is known only when the graph runs, so it cannot be fed").at(name)
            })?;
            shapes.push((name.clone(), dims.to_vec()));
            let port = match dtype(name) {
                DataType::Float | DataType::Undefined => name.clone(),
                DataType::String | DataType::Complex64 | DataType::Complex128 => {
                    let found = dtype(name).as_str_name();
                    return Err(Failure::wrong(format!("expected real numbers, found {found}")).at(name));
                }
                other => {
                    let port = format!("{}in {name}", self.mark);
                    cut.node.push(cast(&port, name, other));
                    port
                }
            };
            // An engine that is given the file as it is written sees what is free there, too.
            let declared =
                graph.input.iter().find(|input| written && input.name() == name).and_then(declared);
            cut.input.push(port_info(&port, Some(declared.cloned().unwrap_or_else(|| fixed(dims)))));
        }
        cut.node
            .extend(graph.node.iter().zip(&needed.nodes).filter(|(_, kept)| **kept).map(|(n, _)| n.clone()));
        for name in &outputs {
            let port = match dtype(name) {
                DataType::Float if needed.written.contains(name.as_str()) => name.clone(),
                _ => {
                    let port = format!("{}out {name}", self.mark);
                    cut.node.push(cast(name, &port, DataType::Float));
                    port
                }
            };
            cut.output.push(port_info(&port, None));
        }
        let dense: HashMap<&str, &TensorProto> = graph.initializer.iter().map(|t| (t.name(), t)).collect();
        for name in &needed.constants {
            match (known.get(*name), dense.get(name)) {
                (Some(tensor), _) => cut.initializer.push(tensor.encode(name)),
                (None, Some(tensor)) => cut.initializer.push((*tensor).clone()),
                (None, None) => {}
            }
        }
        let read =
            |s: &&SparseTensorProto| s.values.as_ref().is_some_and(|v| needed.constants.contains(&v.name()));
        cut.sparse_initializer.extend(graph.sparse_initializer.iter().filter(read).cloned());
        let mut unrounded = Vec::new();
        if form == Form::Plain {
            if let Some(sorted) = order(&cut.node) {
                cut.node = sorted.into_iter().cloned().collect();
            }
            let half = |dtype: &DataType| matches!(dtype, DataType::Float16 | DataType::Bfloat16);
            let rounding = coarse(self, &cut).into_iter().filter(|(_, dtype)| half(dtype));
            unrounded.extend(rounding.map(|(label, _)| label));
            let sets = model.opset_import.iter().filter(|set| matches!(set.domain(), "" | "ai.onnx"));
            let opset = sets.map(OperatorSetIdProto::version).max().unwrap_or(1);
            let is_one =
                |name: &str| self.shape(name).is_some_and(|dims| dims.iter().product::<usize>() == 1);
            let external = &self.file.external;
            unrounded.extend(dequantise::dequantise(&mut cut, external, opset, &self.mark, &is_one));
        }
        widen::tensors(&mut cut, &self.file.external, form == Form::Plain)?;
        let model = ModelProto {
            ir_version: model.ir_version,
            opset_import: model.opset_import.clone(),
            functions: model.functions.clone(),
            graph: Some(cut),
            ..ModelProto::default()
        };
        Ok(Cut { model, inputs: shapes, unrounded })
    }
}

/// The sizes of all dimensions that `inputs` fix, held to what the file declares.
fn bindings(model: &ModelProto, inputs: &[(String, Vec<usize>)]) -> Result<Bindings, Failure> {
    let own: Vec<&ValueInfoProto> = model.graph.iter().flat_map(crate::audit::inputs).collect();
    if let Some((name, _)) = inputs.iter().find(|(name, _)| own.iter().all(|input| input.name() != name)) {
        let names: Vec<&str> = own.iter().map(|input| input.name()).collect();
        return Err(Failure::wrong(format!(
            "expected the graph's inputs, {}, found {name}",
            names.join(", ")
        )));
    }
    let mut sizes = Sizes::default();
    for input in own {
        let name = input.name();
        let Some((_, shape)) = inputs.iter().find(|(given, _)| given == name) else {
            return Err(Failure::wrong(format!("the graph's input {name} was given no shape")));
        };
        let shape: Vec<i64> = shape.iter().map(|&n| i64::try_from(n).unwrap_or(i64::MAX)).collect();
        if let Some(declared) = declared(input) {
            let differs = |(dim, &n): (&Dimension, &i64)| matches!(dim.value, Some(dimension::Value::DimValue(d)) if d >= 0 && d != n);
            if declared.dim.len() != shape.len() || declared.dim.iter().zip(&shape).any(differs) {
                let fact = crate::infer::declared(input, &Bindings::new());
                return Err(Failure::wrong(format!("expected {}, found {shape:?}", fact.describe())).at(name));
            }
        }
        sizes.inputs.insert(name.to_owned(), shape);
    }
    Ok(sizes.bindings(model)?)
}

/// The shape that an input declares.
fn declared(input: &ValueInfoProto) -> Option<&TensorShapeProto> {
    match input.r#type.as_ref()?.value.as_ref()? {
        type_proto::Value::TensorType(tensor) => tensor.shape.as_ref(),
        _ => None,
    }
}

/// An f32 value; of an output not even the rank is said, which any engine infers.
fn port_info(name: &str, shape: Option<TensorShapeProto>) -> ValueInfoProto {
    let tensor = type_proto::Tensor { elem_type: Some(DataType::Float.into()), shape };
    let r#type = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { name: Some(name.to_owned()), r#type: Some(r#type), ..ValueInfoProto::default() }
}

fn fixed(dims: &[usize]) -> TensorShapeProto {
    let extent = |&n: &usize| Dimension {
        value: Some(dimension::Value::DimValue(i64::try_from(n).unwrap_or(i64::MAX))),
        ..Dimension::default()
    };
    TensorShapeProto { dim: dims.iter().map(extent).collect() }
}
