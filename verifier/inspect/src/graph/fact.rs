//! What is known of a value before the graph runs.

use std::sync::Arc;

use emo_proto::tensor_proto::DataType;

use crate::real::Real;
use crate::sym::Expr;

/// Integer tensors of up to this many elements are followed element by element: shapes,
/// axes, pads. Weights never are.
pub const MOST_ELEMENTS: usize = 1 << 12;

/// So are floats, which are weights sooner: scales, bounds, limits.
pub const MOST_REALS: usize = 1 << 5;

/// Tensors of a sequence are followed one by one up to this many.
pub const MOST_ITEMS: usize = 1 << 8;

/// What sort of value it is.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Kind {
    #[default]
    Tensor,
    /// A sparse tensor; type and extents are those of the dense one.
    Sparse,
    Sequence(Arc<Sequence>),
    Optional(Arc<Fact>),
    /// From keys of a type to values.
    Map(DataType, Arc<Fact>),
    /// Of a type that no operator of ONNX knows.
    Opaque,
}

/// What is known of a sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct Sequence {
    /// What is true of every item.
    pub item: Fact,
    /// Each item, where their number is known.
    pub items: Option<Vec<Fact>>,
}

/// The type of a value, its elements where they are small integers, and the constant that it
/// is made of where it is one.
#[derive(Debug, Clone, PartialEq)]
pub struct Fact {
    pub kind: Kind,
    pub dtype: DataType,
    /// The extents, or why not even their number is known.
    pub dims: Result<Vec<Expr>, Arc<str>>,
    /// The elements of an integer tensor, row-major; of BOOL 0 and 1.
    pub elements: Option<Arc<[Expr]>>,
    /// The elements of a float tensor, row-major.
    pub reals: Option<Arc<[Real]>>,
    /// Where constants alone decide the value: an index into
    /// [`Inference::sources`](crate::infer::Inference::sources).
    pub source: Option<usize>,
}

impl Fact {
    #[must_use]
    pub fn new(dtype: DataType, dims: Vec<Expr>) -> Self {
        Self { dims: Ok(dims), ..Self::unknown(dtype, "") }
    }

    #[must_use]
    pub fn unknown(dtype: DataType, reason: &str) -> Self {
        let dims = Err(reason.into());
        Self { kind: Kind::Tensor, dtype, dims, elements: None, reals: None, source: None }
    }

    /// A value that is no tensor.
    #[must_use]
    pub fn of_kind(kind: Kind) -> Self {
        let reason = match kind {
            Kind::Tensor | Kind::Sparse => "its extents are not known",
            Kind::Sequence(_) => "a sequence has no extents",
            Kind::Optional(_) => "an optional value has no extents",
            Kind::Map(..) => "a map has no extents",
            Kind::Opaque => "an opaque value has no extents",
        };
        Self { kind, ..Self::unknown(DataType::Undefined, reason) }
    }

    #[must_use]
    pub fn sequence(item: Fact, items: Option<Vec<Fact>>) -> Self {
        let items = items.filter(|items| items.len() <= MOST_ITEMS);
        Self::of_kind(Kind::Sequence(Arc::new(Sequence { item, items })))
    }

    #[must_use]
    pub fn optional(holds: Fact) -> Self {
        Self::of_kind(Kind::Optional(Arc::new(holds)))
    }

