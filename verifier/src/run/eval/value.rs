//! Tensors of f64 with the element type that the file gives them, and how they are walked.

use std::cell::Cell;
use std::sync::Arc;

use emo_proto::tensor::Tensor;
use emo_proto::tensor_proto::DataType;

use super::Why;

/// Elements of a tensor, at most, unless a run says less: what a third-party file's shapes may ask for.
pub(crate) const MOST_ELEMENTS: usize = 1 << 27;

/// Axes of a tensor, at most: NumPy's limit.
const MOST_AXES: usize = 64;

thread_local! {
    /// The limit of the run that goes on.
    static MOST: Cell<usize> = const { Cell::new(MOST_ELEMENTS) };
}

/// Runs what makes tensors of `most` elements at most. It must not panic.
pub(crate) fn limited<T>(most: usize, run: impl FnOnce() -> T) -> T {
    let before = MOST.replace(most);
    let result = run();
    MOST.set(before);
    result
}

/// A tensor: row-major, whatever its type in f64, of BOOL 0 and 1.
#[derive(Debug, Clone)]
pub(crate) struct Value {
    pub dtype: DataType,
    pub dims: Vec<usize>,
    pub data: Arc<Vec<f64>>,
}

impl Value {
    pub fn new(dtype: DataType, dims: Vec<usize>, data: Vec<f64>) -> Result<Self, Why> {
        if count(&dims)? != data.len() {
            return Err(format!("expected {dims:?}, found {} elements", data.len()));
        }
        Ok(Self { dtype, dims, data: Arc::new(data) })
    }

    pub fn scalar(dtype: DataType, x: f64) -> Self {
        Self { dtype, dims: Vec::new(), data: Arc::new(vec![x]) }
    }

    /// A list of integers.
    pub fn list(elements: impl IntoIterator<Item = i64>) -> Self {
        let data: Vec<f64> = elements.into_iter().map(|n| n as f64).collect();
        Self { dtype: DataType::Int64, dims: vec![data.len()], data: Arc::new(data) }
    }

    pub fn of(tensor: &Tensor) -> Result<Self, Why> {
        count(&tensor.dims)?;
        let integers = |t: &Tensor| t.i64s().map(|v| v.into_iter().map(|n| n as f64).collect());
        let data = tensor.f64s().or_else(|_| integers(tensor)).map_err(|error| error.to_string())?;
        Self::new(tensor.dtype, tensor.dims.clone(), data)
    }

    /// The same as a file holds it, where it does so in whole bytes.
    pub fn tensor(&self) -> Option<Tensor> {
        let bits = emo_proto::tensor::bits(self.dtype)?;
        let bytes: Vec<u8> = match self.dtype {
            DataType::Float => self.data.iter().flat_map(|&x| (x as f32).to_le_bytes()).collect(),
            DataType::Double => self.data.iter().flat_map(|x| x.to_le_bytes()).collect(),
            DataType::Float16 => {
                self.data.iter().flat_map(|&x| half::f16::from_f64(x).to_le_bytes()).collect()
            }
            DataType::Bfloat16 => {
                self.data.iter().flat_map(|&x| half::bf16::from_f64(x).to_le_bytes()).collect()
            }
            integer if bits >= 8 && super::range(integer).is_some() => {
                let bytes = |&x: &f64| (x as i64).to_le_bytes().into_iter().take(bits / 8);
                self.data.iter().flat_map(bytes).collect()
            }
            _ => return None,
        };
        Tensor::new(self.dtype, self.dims.clone(), bytes.into()).ok()
    }

    pub fn rank(&self) -> usize {
        self.dims.len()
    }

    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// The same elements in another shape.
    pub fn reshaped(&self, dims: Vec<usize>) -> Result<Self, Why> {
        if count(&dims)? != self.len() {
            return Err(format!("expected the elements of {:?}, found the shape {dims:?}", self.dims));
        }
        Ok(Self { dims, ..self.clone() })
    }

    pub fn with_type(&self, dtype: DataType) -> Self {
        Self { dtype, ..self.clone() }
    }

    pub fn map(&self, f: impl Fn(f64) -> f64) -> Self {
        let data = self.data.iter().map(|&x| f(x)).collect();
        Self { dtype: self.dtype, dims: self.dims.clone(), data: Arc::new(data) }
    }

