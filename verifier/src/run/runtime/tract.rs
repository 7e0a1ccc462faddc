//! The tract engine, in pure Rust.

use std::sync::{Arc, LazyLock};

use emo_proto::text::label;
use emo_proto::{Error, GraphProto};
use ndarray::ArrayD;
use prost::Message;
use tract_onnx::Onnx;
use tract_onnx::model::ParseResult;
use tract_onnx::pb;
use tract_onnx::prelude::*;

use super::faults::fault;
use super::{Concrete, Cut, Failure, Form, Runtime, Session, expect_inputs};
use crate::run::quiet::guarded;

/// tract, optimising for the processor that it runs on.
#[derive(Debug, Clone, Copy)]
pub struct Tract;

const NAME: &str = "tract";

/// Operators of com.microsoft that tract computes as that domain means them; it looks at names alone.
const MICROSOFT: &[&str] = &["BiasGelu", "FastGelu", "Gelu", "QuickGelu", "SkipLayerNormalization"];

static READER: LazyLock<Onnx> = LazyLock::new(|| {
    // Exporters declare output shapes and intermediate types that contradict inference; it needs neither.
    onnx().with_ignore_output_shapes(true).with_ignore_value_info(true)
});

impl Runtime for Tract {
    fn name(&self) -> &'static str {
        NAME
    }

    fn ready(
        &self,
        model: &Concrete,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<Box<dyn Session>, Failure> {
        let Cut { model: cut, inputs, .. } = model.cut(inputs, outputs, Form::Plain)?;
        let graph = cut.graph.as_ref();
        if let Some(failure) = graph.and_then(|graph| lacking(graph).or_else(|| fault(model, graph, NAME))) {
            return Err(failure);
        }
        let plan = engine(|| optimised(message(cut)?)?.into_runnable())?;
        Ok(Box::new(Plan { plan, inputs }))
    }
}

/// The first node, bodies included, whose operator tract lacks.
fn lacking(graph: &GraphProto) -> Option<Failure> {
    graph.node.iter().find_map(|node| {
        let operator = node.op_type();
        let has = match node.domain() {
            "" | "ai.onnx" | "ai.onnx.ml" => READER.op_register.0.contains_key(operator),
            "com.microsoft" => MICROSOFT.contains(&operator),
            _ => false,
        };
        let own = || {
            let operator = match node.domain() {
                "" | "ai.onnx" => operator.to_owned(),
                domain => format!("{domain}.{operator}"),
            };
            Failure::Lacking { runtime: NAME, operator, node: label(node) }
        };
        if has {
            let bodies = node.attribute.iter().flat_map(|a| a.g.as_deref().into_iter().chain(&a.graphs));
            bodies.into_iter().find_map(lacking)
        } else {
            Some(own())
        }
    })
}

struct Plan {
    plan: Arc<TypedRunnableModel>,
    inputs: Vec<(String, Vec<usize>)>,
}

impl Session for Plan {
    fn run(&mut self, inputs: &[ArrayD<f32>]) -> Result<Vec<ArrayD<f32>>, Failure> {
        expect_inputs(inputs, &self.inputs)?;
        engine(|| {
            let inputs = inputs.iter().map(|input| Tensor::from(input.clone()).into());
            let outputs = self.plan.run(inputs.collect())?;
            outputs.into_iter().map(|output| output.into_tensor().into_plain_array()).collect()
        })
    }
}

/// The message as tract has it. Weights go from one to the other one by one, since its fields own their bytes
/// and a copy of the whole as text would be one more.
fn message(mut cut: emo_proto::ModelProto) -> TractResult<pb::ModelProto> {
    let mut weights = Vec::new();
    if let Some(graph) = &mut cut.graph {
        number(graph);
        weights = std::mem::take(&mut graph.initializer);
    }
    let mut model = pb::ModelProto::decode(&*cut.encode_to_vec())?;
    if let Some(graph) = &mut model.graph {
        for mut weight in weights {
            let raw = weight.raw_data.take().unwrap_or_default();
            let mut tensor = pb::TensorProto::decode(&*weight.encode_to_vec())?;
            tensor.raw_data = raw.to_vec();
            graph.initializer.push(tensor);
        }
    }
    Ok(model)
}

/// Ends each node's name with its number: tract wants every name once, constants' among them, and makes more of
/// its own by adding to the end.
fn number(graph: &mut GraphProto) {
    for (i, node) in graph.node.iter_mut().enumerate() {
        node.name = Some(format!("{} #{i}", label(node)));
        node.attribute
            .iter_mut()
            .flat_map(|a| a.g.as_deref_mut().into_iter().chain(&mut a.graphs))
            .for_each(number);
    }
}

