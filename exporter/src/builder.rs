//! The typed graph builder: one method an operator.
//!
//! A value has its shape the moment it exists. What does not fit is refused on the spot,
//! with the node, the operator, the operands' shapes and the line of the caller.

use std::panic::Location;

use emo_proto::{Error, Result};

use crate::fold::Rewrite;
use crate::graph::{Dim, Graph, Node, Shape, Source, Value, ValueInfo};
use crate::op::{Binary, Op, Unary};
use crate::shape;

/// Builds a [`Graph`] node by node.
#[derive(Debug, Default)]
pub struct Builder {
    graph: Graph,
    scope: Vec<String>,
}

impl Builder {
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { graph: Graph { name: name.to_owned(), ..Graph::default() }, scope: Vec::new() }
    }

    /// Everything that `body` adds is named below `scope`: `v` in `stage3.1` makes `stage3.1.v`.
    pub fn within<T>(&mut self, scope: &str, body: impl FnOnce(&mut Self) -> T) -> T {
        self.scope.push(scope.to_owned());
        let result = body(self);
        self.scope.pop();
        result
    }

    /// The module path of `name` here; an empty name is the scope itself.
    #[must_use]
    pub fn path(&self, name: &str) -> String {
        let parts = self.scope.iter().map(String::as_str).chain((!name.is_empty()).then_some(name));
        parts.collect::<Vec<_>>().join(".")
    }

    #[must_use]
    pub fn shape(&self, value: Value) -> &Shape {
        self.graph.shape(value)
    }

    /// The extents of a feature map `[N, C, H, W]`, of which only N may be free.
    ///
    /// # Errors
    /// The value is no feature map.
    #[track_caller]
    pub fn feature_map(&self, x: Value) -> Result<(Dim, usize, usize, usize)> {
        match self.shape(x).map() {
            Some([n, Dim::Fixed(c), Dim::Fixed(h), Dim::Fixed(w)]) => Ok((n, c, h, w)),
            _ => Err(self.refuse("feature map", "", &[x], "expected [N, C, H, W]")),
        }
    }

    pub fn input(&mut self, name: &str, shape: impl Into<Shape>) -> Value {
        let value = self.value(name.to_owned(), shape.into(), None);
        self.graph.inputs.push(value);
        value
    }

    /// Makes `value` an output of the graph, called `name`.
    pub fn output(&mut self, value: Value, name: &str) {
        self.graph.values[value.0].name = name.to_owned();
        self.graph.outputs.push(value);
    }

    /// The state-dict entry `name` of this scope.
    pub fn parameter(&mut self, name: &str, shape: impl Into<Shape>) -> Value {
        let path = self.path(name);
        self.value(path, shape.into(), Some(Source::Parameter))
    }

    /// A number that is no parameter; equal numbers are one value.
    pub fn scalar(&mut self, number: f32) -> Value {
        let source = Some(Source::Scalar(number));
        match self.graph.values.iter().position(|v| v.constant == source) {
            Some(index) => Value(index),
            None => self.value(format!("constant.{number}"), Shape(Vec::new()), source),
        }
    }

    /// Gives `value`, a constant, other elements of the same shape.
    pub(crate) fn resource(&mut self, value: Value, source: Source) {
        self.graph.values[value.0].constant = Some(source);
    }

    /// Notes what a form leaves out of the published model.
    pub(crate) fn rewrote(&mut self, rewrite: Rewrite) {
        self.graph.rewrites.push(rewrite);
    }

    #[must_use]
    pub fn finish(self) -> Graph {
        self.graph
    }

    /// See [`Op::Conv`].
    ///
    /// # Errors
    /// The operands do not fit; so for all the methods below.
    #[track_caller]
    pub fn conv(
        &mut self,
        name: &str,
        operands: &[Value],
        stride: usize,
        pad: usize,
        group: usize,
    ) -> Result<Value> {
        self.push(name, Op::Conv { stride, pad, group }, operands)
    }

    /// See [`Op::Gemm`].
    #[track_caller]
    pub fn gemm(&mut self, name: &str, x: Value, weight: Value, bias: Value) -> Result<Value> {
        self.push(name, Op::Gemm, &[x, weight, bias])
    }

    /// See [`Op::MatMul`].
    #[track_caller]
    pub fn matmul(&mut self, name: &str, a: Value, b: Value) -> Result<Value> {
        self.push(name, Op::MatMul, &[a, b])
    }

    /// See [`Op::BatchNormalization`]; `operands`: x, scale, shift, mean, variance.
    #[track_caller]
    pub fn batch_norm(&mut self, name: &str, operands: [Value; 5], epsilon: f64) -> Result<Value> {
        self.push(name, Op::BatchNormalization { epsilon }, &operands)
    }

    /// See [`Op::LayerNormalization`]; `operands`: x, scale, shift.
    #[track_caller]
    pub fn layer_norm(&mut self, name: &str, operands: [Value; 3], epsilon: f64) -> Result<Value> {
        self.push(name, Op::LayerNormalization { epsilon }, &operands)
    }

    /// Over the last axis.
    #[track_caller]
    pub fn softmax(&mut self, name: &str, x: Value) -> Result<Value> {
        self.push(name, Op::Softmax, &[x])
    }

    #[track_caller]
    pub fn unary(&mut self, name: &str, op: Unary, x: Value) -> Result<Value> {
        self.push(name, Op::Unary(op), &[x])
    }

    #[track_caller]
    pub fn binary(&mut self, name: &str, op: Binary, a: Value, b: Value) -> Result<Value> {
        self.push(name, Op::Binary(op), &[a, b])
    }

    /// The mean over `axes`.
    #[track_caller]
    pub fn reduce_mean(&mut self, name: &str, x: Value, axes: &[usize], keep: bool) -> Result<Value> {
        self.push(name, Op::ReduceMean { axes: axes.to_vec(), keep }, &[x])
    }

    /// The same elements in another shape.
    #[track_caller]
    pub fn reshape(&mut self, name: &str, x: Value, shape: impl Into<Shape>) -> Result<Value> {
        let shape = shape.into();
        if shape.elements().is_none() || shape.elements() != self.shape(x).elements() {
            let why = format!("expected as many elements as in {shape}");
            return Err(self.refuse(Op::Reshape.onnx_name(), name, &[x], &why));
        }
        Ok(self.append(name, Op::Reshape, &[x], vec![shape])[0])
    }

    #[track_caller]
    pub fn transpose(&mut self, name: &str, x: Value, perm: &[usize]) -> Result<Value> {
        self.push(name, Op::Transpose { perm: perm.to_vec() }, &[x])
    }

    /// Equal parts of `axis`.
    #[track_caller]
    pub fn halves(&mut self, name: &str, x: Value, axis: usize) -> Result<[Value; 2]> {
        let extent = self.shape(x).0.get(axis).and_then(|d| d.over(2)).map_or(0, Dim::at_batch_one);
        let parts = self.push_all(name, Op::Split { axis, sizes: vec![extent; 2] }, &[x])?;
        Ok([parts[0], parts[1]])
    }

    /// Zeros below and to the right of a feature map.
    #[track_caller]
    pub fn pad(&mut self, name: &str, x: Value, bottom: usize, right: usize) -> Result<Value> {
        self.push(name, Op::Pad { bottom, right }, &[x])
    }

    /// The upper left part of a feature map.
    #[track_caller]
    pub fn crop(&mut self, name: &str, x: Value, height: usize, width: usize) -> Result<Value> {
        self.push(name, Op::Crop { height, width }, &[x])
    }

    #[track_caller]
    fn push(&mut self, name: &str, op: Op, inputs: &[Value]) -> Result<Value> {
        self.push_all(name, op, inputs).map(|outputs| outputs[0])
    }

    #[track_caller]
    fn push_all(&mut self, name: &str, op: Op, inputs: &[Value]) -> Result<Vec<Value>> {
        let shapes: Vec<&Shape> = inputs.iter().map(|&v| self.shape(v)).collect();
        match shape::infer(&op, &shapes) {
            Ok(outputs) => Ok(self.append(name, op, inputs, outputs)),
            Err(why) => Err(self.refuse(op.onnx_name(), name, inputs, &why)),
        }
    }

    fn append(&mut self, name: &str, op: Op, inputs: &[Value], shapes: Vec<Shape>) -> Vec<Value> {
        let name = self.path(name);
        let single = shapes.len() == 1;
        let outputs: Vec<Value> = shapes
            .into_iter()
            .enumerate()
            .map(|(i, shape)| {
                let name = if single { name.clone() } else { format!("{name}.{i}") };
                self.value(name, shape, None)
            })
            .collect();
        self.graph.nodes.push(Node { name, op, inputs: inputs.to_vec(), outputs: outputs.clone() });
        outputs
    }

    fn value(&mut self, name: String, shape: Shape, constant: Option<Source>) -> Value {
        self.graph.values.push(ValueInfo { name, shape, constant });
        Value(self.graph.values.len() - 1)
    }

    #[track_caller]
    fn refuse(&self, operator: &str, name: &str, inputs: &[Value], why: &str) -> Error {
        let shapes: Vec<String> = inputs.iter().map(|&v| self.shape(v).to_string()).collect();
        let line = Location::caller();
        Error::new(format!("{operator} of {}: {why} (built at {line})", shapes.join(", ")))
            .at(self.path(name))
    }
}
