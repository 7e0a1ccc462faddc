//! The typed graph builder: one method an operator.
//!
//! A value has its shape the moment it exists. What does not fit is refused on the spot,
//! with the node, the operator, the operands' shapes and the line of the caller.

use std::panic::Location;

use emo_proto::tensor_proto::DataType;
use emo_proto::{Error, Result};

use crate::graph::{Dim, Graph, Node, Part, Shape, Source, Value, ValueInfo};
use crate::op::{Binary, Op, Resize, Unary};
use crate::profile::Resizing;
use crate::rewrite::Rewrite;
use crate::shape;

/// Builds a [`Graph`] node by node.
#[derive(Debug, Default)]
pub struct Builder {
    graph: Graph,
    scope: Vec<String>,
    part: Part,
    /// Behind the names of nodes whose weights are shared, while such are added.
    tag: Option<String>,
}

impl Builder {
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { graph: Graph { name: name.to_owned(), ..Graph::default() }, ..Self::default() }
    }

    /// Everything that `body` adds is named below `scope`: `v` in `stage3.1` makes `stage3.1.v`. An empty scope is
    /// the one that is open.
    pub fn within<T>(&mut self, scope: &str, body: impl FnOnce(&mut Self) -> T) -> T {
        if scope.is_empty() {
            return body(self);
        }
        self.scope.push(scope.to_owned());
        let result = body(self);
        self.scope.pop();
        result
    }

    /// Everything that `body` adds has `tag` behind its name, but for parameters, which are those of the first time.
    pub fn again<T>(&mut self, tag: &str, body: impl FnOnce(&mut Self) -> T) -> T {
        let outer = self.tag.replace(tag.to_owned());
        let result = body(self);
        self.tag = outer;
        result
    }

    /// Everything that `body` adds belongs to `part`.
    pub fn part<T>(&mut self, part: Part, body: impl FnOnce(&mut Self) -> T) -> T {
        let outer = std::mem::replace(&mut self.part, part);
        let result = body(self);
        self.part = outer;
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

    pub fn input(&mut self, name: &str, shape: impl Into<Shape>, dtype: DataType) -> Value {
        let value = self.value(name.to_owned(), shape.into(), dtype, None);
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
        self.constant(name, shape, Source::Parameter)
    }

    /// A constant `name` of this scope.
    pub(crate) fn constant(&mut self, name: &str, shape: impl Into<Shape>, source: Source) -> Value {
        let path = self.path(name);
        let shared = self.tag.as_ref().and_then(|_| self.graph.values.iter().position(|v| v.name == path));
        shared.map_or_else(|| self.value(path, shape.into(), DataType::Float, Some(source)), Value)
    }

    /// A number that is no parameter; equal numbers are one value.
    pub fn scalar(&mut self, number: f32) -> Value {
        self.numbers(&format!("constant.{number}"), Shape(Vec::new()), vec![number])
    }

    /// Numbers that are no parameters; equal names are one value.
    pub(crate) fn numbers(&mut self, name: &str, shape: Shape, numbers: Vec<f32>) -> Value {
        match self.graph.values.iter().position(|v| v.constant.is_some() && v.name == name) {
            Some(index) => Value(index),
            None => self.value(name.to_owned(), shape, DataType::Float, Some(Source::Numbers(numbers))),
        }
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
        dilation: usize,
        group: usize,
    ) -> Result<Value> {
        self.push(name, Op::Conv { stride, pad, dilation, group }, operands)
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

    /// Parts of `axis`, one behind the other.
    #[track_caller]
    pub fn concat(&mut self, name: &str, parts: &[Value], axis: usize) -> Result<Value> {
        self.push(name, Op::Concat { axis }, parts)
    }

    /// Parts of these extents of `axis`; one part is the value itself.
    #[track_caller]
    pub fn split_into(&mut self, name: &str, x: Value, axis: usize, sizes: &[usize]) -> Result<Vec<Value>> {
        match sizes {
            [_] => Ok(vec![x]),
            _ => self.push_all(name, Op::Split { axis, sizes: sizes.to_vec() }, &[x]),
        }
    }

    /// So many equal parts of `axis`; one part is the value itself.
    #[track_caller]
    pub fn split(&mut self, name: &str, x: Value, axis: usize, parts: usize) -> Result<Vec<Value>> {
        if parts == 1 {
            return Ok(vec![x]);
        }
        let extent = self.shape(x).0.get(axis).and_then(|d| d.over(parts)).map_or(0, Dim::at_batch_one);
        self.push_all(name, Op::Split { axis, sizes: vec![extent; parts] }, &[x])
    }

    /// So many zeros before the start and behind the end of each axis.
    #[track_caller]
    pub fn pad(&mut self, name: &str, x: Value, before: &[usize], behind: &[usize]) -> Result<Value> {
        self.push(name, Op::Pad { before: before.to_vec(), behind: behind.to_vec() }, &[x])
    }

    /// See [`Op::Clip`].
    #[track_caller]
    pub fn clip(&mut self, name: &str, x: Value, lowest: f32, highest: f32) -> Result<Value> {
        let [lowest, highest] = [lowest, highest].map(|bound| self.scalar(bound));
        self.push(name, Op::Clip, &[x, lowest, highest])
    }

    /// The first `extents` elements of `axes`.
    #[track_caller]
    pub fn crop(&mut self, name: &str, x: Value, axes: &[usize], extents: &[usize]) -> Result<Value> {
        self.push(name, Op::Crop { axes: axes.to_vec(), extents: extents.to_vec() }, &[x])
    }

    /// See [`Op::SpaceToDepth`].
    #[track_caller]
    pub fn space_to_depth(&mut self, name: &str, x: Value, block: usize) -> Result<Value> {
        self.push(name, Op::SpaceToDepth { block }, &[x])
    }

    /// See [`Op::DepthToSpace`].
    #[track_caller]
    pub fn depth_to_space(&mut self, name: &str, x: Value, block: usize) -> Result<Value> {
        self.push(name, Op::DepthToSpace { block }, &[x])
    }

    /// See [`Op::GlobalAveragePool`].
    #[track_caller]
    pub fn global_average_pool(&mut self, name: &str, x: Value) -> Result<Value> {
        self.push(name, Op::GlobalAveragePool, &[x])
    }

    /// See [`Op::AveragePool`].
    #[track_caller]
    pub fn average_pool(
        &mut self,
        name: &str,
        x: Value,
        kernel: [usize; 2],
        stride: [usize; 2],
    ) -> Result<Value> {
        self.push(name, Op::AveragePool { kernel, stride }, &[x])
    }

    /// See [`Op::Resize`]; to the same size is refused.
    #[track_caller]
    pub fn resize(
        &mut self,
        name: &str,
        x: Value,
        mode: Resize,
        size: [usize; 2],
        resizing: Resizing,
    ) -> Result<Value> {
        self.push(name, Op::Resize { mode, size, resizing }, &[x])
    }

    /// See [`Op::ArgMax`].
    #[track_caller]
    pub fn arg_max(&mut self, name: &str, x: Value, axis: usize) -> Result<Value> {
        self.push(name, Op::ArgMax { axis }, &[x])
    }

    /// See [`Op::TopK`]: the elements and their places.
    #[track_caller]
    pub fn top(&mut self, name: &str, x: Value, count: usize) -> Result<[Value; 2]> {
        self.push_all(name, Op::TopK { count }, &[x]).map(|outputs| [outputs[0], outputs[1]])
    }

    /// See [`Op::Gather`].
    #[track_caller]
    pub fn gather(&mut self, name: &str, x: Value, places: Value) -> Result<Value> {
        self.push(name, Op::Gather, &[x, places])
    }

    /// See [`Op::Quotient`] and [`Op::Remainder`].
    #[track_caller]
    pub fn divide(&mut self, [quotient, remainder]: [&str; 2], x: Value, by: usize) -> Result<[Value; 2]> {
        let quotient = self.push(quotient, Op::Quotient { by }, &[x])?;
        Ok([quotient, self.push(remainder, Op::Remainder { by }, &[x])?])
    }

    /// See [`Op::NonMaxSuppression`].
    #[track_caller]
    pub fn suppress(
        &mut self,
        name: &str,
        [boxes, scores]: [Value; 2],
        most: usize,
        iou: f32,
        score: f32,
    ) -> Result<Value> {
        self.push(name, Op::NonMaxSuppression { most, iou, score }, &[boxes, scores])
    }

    /// See [`Op::ScatterNd`].
    #[track_caller]
    pub fn scatter(&mut self, name: &str, x: Value, places: Value, elements: Value) -> Result<Value> {
        self.push(name, Op::ScatterNd, &[x, places, elements])
    }

    /// See [`Op::ReduceSum`].
    #[track_caller]
    pub fn sum(&mut self, name: &str, x: Value) -> Result<Value> {
        self.push(name, Op::ReduceSum, &[x])
    }

    #[track_caller]
    pub fn cast(&mut self, name: &str, x: Value, to: DataType) -> Result<Value> {
        self.push(name, Op::Cast { to }, &[x])
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
        let mut name = self.path(name);
        if let Some(tag) = &self.tag {
            name = format!("{name}.{tag}");
        }
        let single = shapes.len() == 1;
        let dtype = match op {
            Op::Cast { to } => to,
            Op::ArgMax { .. } | Op::NonMaxSuppression { .. } => DataType::Int64,
            _ => inputs.first().map_or(DataType::Float, |&v| self.graph.value(v).dtype),
        };
        let outputs: Vec<Value> = shapes
            .into_iter()
            .enumerate()
            .map(|(i, shape)| {
                let name = if single { name.clone() } else { format!("{name}.{i}") };
                let places = matches!(op, Op::TopK { .. }) && i == 1;
                self.value(name, shape, if places { DataType::Int64 } else { dtype }, None)
            })
            .collect();
        let (inputs, part) = (inputs.to_vec(), self.part);
        self.graph.nodes.push(Node { name, op, inputs, outputs: outputs.clone(), part });
        outputs
    }

    fn value(&mut self, name: String, shape: Shape, dtype: DataType, constant: Option<Source>) -> Value {
        self.graph.values.push(ValueInfo { name, shape, dtype, constant });
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