    /// The only element.
    pub fn number(&self) -> Result<f64, Why> {
        match self.data[..] {
            [one] => Ok(one),
            _ => Err(format!("expected one element, found {:?}", self.dims)),
        }
    }

    pub fn integers(&self) -> Vec<i64> {
        self.data.iter().map(|&x| x as i64).collect()
    }

    /// The value with its axes in the order `perm`.
    pub fn transposed(&self, perm: &[usize]) -> Result<Self, Why> {
        let mut sorted = perm.to_vec();
        sorted.sort_unstable();
        if !sorted.iter().copied().eq(0..self.rank()) {
            return Err(format!("expected a permutation of {} axes, found {perm:?}", self.rank()));
        }
        let own = strides(&self.dims);
        let dims: Vec<usize> = perm.iter().map(|&p| self.dims[p]).collect();
        let moved: Vec<isize> = perm.iter().map(|&p| own[p]).collect();
        self.strided(dims, &moved, 0)
    }

    /// The elements that an index of `dims` reaches by `strides` from `start`, all of them inside.
    pub fn strided(&self, dims: Vec<usize>, strides: &[isize], start: usize) -> Result<Self, Why> {
        let mut data = Vec::with_capacity(count(&dims)?);
        rows(&dims, [strides], |[at], [step], length| {
            let at = at + start as isize;
            if step == 1 {
                data.extend_from_slice(&self.data[at as usize..at as usize + length]);
            } else {
                data.extend((0..length as isize).map(|i| self.data[(at + i * step) as usize]));
            }
        });
        Self::new(self.dtype, dims, data)
    }

    /// The value repeated to `dims`.
    pub fn expanded(&self, dims: &[usize]) -> Result<Self, Why> {
        if self.dims == dims {
            return Ok(self.clone());
        }
        self.strided(dims.to_vec(), &strides_at(&self.dims, dims)?, 0)
    }
}

/// The number of elements of `dims`, where a tensor may have so many. Extents beside one of 0 are held to the limit, too,
/// so that no product of some of them is larger.
pub(crate) fn count(dims: &[usize]) -> Result<usize, Why> {
    if dims.len() > MOST_AXES {
        return Err(format!("expected at most {MOST_AXES} axes, found {}", dims.len()));
    }
    let most = MOST.get();
    let whole = dims.iter().try_fold(1_usize, |n, &dim| n.checked_mul(dim.max(1)));
    let whole = whole.filter(|&n| n <= most);
    let whole = whole.ok_or_else(|| format!("expected at most {most} elements, found {dims:?}"))?;
    Ok(if dims.contains(&0) { 0 } else { whole })
}

pub(crate) fn zeros(dims: &[usize]) -> Result<Vec<f64>, Why> {
    Ok(vec![0.0; count(dims)?])
}

/// How far the next element along each axis is.
pub(crate) fn strides(dims: &[usize]) -> Vec<isize> {
    let mut strides = vec![1_isize; dims.len()];
    for i in (1..dims.len()).rev() {
        strides[i - 1] = strides[i] * dims[i].max(1) as isize;
    }
    strides
}

/// The same for a tensor of `from` that is read as if it were `to`.
pub(crate) fn strides_at(from: &[usize], to: &[usize]) -> Result<Vec<isize>, Why> {
    let misfit = || format!("expected {from:?} to broadcast to {to:?}");
    let lead = to.len().checked_sub(from.len()).ok_or_else(misfit)?;
    let mut found = vec![0; lead];
    for ((&dim, &wide), stride) in from.iter().zip(&to[lead..]).zip(strides(from)) {
        match dim {
            _ if dim == wide => found.push(stride),
            1 => found.push(0),
            _ => return Err(misfit()),
        }
    }
    Ok(found)
}

/// The shape that all of `shapes` broadcast to.
pub(crate) fn broadcast(shapes: &[&[usize]]) -> Result<Vec<usize>, Why> {
    let rank = shapes.iter().map(|s| s.len()).max().unwrap_or(0);
    let mut dims = vec![1; rank];
    for shape in shapes {
        for (dim, &found) in dims[rank - shape.len()..].iter_mut().zip(*shape) {
            match (*dim, found) {
                (a, b) if a == b => {}
                (1, b) => *dim = b,
                (_, 1) => {}
                _ => return Err(format!("expected shapes that broadcast, found {shapes:?}")),
            }
        }
    }
    count(&dims)?;
    Ok(dims)
}

