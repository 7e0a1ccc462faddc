//! What tract is known to compute wrongly: such a graph it does not get.
//!
//! Each row was found by `tests/peers/engines.py`, which runs every operator in every engine, and is kept by it.

use std::collections::HashMap;

use emo_proto::tensor::{External, Tensor};
use emo_proto::text::label;
use emo_proto::{AttributeProto, Error, GraphProto, NodeProto, TensorProto};

use super::{Concrete, Failure};
use crate::eval::range;

/// A form of an operator that tract gets wrong.
struct Fault {
    operator: &'static str,
    when: fn(&Sight) -> bool,
    /// What tract does, and what the operator says.
    why: &'static str,
}

const FAULTS: &[Fault] = &[
    Fault {
        operator: "BitShift",
        when: |s| range(s.dtype(0)).is_none_or(|(least, _)| least < 0.0),
        why: "of signed integers it shifts by the lowest bits of the distance",
    },
    Fault {
        operator: "Celu",
        when: |s| s.attribute("alpha").is_some_and(|a| a.f() != 1.0),
        why: "it takes alpha for 1 within the exponent",
    },
    Fault {
        operator: "Einsum",
        when: |s| {
            let (from, to) = s.text("equation").split_once("->").unwrap_or_default();
            s.node.input.len() == 1 && from.chars().any(|index| index.is_alphabetic() && !to.contains(index))
        },
        why: "of one operand it sums over no index",
    },
    Fault { operator: "GRU", when: |s| s.is_reverse(), why: REVERSE },
    Fault { operator: "LSTM", when: |s| s.is_reverse(), why: REVERSE },
    Fault { operator: "RNN", when: |s| s.is_reverse(), why: REVERSE },
    Fault {
        operator: "GridSample",
        when: |s| matches!(s.text("mode"), "cubic" | "bicubic") && s.text("padding_mode") == "border",
        why: "it bounds the place and not each of the four pixels around it",
    },
    Fault {
        operator: "Mod",
        when: |s| {
            s.attribute("fmod").is_none_or(|a| a.i() == 0)
                && range(s.dtype(0)).is_some_and(|(least, _)| least < 0.0)
                && !s.is_index_by_positives()
        },
        why: "the remainder of integers has the dividend's sign, which should be the divisor's",
    },
    Fault {
        operator: "Resize",
        when: |s| s.text("coordinate_transformation_mode") == "align_corners" && !s.has_whole_extents(),
        why: "with align_corners it takes the extents that scales give before they are made whole",
    },
    Fault {
        operator: "Resize",
        when: |s| {
            let to_one = s.outputs().is_none_or(|dims| dims.iter().skip(2).any(|&dim| dim == 1));
            s.text("coordinate_transformation_mode") == "pytorch_half_pixel" && to_one
        },
        why: "with pytorch_half_pixel it takes an extent of 1 from −0.5, which should be 0",
    },
    Fault {
        operator: "Slice",
        when: |s| s.starts_beyond(),
        why: "backwards from beyond the end it starts in another place than the last",
    },
    Fault {
        operator: "SpaceToDepth",
        when: |s| s.text("mode") == "CRD",
        why: "it does not know the mode CRD",
    },
    Fault {
        operator: "Swish",
        when: |s| s.attribute("alpha").is_some_and(|a| a.f() != 1.0),
        why: "it takes alpha for 1",
    },
];

const REVERSE: &str = "a cell that runs in reverse gives its states in another order";

/// A node with what is known of its values.
struct Sight<'a> {
    model: &'a Concrete<'a>,
    constants: &'a HashMap<&'a str, &'a TensorProto>,
    graph: &'a GraphProto,
    node: &'a NodeProto,
}

