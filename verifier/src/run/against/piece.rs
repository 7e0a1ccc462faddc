//! The smallest wrong piece of a file, as a file of its own.

use std::collections::HashMap;

use emo_proto::file::OnnxFile;
use emo_proto::tensor_shape_proto::{Dimension, dimension};
use emo_proto::{ModelProto, TensorShapeProto, type_proto};
use ndarray::ArrayD;

use super::place::Piece;
use crate::data::{Ports, Set};
use crate::runtime::{Concrete, Cut, Form};

/// A piece of a file with what it takes in the run that showed the difference, and what it should give.
#[derive(Debug, Clone, PartialEq)]
pub struct Saved {
    pub model: ModelProto,
    pub set: Set,
}

impl Saved {
    #[must_use]
    pub fn ports(&self) -> Ports {
        Ports::of(&self.model)
    }
}

/// Cuts the piece out of `file`, whose inputs have the shapes `fed`; `None` where the graph cannot be cut there.
/// `arrays` are the values of the file and of the other.
pub fn saved(
    file: &OnnxFile,
    piece: &Piece,
    [own, other]: [&HashMap<&str, ArrayD<f32>>; 2],
    fed: &[(String, Vec<usize>)],
) -> Option<Saved> {
    let concrete = Concrete::new(file, fed).ok()?;
    let inputs: Vec<String> = piece.inputs.iter().map(|&name| name.to_owned()).collect();
    let Cut { mut model, .. } = concrete.cut(&inputs, &[piece.output.to_owned()], Form::Written).ok()?;
    // Whoever gets it checks it: an output declares its shape.
    let extents = concrete.shape(piece.output)?.iter().map(|&n| Dimension {
        value: i64::try_from(n).ok().map(dimension::Value::DimValue),
        ..Dimension::default()
    });
    let shape = TensorShapeProto { dim: extents.collect() };
    for output in model.graph.iter_mut().flat_map(|graph| &mut graph.output) {
        if let Some(type_proto::Value::TensorType(tensor)) =
            output.r#type.as_mut().and_then(|declared| declared.value.as_mut())
        {
            tensor.shape = Some(shape.clone());
        }
    }
    let expected = piece.expected.and_then(|name| other.get(name)).cloned();
    let inputs = piece.inputs.iter().map(|name| own.get(name).cloned()).collect::<Option<Vec<_>>>()?;
    let set = Set { name: "test_data_set_0".to_owned(), inputs, outputs: vec![expected] };
    Some(Saved { model, set })
}
