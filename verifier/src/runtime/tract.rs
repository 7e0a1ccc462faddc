//! The tract engine, in pure Rust.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use emo_proto::{Error, Result};
use ndarray::ArrayD;
use prost::Message;
use tract_onnx::model::ParseResult;
use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::*;

use super::{Runtime, Session};

/// tract, optimising for the processor that it runs on.
#[derive(Debug, Clone, Copy)]
pub struct Tract;

impl Runtime for Tract {
    fn name(&self) -> &'static str {
        "tract"
    }

    fn prepare(
        &self,
        model: &[u8],
        inputs: &[(String, Vec<usize>)],
        outputs: &[String],
    ) -> Result<Box<dyn Session>> {
        let plan = guarded(|| optimised(model, inputs, outputs)?.into_runnable())?;
        Ok(Box::new(Plan { plan, inputs: inputs.to_vec() }))
    }
}

struct Plan {
    plan: Arc<TypedRunnableModel>,
    inputs: Vec<(String, Vec<usize>)>,
}

impl Session for Plan {
    fn run(&mut self, inputs: &[ArrayD<f32>]) -> Result<Vec<ArrayD<f32>>> {
        if inputs.len() != self.inputs.len() {
            return Err(Error::new(format!("expected {} inputs, found {}", self.inputs.len(), inputs.len())));
        }
        for (input, (name, shape)) in inputs.iter().zip(&self.inputs) {
            if input.shape() != shape {
                let found = input.shape();
                return Err(Error::new(format!("expected shape {shape:?}, found {found:?}")).at(name));
            }
        }
        guarded(|| {
            let inputs = inputs.iter().map(|input| Tensor::from(input.clone()).into());
            let outputs = self.plan.run(inputs.collect())?;
            let f32s = |output: TValue| match output.datum_type() {
                DatumType::F32 => output.into_tensor().into_plain_array(),
                _ => output.cast_to::<f32>()?.into_owned().into_plain_array(),
            };
            outputs.into_iter().map(f32s).collect()
        })
    }
}

/// The graph of `model`, with `inputs` and `outputs` in this order, as fast as tract can make it.
fn optimised(model: &[u8], inputs: &[(String, Vec<usize>)], outputs: &[String]) -> TractResult<TypedModel> {
    // Exporters declare output shapes and intermediate types that contradict inference; it needs neither.
    let reader = onnx().with_ignore_output_shapes(true).with_ignore_value_info(true);
    // Decoded here, since tract's own reader copies the file once more; dropped before the optimiser starts.
    let ParseResult { mut model, unresolved_inputs, outlets_by_name } =
        reader.parse(&ModelProto::decode(model)?, None)?;
    if let Some(name) = unresolved_inputs.first() {
        return Err(TractError::msg(format!(
            "no input, initializer or node gives the value {name}, which a node reads"
        )));
    }
    let outlet = |name: &String| {
        outlets_by_name
            .get(name)
            .copied()
            .ok_or_else(|| TractError::msg(format!("the graph has no value {name}")))
    };

    let sources = model.input_outlets()?.to_vec();
    let mut outlets = Vec::with_capacity(inputs.len());
    for (name, shape) in inputs {
        let input = outlet(name)?;
        if !sources.contains(&input) {
            return Err(TractError::msg(format!("the value {name} is no input of the graph")));
        }
        // Concrete: a plan for a symbolic batch is right, but three times slower.
        model.set_outlet_fact(input, f32::fact(shape).into())?;
        outlets.push(input);
    }
    if let Some(missing) = sources.iter().find(|source| !outlets.contains(source)) {
        return Err(TractError::msg(format!(
            "the graph's input {} was given no shape",
            model.node(missing.node).name
        )));
    }
    model.set_input_outlets(&outlets)?;

    if !outputs.is_empty() {
        let outlets: Vec<_> = outputs.iter().map(outlet).collect::<TractResult<_>>()?;
        model.select_output_outlets(&outlets)?;
    }
    model.into_optimized()
}

/// Runs tract on what a file says. Some malformed files make it panic; here that is an error like any other.
fn guarded<T>(run: impl FnOnce() -> TractResult<T>) -> Result<T> {
    let error = match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(value)) => return Ok(value),
        // With its causes: the outermost names the node, the innermost says what is wrong.
        Ok(Err(error)) => Error::new(format!("{error:#}")),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            Error::new(text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("the engine panicked"))
        }
    };
    Err(error.at("tract"))
}

#[cfg(test)]
mod tests {
    use emo_proto::tensor_proto::DataType;
    use emo_proto::{GraphProto, NodeProto, OperatorSetIdProto, TypeProto, ValueInfoProto, type_proto};

    use super::*;

