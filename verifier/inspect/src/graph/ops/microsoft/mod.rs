//! `com.microsoft` and its layouts: what ONNX Runtime writes into optimised and quantised files.

pub(super) mod attention;
pub(in crate::graph::ops) mod experts;
pub(super) mod fused;
pub(super) mod layout;
pub(super) mod other;
pub(super) mod quantised;