/// The graph of `model`, whose inputs and outputs keep their order, as fast as tract can make it.
fn optimised(model: pb::ModelProto) -> TractResult<TypedModel> {
    let ParseResult { model: parsed, unresolved_inputs, .. } = READER.parse(&model, None)?;
    // Gone before the optimiser makes its own copies.
    drop(model);
    if let Some(name) = unresolved_inputs.first() {
        return Err(TractError::msg(format!("the value {name} is of a kind that it does not read")));
    }
    parsed.into_optimized()
}

/// Runs tract on what a file says. Some graphs make it panic; here that is a failure like any other.
fn engine<T>(run: impl FnOnce() -> TractResult<T>) -> Result<T, Failure> {
    let message = match guarded(run) {
        Ok(Ok(value)) => return Ok(value),
        // With its causes: the outermost names the node, the innermost says what is wrong.
        Ok(Err(error)) => format!("{error:#}"),
        Err(panic) => panic,
    };
    Err(Failure::Refused { runtime: NAME, why: Error::new(message) })
}

#[cfg(test)]
mod tests {
    use emo_proto::file::OnnxFile;

    use super::super::testing::{array, binary, shapes, strings};
    use super::*;

    const SUM_AND_DIFFERENCE: &[(&str, &[&str], &str)] =
        &[("Sub", &["a", "b"], "difference"), ("Add", &["difference", "b"], "sum")];

    #[test]
    fn inputs_and_outputs_keep_the_order_asked_for() {
        let file = binary(SUM_AND_DIFFERENCE, "sum");
        let (a, b) = (array(&[3], &[5.0, 6.0, 7.0]), array(&[3], &[1.0, 1.0, 2.0]));
        let difference = &a - &b;

        let inputs = shapes(&[("b", &[3]), ("a", &[3])]);
        let mut session = Tract.prepare(&file, &inputs, &strings(&["sum", "difference"])).unwrap();
        assert_eq!(session.run(&[b.clone(), a.clone()]).unwrap(), [a.clone(), difference]);

        let mut session = Tract.prepare(&file, &shapes(&[("a", &[3]), ("b", &[3])]), &[]).unwrap();
        assert_eq!(session.run(&[a.clone(), b]).unwrap(), vec![a.clone()]);
        let message = session.run(std::slice::from_ref(&a)).unwrap_err().to_string();
        assert!(message.contains("expected 2 inputs, found 1"), "{message}");
        let wide = ArrayD::zeros(vec![4]);
        let message = session.run(&[a, wide]).unwrap_err().to_string();
        assert_eq!(message, "b: expected shape [3], found [4]");
    }

    /// (file, inputs, outputs, whether another engine may do better, part of the message)
    type Case<'a> = (&'a OnnxFile, &'a [(String, Vec<usize>)], &'a [&'a str], bool, &'a str);

    #[test]
    fn what_cannot_run_is_a_failure_that_names_the_place() {
        let both = shapes(&[("a", &[3]), ("b", &[3])]);
        let good = binary(SUM_AND_DIFFERENCE, "sum");
        let product = binary(&[("MatMul", &["a", "b"], "c")], "c");
        let unknown_operator = binary(&[("Frobnicate", &["a", "b"], "c")], "c");
        let unknown_input = binary(&[("Add", &["a", "nothing"], "c")], "c");
        let unknown_output = binary(&[("Add", &["a", "b"], "c")], "d");
        let cases: [Case; 7] = [
            (&unknown_operator, &both, &[], true, "tract has no Frobnicate, which node the Frobnicate is"),
            (&unknown_input, &both, &[], false, "gives the value nothing"),
            (&unknown_output, &both, &[], false, "no value d"),
            (&good, &both, &["product"], false, "no value product"),
            (&good, &shapes(&[("a", &[3])]), &[], false, "input b was given no shape"),
            (
                &good,
                &shapes(&[("a", &[3]), ("b", &[3]), ("sum", &[3])]),
                &[],
                false,
                "inputs, a, b, found sum",
            ),
            (&product, &shapes(&[("a", &[2, 3]), ("b", &[4, 5])]), &[], true, "the MatMul"),
        ];
        for (file, inputs, outputs, undecided, expected) in cases {
            let failure = Tract.prepare(file, inputs, &strings(outputs)).err().expect(expected);
            assert!(failure.to_string().contains(expected), "{expected}: {failure}");
            assert_eq!(failure.is_undecided(), undecided, "{failure}");
        }
    }
}
