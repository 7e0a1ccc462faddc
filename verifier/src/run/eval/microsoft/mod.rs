//! Operators of com.microsoft: what ONNX Runtime's optimiser and its quantisers write.

pub(super) mod attention;
pub(super) mod fused;
pub(super) mod quantised;
