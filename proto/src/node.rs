//! One call of an operator or function, as small as a graph of a million of them asks for.
//!
//! What derived code reads and writes as a `oneof` is a field here that has a type of its own.

use std::ops::Deref;
use std::sync::Arc;

use bytes::{Buf, BufMut};
use prost::encoding::{
    DecodeContext, WireType, encode_key, encode_varint, encoded_len_varint, key_len, string,
};
use prost::{DecodeError, Message};

use crate::{AttributeProto, NodeDeviceConfigurationProto, StringStringEntryProto};

/// One call of an operator or function.
#[derive(Clone, PartialEq, Message)]
pub struct NodeProto {
    /// Value names in the operator's order; an empty name skips an optional input.
    #[prost(string, repeated, tag = "1")]
    pub input: Vec<String>,
    /// Value names in the operator's order; an empty name skips an optional output.
    #[prost(string, repeated, tag = "2")]
    pub output: Vec<String>,
    #[prost(string, optional, tag = "3")]
    pub name: Option<String>,
    #[prost(oneof = "Operator", tags = "4")]
    pub op_type: Option<Operator>,
    #[prost(message, repeated, tag = "5")]
    pub attribute: Vec<AttributeProto>,
    /// What few nodes have; [`NodeProto::rare`] writes it.
    #[prost(oneof = "Rare", tags = "6, 7, 8, 9, 10")]
    pub rare: Option<Rare>,
}

/// The name of an operator. A graph has many nodes and few operators: each name is kept once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator(Arc<str>);

impl<T: Into<Arc<str>>> From<T> for Operator {
    fn from(name: T) -> Self {
        Self(name.into())
    }
}

impl Deref for Operator {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Operator {
    /// Gives the name up for that of `known` which is the same, or adds it to them.
    pub(crate) fn shared(&mut self, known: &mut Vec<Operator>) {
        match known.iter().find(|known| *known == self) {
            Some(known) => self.clone_from(known),
            None if known.len() < MOST_SHARED => known.push(self.clone()),
            None => {}
        }
    }

    fn merge(
        operator: &mut Option<Self>,
        _: u32,
        wire: WireType,
        bytes: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        let mut name = String::new();
        string::merge(wire, &mut name, bytes, context)?;
        *operator = Some(name.into());
        Ok(())
    }

    fn encode(&self, bytes: &mut impl BufMut) {
        encode_key(OPERATOR, WireType::LengthDelimited, bytes);
        encode_varint(self.0.len() as u64, bytes);
        bytes.put_slice(self.0.as_bytes());
    }

    fn encoded_len(&self) -> usize {
        let length = self.0.len();
        key_len(OPERATOR) + encoded_len_varint(length as u64) + length
    }
}

/// The number of an operator's name.
const OPERATOR: u32 = 4;
/// Names that are kept once: files have a few dozen operators.
const MOST_SHARED: usize = 64;

/// The fields of a node that few nodes have.
#[derive(Clone, PartialEq, Message)]
pub struct RareFields {
    #[prost(string, optional, tag = "6")]
    pub doc_string: Option<String>,
    /// The operator set of `op_type`; empty is ONNX's own.
    #[prost(string, optional, tag = "7")]
    pub domain: Option<String>,
    /// Tells functions of one domain and name apart.
    #[prost(string, optional, tag = "8")]
    pub overload: Option<String>,
    #[prost(message, repeated, tag = "9")]
    pub metadata_props: Vec<StringStringEntryProto>,
    #[prost(message, repeated, tag = "10")]
    pub device_configurations: Vec<NodeDeviceConfigurationProto>,
}

/// The same in a place of their own, which derived code reads and writes as it does a `oneof`.
#[derive(Debug, Clone, PartialEq)]
pub struct Rare(Box<RareFields>);

impl Rare {
    fn merge(
        rare: &mut Option<Self>,
        tag: u32,
        wire: WireType,
        bytes: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        let Self(fields) = rare.get_or_insert_with(|| Self(Box::default()));
        fields.merge_field(tag, wire, bytes, context)
    }

    fn encode(&self, bytes: &mut impl BufMut) {
        self.0.encode_raw(bytes);
    }

    fn encoded_len(&self) -> usize {
        self.0.encoded_len()
    }
}

impl NodeProto {
    /// The fields that few nodes have, to be written to.
    pub fn rare(&mut self) -> &mut RareFields {
        &mut self.rare.get_or_insert_with(|| Rare(Box::default())).0
    }

    #[must_use]
    pub fn op_type(&self) -> &str {
        self.op_type.as_deref().unwrap_or_default()
    }

    /// The same node of a domain.
    #[must_use]
    pub fn of_domain(mut self, domain: &str) -> Self {
        self.rare().domain = Some(domain.to_owned());
        self
    }

    fn rare_fields(&self) -> Option<&RareFields> {
        self.rare.as_ref().map(|Rare(fields)| &**fields)
    }

    /// The operator set of `op_type`; empty is ONNX's own.
    #[must_use]
    pub fn domain(&self) -> &str {
        self.rare_fields().map_or("", RareFields::domain)
    }

    /// Tells functions of one domain and name apart.
    #[must_use]
    pub fn overload(&self) -> &str {
        self.rare_fields().map_or("", RareFields::overload)
    }

    #[must_use]
    pub fn doc_string(&self) -> &str {
        self.rare_fields().map_or("", RareFields::doc_string)
    }

    #[must_use]
    pub fn metadata_props(&self) -> &[StringStringEntryProto] {
        self.rare_fields().map_or(&[], |rare| &rare.metadata_props)
    }

    #[must_use]
    pub fn device_configurations(&self) -> &[NodeDeviceConfigurationProto] {
        self.rare_fields().map_or(&[], |rare| &rare.device_configurations)
    }
}