    /// A tensor without axes.
    #[must_use]
    pub fn scalar(dtype: DataType) -> Self {
        Self::new(dtype, Vec::new())
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

    /// The same for floats.
    #[must_use]
    pub fn holding_reals(mut self, reals: Option<Vec<Real>>) -> Self {
        let fits = |r: &Vec<Real>| r.len() <= MOST_REALS && self.count().is(r.len() as i64);
        self.reals = reals.filter(fits).map(Into::into);
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
    pub fn is_tensor(&self) -> bool {
        matches!(self.kind, Kind::Tensor)
    }

    /// Whether the elements are real numbers in a float format of any width.
    #[must_use]
    pub fn is_float(&self) -> bool {
        use DataType::*;
        match self.dtype {
            Float | Float16 | Bfloat16 | Double | Float4e2m1 | Float6e2m3 | Float6e3m2 => true,
            Float8e4m3fn | Float8e4m3fnuz | Float8e5m2 | Float8e5m2fnuz | Float8e8m0 => true,
            Undefined | String | Bool | Complex64 | Complex128 => false,
            Uint2 | Uint4 | Uint8 | Uint16 | Uint32 | Uint64 => false,
            Int2 | Int4 | Int8 | Int16 | Int32 | Int64 => false,
        }
    }

    /// Whether the elements are integers.
    #[must_use]
    pub fn is_integer(&self) -> bool {
        use DataType::*;
        let unsigned = matches!(self.dtype, Uint2 | Uint4 | Uint8 | Uint16 | Uint32 | Uint64);
        unsigned || matches!(self.dtype, Int2 | Int4 | Int8 | Int16 | Int32 | Int64)
    }

    /// What is true of both: where control flow meets, and of the items of a sequence.
    #[must_use]
    pub fn joined(&self, other: &Fact, reason: &str) -> Fact {
        if self == other {
            return self.clone();
        }
        let kind = match (&self.kind, &other.kind) {
            (a, b) if a == b => a.clone(),
            (Kind::Sequence(a), Kind::Sequence(b)) => {
                let items = match (&a.items, &b.items) {
                    (Some(x), Some(y)) if x.len() == y.len() => {
                        Some(x.iter().zip(y).map(|(x, y)| x.joined(y, reason)).collect())
                    }
                    _ => None,
                };
                // Whatever is said of the items of an empty sequence is true.
                let item = match (&a.items, &b.items) {
                    (Some(none), _) if none.is_empty() => b.item.clone(),
                    (_, Some(none)) if none.is_empty() => a.item.clone(),
                    _ => a.item.joined(&b.item, reason),
                };
                Kind::Sequence(Arc::new(Sequence { item, items }))
            }
            (Kind::Optional(a), Kind::Optional(b)) => Kind::Optional(Arc::new(a.joined(b, reason))),
            (Kind::Optional(a), _) => return Fact::optional(a.joined(other, reason)),
            (_, Kind::Optional(b)) => return Fact::optional(self.joined(b, reason)),
            (Kind::Map(k, a), Kind::Map(l, b)) if k == l => Kind::Map(*k, Arc::new(a.joined(b, reason))),
            _ => return Fact::unknown(DataType::Undefined, reason),
        };
        let dims = match (&self.dims, &other.dims) {
            (Ok(a), Ok(b)) if a.len() == b.len() => {
                Ok(a.iter().zip(b).map(|(a, b)| same_or_unknown(a, b, reason)).collect())
            }
            (Err(reason), _) | (_, Err(reason)) => Err(reason.clone()),
            _ => Err(reason.into()),
        };
        Fact {
            kind,
            dtype: if self.dtype == other.dtype { self.dtype } else { DataType::Undefined },
            dims,
            elements: self.elements.clone().filter(|_| self.elements == other.elements),
            reals: self.reals.clone().filter(|_| self.reals == other.reals),
            source: self.source.filter(|_| self.source == other.source),
        }
    }

    /// Type and extents as a line has them: `FLOAT [1, 3, height, ?]`.
    #[must_use]
    pub fn describe(&self) -> String {
        let dtype = self.dtype.as_str_name();
        match (&self.kind, &self.dims) {
            (Kind::Tensor, dims) => format!("{dtype} {}", extents(dims.as_deref().ok())),
            (Kind::Sparse, dims) => format!("sparse {dtype} {}", extents(dims.as_deref().ok())),
            (Kind::Sequence(sequence), _) => format!("sequence({})", sequence.item.describe()),
            (Kind::Optional(holds), _) => format!("optional({})", holds.describe()),
            (Kind::Map(key, value), _) => format!("map({}, {})", key.as_str_name(), value.describe()),
            (Kind::Opaque, _) => "opaque".to_owned(),
        }
    }
}

/// Extents in brackets, `?` for what cannot be said.
fn extents(dims: Option<&[Expr]>) -> String {
    let Some(dims) = dims else { return "?".to_owned() };
    let extent = |dim: &Expr| if dim.is_known() { dim.to_string() } else { "?".to_owned() };
    format!("[{}]", dims.iter().map(extent).collect::<Vec<_>>().join(", "))
}

/// An unknown stays the unknown that it is, so that joins come to an end.
fn same_or_unknown(a: &Expr, b: &Expr, reason: &str) -> Expr {
    if a == b || !a.is_known() { a.clone() } else { Expr::unknown(reason) }
}