/// Walks `dims` in order: `visit` gets, for each run of elements, where it starts in each operand, the step of
/// each, and its length. Axes that lie behind each other in every operand are one.
pub(crate) fn rows<const N: usize>(
    dims: &[usize],
    strides: [&[isize]; N],
    mut visit: impl FnMut([isize; N], [isize; N], usize),
) {
    if dims.contains(&0) {
        return;
    }
    let mut merged: Vec<(usize, [isize; N])> = Vec::new();
    for (i, &dim) in dims.iter().enumerate().filter(|(_, dim)| **dim != 1) {
        let steps: [isize; N] = std::array::from_fn(|k| strides[k][i]);
        match merged.last_mut() {
            Some((outer, before)) if (0..N).all(|k| before[k] == steps[k] * dim as isize) => {
                (*outer, *before) = (*outer * dim, steps);
            }
            _ => merged.push((dim, steps)),
        }
    }
    let (length, steps) = merged.pop().unwrap_or((1, [0; N]));
    let (mut at, mut index) = ([0; N], vec![0; merged.len()]);
    loop {
        visit(at, steps, length);
        let mut axis = merged.len();
        loop {
            if axis == 0 {
                return;
            }
            axis -= 1;
            let (dim, strides) = &merged[axis];
            index[axis] += 1;
            if index[axis] < *dim {
                (0..N).for_each(|k| at[k] += strides[k]);
                break;
            }
            (0..N).for_each(|k| at[k] -= strides[k] * (*dim as isize - 1));
            index[axis] = 0;
        }
    }
}

/// One element out for one of each, where the two broadcast.
pub(crate) fn zip(a: &Value, b: &Value, f: impl Fn(f64, f64) -> f64) -> Result<Value, Why> {
    let dims = broadcast(&[&a.dims, &b.dims])?;
    let mut data = Vec::with_capacity(count(&dims)?);
    let (left, right) = (strides_at(&a.dims, &dims)?, strides_at(&b.dims, &dims)?);
    rows(&dims, [&left, &right], |[i, j], steps, n| {
        let (i, j) = (i as usize, j as usize);
        match steps {
            [1, 1] => data.extend(a.data[i..i + n].iter().zip(&b.data[j..j + n]).map(|(&x, &y)| f(x, y))),
            [1, 0] => data.extend(a.data[i..i + n].iter().map(|&x| f(x, b.data[j]))),
            [0, 1] => data.extend(b.data[j..j + n].iter().map(|&y| f(a.data[i], y))),
            [s, t] => data.extend((0..n).map(|k| f(a.data[i + k * s as usize], b.data[j + k * t as usize]))),
        }
    });
    Value::new(a.dtype, dims, data)
}

/// An axis of a tensor of `rank` axes, counted from the end where negative.
pub(crate) fn axis(axis: i64, rank: usize) -> Result<usize, Why> {
    let found = if axis < 0 { axis.checked_add(rank as i64) } else { Some(axis) };
    found
        .and_then(|a| usize::try_from(a).ok())
        .filter(|&a| a < rank)
        .ok_or_else(|| format!("expected an axis of {rank}, found {axis}"))
}

/// Axes of a tensor of `rank` axes, each once.
pub(crate) fn axes(list: &[i64], rank: usize) -> Result<Vec<usize>, Why> {
    if list.len() > rank || rank > MOST_AXES {
        return Err(format!("expected axes of {rank}, at most {MOST_AXES}, found {}", list.len()));
    }
    let found = list.iter().map(|&a| axis(a, rank)).collect::<Result<Vec<_>, _>>()?;
    match (1..found.len()).find(|&i| found[..i].contains(&found[i])) {
        Some(i) => Err(format!("expected each axis once, found {} again", found[i])),
        None => Ok(found),
    }
}

/// A tensor as `[outer, axis, inner]` around one axis.
pub(crate) fn around(dims: &[usize], axis: usize) -> (usize, usize, usize) {
    (dims[..axis].iter().product(), dims[axis], dims[axis + 1..].iter().product())
}

/// Extents that must not be negative.
pub(crate) fn extents(elements: &[i64]) -> Result<Vec<usize>, Why> {
    let extent = |&n: &i64| usize::try_from(n).map_err(|_| format!("expected an extent, found {n}"));
    elements.iter().map(extent).collect()
}
