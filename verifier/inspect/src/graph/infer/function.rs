//! Functions that a model defines for itself.

use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;

use emo_proto::text::label;
use emo_proto::{AttributeProto, FunctionProto, GraphProto, NodeProto};

use super::Values;
use super::walk::{Held, Scope, Visit, Walk, domain, opsets};
use crate::fact::Fact;
use crate::ops::Arguments;

impl<'a> Walk<'a, '_> {
    /// The function of the model that the node calls: it goes before an operator of its name.
    pub(super) fn function(&self, node: &NodeProto) -> Option<&'a FunctionProto> {
        if self.functions.is_empty() {
            return None;
        }
        self.functions.get(&(domain(node.domain()), node.op_type(), node.overload())).copied()
    }

    pub(super) fn call(
        &mut self,
        node: &'a NodeProto,
        inputs: &[Option<Arc<Fact>>],
        function: &'a FunctionProto,
    ) -> Visit {
        if self.calls.contains(&std::ptr::from_ref(function)) {
            return Visit::failed(format!("the function {} calls itself", function.name()));
        }
        if inputs.len() > function.input.len() {
            return Visit::failed(format!(
                "expected {} operands at most for the function {}, found {}",
                function.input.len(),
                function.name(),
                inputs.len()
            ));
        }
        let (mut values, mut absent) = (Values::default(), HashSet::new());
        for (i, name) in function.input.iter().enumerate() {
            match inputs.get(i).cloned().flatten() {
                Some(fact) => drop(values.insert(name.as_str(), fact)),
                None => drop(absent.insert(name.as_str())),
            }
        }
        let mut arguments: Arguments =
            function.attribute_proto.iter().map(|attribute| (attribute.name(), attribute)).collect();
        for attribute in &node.attribute {
            if let Some(value) = self.resolved(attribute) {
                arguments.insert(attribute.name(), value);
            }
        }
        let around = self.scope();
        let scope = Scope {
            values,
            absent,
            captures: false,
            opsets: if function.opset_import.is_empty() {
                around.opsets.clone()
            } else {
                opsets(&function.opset_import)
            },
            arguments: Rc::new(arguments),
            path: format!("{}{}/", around.path, label(node)).into(),
            multiplicity: around.multiplicity.clone(),
            id: 0,
            at: 0,
        };
        self.calls.push(function);
        let outputs = function.output.iter().map(String::as_str);
        let walked = self.enter(scope, Held::Function(function), outputs);
        self.calls.pop();
        walked.map_or_else(Visit::failed, Visit::free)
    }

    /// The attribute, or the one of the function around that it refers to.
    pub(super) fn resolved(&mut self, attribute: &'a AttributeProto) -> Option<&'a AttributeProto> {
        match attribute.ref_attr_name.as_deref() {
            None | Some("") => Some(attribute),
            Some(argument) => self.scope().arguments.get(argument).copied(),
        }
    }

    /// A graph that the node holds.
    pub(super) fn body(&mut self, node: &'a NodeProto, name: &str) -> Result<&'a GraphProto, String> {
        let attribute = node.attribute.iter().find(|a| a.name() == name);
        let graph = attribute.and_then(|a| self.resolved(a)).and_then(|a| a.g.as_deref());
        graph.ok_or_else(|| format!("expected a graph as {name}, found none"))
    }
}