impl Sight<'_> {
    fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        self.node.attribute.iter().find(|a| a.name() == name)
    }

    fn text(&self, name: &str) -> &str {
        self.attribute(name).and_then(|a| std::str::from_utf8(a.s()).ok()).unwrap_or_default()
    }

    fn is_reverse(&self) -> bool {
        self.text("direction") == "reverse"
    }

    fn dtype(&self, operand: usize) -> emo_proto::tensor_proto::DataType {
        self.node.input.get(operand).map_or(Default::default(), |name| self.model.dtype(name))
    }

    /// Whether the first operand is places in a tensor, which are not negative, and the second positive constants.
    fn is_index_by_positives(&self) -> bool {
        let places = |node: &NodeProto| match node.op_type() {
            "ArgMax" | "ArgMin" | "NonZero" | "NonMaxSuppression" | "Shape" | "Size" => true,
            "TopK" => node.output.get(1) == self.node.input.first(),
            _ => false,
        };
        let makes = |node: &&NodeProto| node.output.iter().any(|name| Some(name) == self.node.input.first());
        let made = self.graph.node.iter().find(makes).is_some_and(places);
        made && self.integers("", 1).is_some_and(|by| by.iter().all(|&by| by > 0))
    }

    fn inputs(&self) -> Option<Vec<usize>> {
        Some(self.model.shape(self.node.input.first()?)?.to_vec())
    }

    fn outputs(&self) -> Option<Vec<usize>> {
        Some(self.model.shape(self.node.output.first()?)?.to_vec())
    }

    /// Integers that are an attribute, or a constant operand.
    fn integers(&self, name: &str, operand: usize) -> Option<Vec<i64>> {
        if let Some(attribute) = self.attribute(name) {
            return Some(attribute.ints.clone());
        }
        let constant = self.constants.get(self.node.input.get(operand)?.as_str())?;
        Tensor::decode(constant, &External::none()).ok()?.i64s().ok()
    }

    /// Whether a Resize says what its extents are, or by scales that give whole ones.
    fn has_whole_extents(&self) -> bool {
        let operand = |i: usize| self.node.input.get(i).filter(|name| !name.is_empty());
        let scales = operand(2).and_then(|name| self.constants.get(name.as_str()));
        let scales = scales.and_then(|t| Tensor::decode(t, &External::none()).ok()?.f64s().ok());
        let whole = scales.zip(self.inputs()).is_some_and(|(scales, dims)| {
            scales.len() == dims.len()
                && scales.iter().zip(dims).all(|(s, dim)| (s * dim as f64).fract() == 0.0)
        });
        operand(3).is_some() || whole
    }

    /// Whether a Slice goes backwards from beyond the end of an axis, or may do so.
    fn starts_beyond(&self) -> bool {
        if self.node.input.get(4).is_none_or(String::is_empty) {
            // Without steps it goes forwards.
            return false;
        }
        let (Some(starts), Some(steps), Some(dims)) =
            (self.integers("starts", 1), self.integers("steps", 4), self.inputs())
        else {
            return true;
        };
        let axes = self.integers("axes", 3).unwrap_or_else(|| (0..dims.len() as i64).collect());
        starts.iter().zip(&steps).zip(&axes).any(|((&start, &step), &axis)| {
            let axis = if axis < 0 { axis + dims.len() as i64 } else { axis };
            let side = usize::try_from(axis).ok().and_then(|axis| dims.get(axis));
            step < 0 && side.is_none_or(|&side| start >= side as i64)
        })
    }
}

/// The first node of `graph`, bodies included, that tract would compute wrongly.
pub(super) fn fault(model: &Concrete, graph: &GraphProto, runtime: &'static str) -> Option<Failure> {
    let mut constants: HashMap<&str, &TensorProto> =
        graph.initializer.iter().map(|t| (t.name(), t)).collect();
    for node in graph.node.iter().filter(|node| node.op_type() == "Constant") {
        let tensor = node.attribute.iter().find_map(|a| a.t.as_deref());
        constants.extend(node.output.first().map(String::as_str).zip(tensor));
    }
    graph.node.iter().find_map(|node| {
        let sight = Sight { model, constants: &constants, graph, node };
        let own = |fault: &&Fault| {
            fault.operator == node.op_type()
                && matches!(node.domain(), "" | "ai.onnx")
                && (fault.when)(&sight)
        };
        let refused = |fault: &Fault| Failure::Refused {
            runtime,
            why: Error::new(format!("{} is known to come out wrong: {}", fault.operator, fault.why))
                .at(label(node)),
        };
        let bodies = || node.attribute.iter().flat_map(|a| a.g.as_deref().into_iter().chain(&a.graphs));
        FAULTS.iter().find(own).map(refused).or_else(|| bodies().find_map(|body| fault(model, body, runtime)))
    })
}

#[cfg(test)]
mod tests {
    use emo_proto::tensor_proto::DataType;

    use super::super::testing::{
        array, attribute_of, file, floats, graph, int, ints, model, node, shapes, text, value,
    };
    use super::super::{Own, Runtime, Tract};
    use super::*;