    /// The file of `nodes`, each (operator, inputs, output), from the f32 inputs a and b to `output`.
    fn file(nodes: &[(&str, &[&str], &str)], output: &str) -> Vec<u8> {
        let value = |name: &str| ValueInfoProto {
            name: Some(name.to_owned()),
            r#type: Some(TypeProto {
                value: Some(type_proto::Value::TensorType(type_proto::Tensor {
                    elem_type: Some(DataType::Float.into()),
                    ..Default::default()
                })),
                ..Default::default()
            }),
            ..Default::default()
        };
        let node = |(op, inputs, output): &(&str, &[&str], &str)| NodeProto {
            name: Some(format!("the {op}")),
            op_type: Some((*op).to_owned()),
            input: inputs.iter().map(|&i| i.to_owned()).collect(),
            output: vec![(*output).to_owned()],
            ..Default::default()
        };
        let graph = GraphProto {
            node: nodes.iter().map(node).collect(),
            input: vec![value("a"), value("b")],
            output: vec![value(output)],
            ..Default::default()
        };
        emo_proto::ModelProto {
            ir_version: Some(8),
            opset_import: vec![OperatorSetIdProto { version: Some(17), ..Default::default() }],
            graph: Some(graph),
            ..Default::default()
        }
        .encode_to_vec()
    }

    fn shapes(shapes: &[(&str, &[usize])]) -> Vec<(String, Vec<usize>)> {
        shapes.iter().map(|&(name, shape)| (name.to_owned(), shape.to_vec())).collect()
    }

    const SUM_AND_DIFFERENCE: &[(&str, &[&str], &str)] =
        &[("Sub", &["a", "b"], "difference"), ("Add", &["difference", "b"], "sum")];

    #[test]
    fn inputs_and_outputs_keep_the_order_asked_for() {
        let model = file(SUM_AND_DIFFERENCE, "sum");
        let a = ArrayD::from_shape_vec(vec![3], vec![5.0, 6.0, 7.0]).unwrap();
        let b = ArrayD::from_shape_vec(vec![3], vec![1.0, 1.0, 2.0]).unwrap();
        let difference = &a - &b;

        let inputs = shapes(&[("b", &[3]), ("a", &[3])]);
        let outputs = ["sum".to_owned(), "difference".to_owned()];
        let mut session = Tract.prepare(&model, &inputs, &outputs).unwrap();
        assert_eq!(session.run(&[b.clone(), a.clone()]).unwrap(), [a.clone(), difference]);

        let mut session = Tract.prepare(&model, &shapes(&[("a", &[3]), ("b", &[3])]), &[]).unwrap();
        assert_eq!(session.run(&[a.clone(), b]).unwrap(), vec![a.clone()]);
        let message = session.run(std::slice::from_ref(&a)).unwrap_err().to_string();
        assert!(message.contains("expected 2 inputs, found 1"), "{message}");
        let wide = ArrayD::zeros(vec![4]);
        let message = session.run(&[a, wide]).unwrap_err().to_string();
        assert_eq!(message, "b: expected shape [3], found [4]");
    }

    /// (file, inputs, outputs, part of the message)
    type Case<'a> = (&'a [u8], &'a [(String, Vec<usize>)], &'a [&'a str], &'a str);

    #[test]
    fn what_cannot_run_is_an_error_that_names_the_place() {
        let both = shapes(&[("a", &[3]), ("b", &[3])]);
        let good = file(SUM_AND_DIFFERENCE, "sum");
        let product = file(&[("MatMul", &["a", "b"], "c")], "c");
        let unknown_operator = file(&[("Frobnicate", &["a", "b"], "c")], "c");
        let unknown_input = file(&[("Add", &["a", "nothing"], "c")], "c");
        let unknown_output = file(&[("Add", &["a", "b"], "c")], "d");
        let cases: [Case; 8] = [
            (b"not a protobuf", &both, &[], "tract: "),
            (&unknown_operator, &both, &[], "the Frobnicate"),
            (&unknown_input, &both, &[], "gives the value nothing"),
            (&unknown_output, &both, &[], "tract: "),
            (&good, &both, &["product"], "no value product"),
            (&good, &shapes(&[("a", &[3])]), &[], "input b was given no shape"),
            (&good, &shapes(&[("a", &[3]), ("b", &[3]), ("sum", &[3])]), &[], "sum is no input"),
            (&product, &shapes(&[("a", &[2, 3]), ("b", &[4, 5])]), &[], "the MatMul"),
        ];
        for (model, inputs, outputs, expected) in cases {
            let outputs: Vec<_> = outputs.iter().map(|&o| o.to_owned()).collect();
            let message = Tract.prepare(model, inputs, &outputs).err().expect(expected).to_string();
            assert!(message.contains(expected), "{expected}: {message}");
        }
    }
}
