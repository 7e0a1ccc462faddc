//! What a file would take once decoded, told by its bytes before anything is decoded.
//!
//! Two bytes are an empty node, which takes hundreds once decoded: what is mostly such messages is a trap, and
//! is refused for the price of reading it.

use crate::*;

/// Bytes that messages may take for each byte of the file; what exporters write takes 5 to 20.
const MOST_TIMES: usize = 40;
/// Beyond that, so that small files need no care.
const SLACK: usize = 1 << 20;
/// Messages within messages, protobuf's own limit.
const MOST_DEPTH: usize = 100;

/// A message that repeats or nests, with what it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    Sparse,
    Value,
    Type,
    Typed,
    Shape,
    Dimension,
    Function,
    Training,
    Annotation,
    Entry,
    Opset,
    Device,
    Sharding,
    Configuration,
    Text,
}

impl Kind {
    const fn size(self) -> usize {
        match self {
            Kind::Model => size_of::<ModelProto>(),
            Kind::Graph => size_of::<GraphProto>(),
            Kind::Node => size_of::<NodeProto>(),
            Kind::Attribute => size_of::<AttributeProto>(),
            Kind::Tensor => size_of::<TensorProto>(),
            Kind::Sparse => size_of::<SparseTensorProto>(),
            Kind::Value => size_of::<ValueInfoProto>(),
            Kind::Type => size_of::<TypeProto>(),
            Kind::Dimension => size_of::<tensor_shape_proto::Dimension>(),
            Kind::Function => size_of::<FunctionProto>(),
            Kind::Training => size_of::<TrainingInfoProto>(),
            Kind::Annotation => size_of::<TensorAnnotation>(),
            Kind::Entry => size_of::<StringStringEntryProto>(),
            Kind::Opset => size_of::<OperatorSetIdProto>(),
            Kind::Device => size_of::<NodeDeviceConfigurationProto>(),
            Kind::Sharding => size_of::<ShardingSpecProto>(),
            Kind::Configuration => size_of::<DeviceConfigurationProto>(),
            Kind::Text => size_of::<String>(),
            // Part of the message around it.
            Kind::Typed | Kind::Shape => 0,
        }
    }
}

/// The fields that hold messages, or texts any number of times: in what, which, what.
const FIELDS: &[(Kind, &[u32], Kind)] = &[
    (Kind::Model, &[7], Kind::Graph),
    (Kind::Model, &[8], Kind::Opset),
    (Kind::Model, &[14], Kind::Entry),
    (Kind::Model, &[20], Kind::Training),
    (Kind::Model, &[25], Kind::Function),
    (Kind::Model, &[26], Kind::Configuration),
    (Kind::Configuration, &[3], Kind::Text),
    (Kind::Training, &[1, 2], Kind::Graph),
    (Kind::Training, &[3, 4], Kind::Entry),
    (Kind::Function, &[4, 5, 6], Kind::Text),
    (Kind::Function, &[7], Kind::Node),
    (Kind::Function, &[9], Kind::Opset),
    (Kind::Function, &[11], Kind::Attribute),
    (Kind::Function, &[12], Kind::Value),
    (Kind::Function, &[14], Kind::Entry),
    (Kind::Graph, &[1], Kind::Node),
    (Kind::Graph, &[5], Kind::Tensor),
    (Kind::Graph, &[15], Kind::Sparse),
    (Kind::Graph, &[11, 12, 13], Kind::Value),
    (Kind::Graph, &[14], Kind::Annotation),
    (Kind::Graph, &[16], Kind::Entry),
    (Kind::Annotation, &[2], Kind::Entry),
    (Kind::Node, &[1, 2], Kind::Text),
    (Kind::Node, &[5], Kind::Attribute),
    (Kind::Node, &[9], Kind::Entry),
    (Kind::Node, &[10], Kind::Device),
    (Kind::Device, &[2], Kind::Sharding),
    (Kind::Attribute, &[5, 10], Kind::Tensor),
    (Kind::Attribute, &[6, 11], Kind::Graph),
    (Kind::Attribute, &[22, 23], Kind::Sparse),
    (Kind::Attribute, &[14, 15], Kind::Type),
    (Kind::Attribute, &[9], Kind::Text),
    (Kind::Sparse, &[1, 2], Kind::Tensor),
    (Kind::Tensor, &[6], Kind::Text),
    (Kind::Tensor, &[13, 16], Kind::Entry),
    (Kind::Value, &[2], Kind::Type),
    (Kind::Value, &[4], Kind::Entry),
    (Kind::Type, &[1, 4, 5, 8, 9], Kind::Typed),
    // An element type is field 1 as a number and as a message; a shape or a value's type is field 2.
    (Kind::Typed, &[1], Kind::Type),
    (Kind::Typed, &[2], Kind::Shape),
    (Kind::Shape, &[1], Kind::Dimension),
];

/// Refuses bytes whose messages would take many times what they are, or nest too deeply.
///
/// What is no message is left to the decoder, which says why.
pub(crate) fn bounded(bytes: &[u8]) -> Result<()> {
    let most = bytes.len().saturating_mul(MOST_TIMES).saturating_add(SLACK);
    let mut left = most;
    weigh(bytes, Kind::Model, 0, &mut left)
}

fn weigh(bytes: &[u8], kind: Kind, depth: usize, left: &mut usize) -> Result<()> {
    if depth > MOST_DEPTH {
        return Err(Error::new(format!("expected messages that nest to {MOST_DEPTH} at most")));
    }
    let mut fields = Fields(bytes);
    while let Some((tag, held)) = fields.next() {
        let row = FIELDS.iter().find(|(around, tags, _)| *around == kind && tags.contains(&tag));
        let (Some((_, _, inner)), Some(held)) = (row, held) else { continue };
        *left = left.checked_sub(inner.size()).ok_or_else(|| {
            Error::new(format!(
                "expected messages that take {MOST_TIMES} times their bytes at most once decoded, found more: \
                 they are mostly empty"
            ))
        })?;
        if *inner != Kind::Text && !held.is_empty() {
            weigh(held, *inner, depth + 1, left)?;
        }
    }
    Ok(())
}

/// How often each of these fields is there.
pub(crate) fn count<const N: usize>(bytes: &[u8], tags: [u32; N]) -> [usize; N] {
    let mut counts = [0; N];
    let mut fields = Fields(bytes);
    while let Some((tag, _)) = fields.next() {
        if let Some(at) = tags.iter().position(|&t| t == tag) {
            counts[at] += 1;
        }
    }
    counts
}

/// The bytes of a field that its length precedes; `None` where they are cut short.
pub(crate) fn delimited(bytes: &[u8]) -> Option<&[u8]> {
    Fields(bytes).delimited()
}

/// The fields of a message, up to the first that is none.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// The next field's number, and its bytes where its length precedes them.
    fn next(&mut self) -> Option<(u32, Option<&'a [u8]>)> {
        let key = self.varint()?;
        let tag = u32::try_from(key >> 3).ok()?;
        let held = match key & 7 {
            0 => self.varint().map(|_| None)?,
            1 => self.take(8).map(|_| None)?,
            2 => Some(self.delimited()?),
            5 => self.take(4).map(|_| None)?,
            // Groups, which the schema does not have.
            _ => return None,
        };
        Some((tag, held))
    }

    fn delimited(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.varint()?).ok()?;
        self.take(length)
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for (i, &byte) in self.0.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                self.0 = &self.0[i + 1..];
                return Some(value);
            }
        }
        None
    }
}
