//! What is known of a value before the graph runs.

use std::sync::Arc;

use emo_proto::tensor_proto::DataType;

use crate::sym::Expr;

/// Integer tensors of up to this many elements are followed element by element: shapes,
/// axes, pads. Weights never are.
pub const MOST_ELEMENTS: usize = 1 << 12;

/// The type of a value, its elements where they are small integers, and the constants
/// that it is made of where it is one.
#[derive(Debug, Clone, PartialEq)]
pub struct Fact {
    pub dtype: DataType,
    /// The extents, or why not even their number is known.
    pub dims: Result<Vec<Expr>, Arc<str>>,
    /// The elements, row-major.
    pub elements: Option<Arc<[Expr]>>,
    /// The constants that alone decide the value, by index; `None` when an input does.
    pub leaves: Option<Arc<[usize]>>,
}

impl Fact {
    #[must_use]
    pub fn new(dtype: DataType, dims: Vec<Expr>) -> Self {
        Self { dtype, dims: Ok(dims), elements: None, leaves: None }
    }

    #[must_use]
    pub fn unknown(dtype: DataType, reason: &str) -> Self {
        Self { dtype, dims: Err(reason.into()), elements: None, leaves: None }
    }

    /// A one-dimensional integer tensor of these elements.
    #[must_use]
    pub fn list(elements: Vec<Expr>) -> Self {
        Self::new(DataType::Int64, vec![elements.len().into()]).holding(Some(elements))
    }

    /// The same value with its elements, if there are as many as its extents say.
    #[must_use]
    pub fn holding(mut self, elements: Option<Vec<Expr>>) -> Self {
        let fits = |e: &Vec<Expr>| e.len() <= MOST_ELEMENTS && self.count().is(e.len() as i64);
        self.elements = elements.filter(fits).map(Into::into);
        self
    }

    /// The number of elements.
    #[must_use]
    pub fn count(&self) -> Expr {
        match &self.dims {
            Ok(dims) => dims.iter().cloned().product(),
            Err(reason) => Expr::unknown(reason),
        }
    }

    #[must_use]
    pub fn rank(&self) -> Option<usize> {
        self.dims.as_ref().ok().map(Vec::len)
    }

    #[must_use]
    pub fn is_float(&self) -> bool {
        use DataType::{Bfloat16, Double, Float, Float16};
        matches!(self.dtype, Float | Float16 | Bfloat16 | Double)
    }
}