    /// Each row by one node, and by another that is right in tract.
    #[test]
    fn a_known_fault_is_refused_and_its_neighbour_runs() {
        let x = |op: &str, attributes| node(op, &["x"], &["y"], attributes);
        let slice =
            |start| (node("Slice", &["x", start, "end", "axis", "step"], &["y"], vec![]), start == "far");
        let resize = |mode| vec![text("coordinate_transformation_mode", mode), text("mode", "linear")];
        let cases = [
            (x("Celu", vec![attribute_of("alpha", 2.0)]), true),
            (x("Celu", vec![]), false),
            (x("Einsum", vec![text("equation", "ij->")]), true),
            (x("Einsum", vec![text("equation", "ij->ji")]), false),
            (node("Einsum", &["x", "x"], &["y"], vec![text("equation", "ij,kj->ik")]), false),
            slice("far"),
            slice("near"),
            (node("Resize", &["x", "", "scales"], &["y"], resize("align_corners")), true),
            (node("Resize", &["x", "", "twice"], &["y"], resize("align_corners")), false),
            (node("Resize", &["x", "", "scales"], &["y"], resize("half_pixel")), false),
        ];
        for (node, wrong) in cases {
            let place = format!("{node:?}");
            let constants = vec![
                ints("far", &[100]),
                ints("near", &[-1]),
                ints("end", &[-100]),
                ints("axis", &[1]),
                ints("step", &[-2]),
                floats("scales", &[2], &[1.0, 0.7]),
                floats("twice", &[2], &[1.0, 2.0]),
            ];
            let input = vec![value("x", DataType::Float, Some(&[2, 5]))];
            let output = vec![value("y", DataType::Float, None)];
            let mut file = file(model(graph(input, constants, vec![node], output)));
            file.model.opset_import[0].version = Some(18);
            let numbers = array(&[2, 5], &[-2.0, -1.0, 0.5, 1.0, 2.0, 3.0, 5.0, 7.0, 11.0, 13.0]);
            let inputs = shapes(&[("x", &[2, 5])]);
            let own = Own.prepare(&file, &inputs, &[]).unwrap().run(std::slice::from_ref(&numbers)).unwrap();
            match Tract.prepare(&file, &inputs, &[]) {
                Ok(mut session) => {
                    assert!(!wrong, "{place}");
                    let found = session.run(std::slice::from_ref(&numbers)).unwrap();
                    assert!(
                        found[0].iter().zip(&own[0]).all(|(a, b)| (a - b).abs() < 1e-5),
                        "{place}: {found:?} {own:?}"
                    );
                }
                Err(failure) => assert!(wrong && failure.to_string().contains("known"), "{place}: {failure}"),
            }
        }
    }

    /// tract takes all that is between DequantizeLinear and QuantizeLinear for functions of single elements.
    #[test]
    fn softmax_between_units_of_a_scale_is_softmax() {
        let nodes = vec![
            node("Cast", &["x"], &["u"], vec![int("to", DataType::Uint8 as i64)]),
            node("DequantizeLinear", &["u", "s", "z"], &["d"], vec![]),
            node("Softmax", &["d"], &["p"], vec![]),
            node("QuantizeLinear", &["p", "t", "o"], &["q"], vec![]),
            node("Cast", &["q"], &["y"], vec![int("to", DataType::Float as i64)]),
        ];
        let byte = |name, x: u8| Tensor::new(DataType::Uint8, vec![], vec![x].into()).unwrap().encode(name);
        let float = |name, x| floats(name, &[], &[x]);
        let constants = vec![float("s", 0.03), byte("z", 128), float("t", 1.0 / 255.0), byte("o", 0)];
        let input = vec![value("x", DataType::Float, Some(&[2, 4]))];
        let file = file(model(graph(input, constants, nodes, vec![value("y", DataType::Float, None)])));
        let numbers = array(&[2, 4], &[1.0, 128.0, 200.0, 255.0, 90.0, 100.0, 110.0, 0.0]);
        let inputs = shapes(&[("x", &[2, 4])]);
        let run = |engine: &dyn Runtime| {
            engine
                .prepare(&file, &inputs, &[])
                .unwrap()
                .run(std::slice::from_ref(&numbers))
                .unwrap()
                .remove(0)
        };
        let (tract, own) = (run(&Tract), run(&Own));
        assert!((own.sum() - 510.0).abs() <= 4.0, "{own}");
        assert!(tract.iter().zip(&own).all(|(a, b)| (a - b).abs() <= 1.0), "{tract} {own}");
    }

    /// Places of a tensor are not negative, and of those tract has the remainder right.
    #[test]
    fn the_remainder_of_places_runs() {
        let nodes = vec![
            node("TopK", &["x", "k"], &["best", "places"], vec![int("axis", 0)]),
            node("Mod", &["places", "by"], &["y"], vec![]),
        ];
        let constants = vec![ints("k", &[5]), ints("by", &[3])];
        let input = vec![value("x", DataType::Float, Some(&[6]))];
        let mut file = file(model(graph(input, constants, nodes, vec![value("y", DataType::Int64, None)])));
        file.model.opset_import[0].version = Some(18);
        let numbers = array(&[6], &[1.0, 9.0, 3.0, 8.0, 2.0, 7.0]);
        for engine in [&Tract as &dyn Runtime, &Own] {
            let mut session = engine.prepare(&file, &shapes(&[("x", &[6])]), &[]).unwrap();
            let found = session.run(std::slice::from_ref(&numbers)).unwrap().remove(0);
            assert_eq!(
                found.iter().copied().collect::<Vec<_>>(),
                [1.0, 0.0, 2.0, 2.0, 1.0],
                "{}",
                engine.name()
            );
        }
    }
}
