//! `com.microsoft` and its layouts: what ONNX Runtime writes into optimised and quantised files.

pub(super) mod attention;
pub(super) mod fused;
pub(super) mod layout;
pub(super) mod quantised;
