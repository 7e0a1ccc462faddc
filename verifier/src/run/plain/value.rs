//! A value of the main graph, and its change of type.

use emo_proto::tensor_proto::DataType;
use emo_proto::{AttributeProto, NodeProto, attribute_proto};

/// Type and shape of a value of the main graph.
#[derive(Debug, Clone)]
pub(super) struct Value {
    pub dtype: DataType,
    /// `None` where an extent is not known before the graph runs.
    pub dims: Option<Vec<usize>>,
}

pub(super) fn cast(from: &str, to: &str, dtype: DataType) -> NodeProto {
    NodeProto {
        name: Some(format!("cast {from}")),
        op_type: Some("Cast".into()),
        input: vec![from.to_owned()],
        output: vec![to.to_owned()],
        attribute: vec![AttributeProto {
            name: Some("to".to_owned()),
            r#type: Some(attribute_proto::AttributeType::Int.into()),
            i: Some(i32::from(dtype).into()),
            ..AttributeProto::default()
        }],
        ..NodeProto::default()
    }
}
