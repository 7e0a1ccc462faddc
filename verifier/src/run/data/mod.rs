//! Recorded data: inputs, and the outputs that belong to them.
//!
//! Read and written is ONNX's own layout, a folder a set with a tensor a file
//! (`test_data_set_0/input_0.pb`, …, `output_0.pb`, …), as its backend tests and `onnxruntime`'s tools have it;
//! read are NumPy's arrays and pictures (PNG, JPEG) too. Where names do not tell what an array is, its number does.

mod bicubic;
mod npy;
mod picture;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use emo_proto::tensor::{External, Tensor};
use emo_proto::tensor_proto::DataType;
use emo_proto::tensor_shape_proto::{Dimension, dimension};
use emo_proto::{Error, ModelProto, Result, TensorProto, ValueInfoProto, type_proto};
use half::{bf16, f16};
use ndarray::{ArrayD, IxDyn};
use prost::Message;

pub use npy::{npy, npz};
pub use picture::image;

/// An input or an output of a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    pub name: String,
    pub dtype: DataType,
    /// The declared extents, `None` for a free one; empty where no shape is declared.
    pub dims: Vec<Option<usize>>,
}

/// What a graph takes and gives, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports {
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
}

/// One run of a graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Set {
    /// As reports name it: `test_data_set_0`, or the file's name.
    pub name: String,
    /// One for each of the graph's inputs.
    pub inputs: Vec<ArrayD<f32>>,
    /// One for each of the graph's outputs, where it was recorded.
    pub outputs: Vec<Option<ArrayD<f32>>>,
}

impl Port {
    /// Whether an array of this shape is one of what is declared.
    fn takes(&self, shape: &[usize]) -> bool {
        let fits = |(declared, found): (&Option<usize>, &usize)| declared.is_none_or(|n| n == *found);
        self.dims.is_empty() || self.dims.len() == shape.len() && self.dims.iter().zip(shape).all(fits)
    }

    /// The declared shape: `[1, 3, ?, ?]`.
    fn shape(&self) -> String {
        let extents = self.dims.iter().map(|dim| dim.map_or("?".to_owned(), |n| n.to_string()));
        format!("{} [{}]", self.dtype.as_str_name(), extents.collect::<Vec<_>>().join(", "))
    }
}

impl Ports {
    /// Those of the model's graph.
    #[must_use]
    pub fn of(model: &ModelProto) -> Self {
        let extent = |dim: &Dimension| match dim.value {
            Some(dimension::Value::DimValue(n)) => usize::try_from(n).ok(),
            _ => None,
        };
        let port = |value: &ValueInfoProto| {
            let (code, shape) = match value.r#type.as_ref().and_then(|t| t.value.as_ref()) {
                Some(type_proto::Value::TensorType(tensor)) => (tensor.elem_type(), tensor.shape.as_ref()),
                _ => (0, None),
            };
            Port {
                name: value.name().to_owned(),
                dtype: DataType::try_from(code).unwrap_or(DataType::Undefined),
                dims: shape.map_or_else(Vec::new, |shape| shape.dim.iter().map(extent).collect()),
            }
        };
        Self {
            inputs: model.graph.iter().flat_map(crate::audit::inputs).map(port).collect(),
            outputs: model.graph.iter().flat_map(|graph| &graph.output).map(port).collect(),
        }
    }
}

/// Side of a picture for a graph that takes any.
const SIDE: usize = 224;

/// The sets at `path`: a folder in ONNX's layout or one set of it, a `.npz` archive of arrays by name, or, for a
/// graph with one input, a `.npy` array or a picture.
///
/// # Errors
/// There is nothing of that kind, an input is missing, an array belongs to no input or output, or a file cannot be
/// read; names the file.
pub fn read(path: &Path, ports: &Ports) -> Result<Vec<Set>> {
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let extension = path.extension().map(OsStr::to_ascii_lowercase);
    let arrays = match extension.as_deref().and_then(|e| e.to_str()) {
        _ if path.is_dir() => return folder(path, ports),
        Some("npz") => npz(path)?,
        Some("npy") => vec![("input_0".to_owned(), npy(path)?)],
        Some("png" | "jpg" | "jpeg") => vec![("input_0".to_owned(), image(path, picture_size(ports))?)],
        _ => {
            let message =
                "expected a folder of test_data_set_0, … or a file .npz, .npy, .png or .jpg, found neither";
            return Err(Error::new(message).at(path.display()));
        }
    };
    Ok(vec![set(name, arrays, ports).map_err(|error| error.at(path.display()))?])
}

/// Height and width of the picture that the first input takes.
fn picture_size(ports: &Ports) -> (usize, usize) {
    let dims = ports.inputs.first().map(|port| port.dims.as_slice());
    match dims {
        Some(&[_, _, height, width]) => (height.unwrap_or(SIDE), width.unwrap_or(SIDE)),
        _ => (SIDE, SIDE),
    }
}

/// Writes the sets as `test_data_set_0`, `test_data_set_1`, … into the new folder `folder`, each tensor with its
/// port's name and element type; all of them or nothing.
///
/// # Errors
/// The folder exists with something in it, the disk refuses, or a value is none that its port's type holds.
pub fn write(folder: &Path, sets: &[Set], ports: &Ports) -> Result<()> {
    let at = |error: Error| error.at(folder.display());
    // The random name of the temporary folder is kept out of every message.
    let io = |cause: std::io::Error| at(Error::new(format!("cannot write: {}", cause.kind())));
    if fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(at(Error::new("expected a new folder, found one with files in it; name another")));
    }
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary =
        tempfile::Builder::new().prefix(".emo-").suffix(".part").tempdir_in(parent).map_err(io)?;
    for (i, set) in sets.iter().enumerate() {
        let inner = temporary.path().join(format!("test_data_set_{i}"));
        fs::create_dir(&inner).map_err(io)?;
        let inputs = set.inputs.iter().map(Some).zip(&ports.inputs).enumerate();
        let outputs = set.outputs.iter().map(Option::as_ref).zip(&ports.outputs).enumerate();
        let files =
            inputs.map(|(i, pair)| ("input", i, pair)).chain(outputs.map(|(i, pair)| ("output", i, pair)));
        for (what, i, (array, port)) in files {
            let Some(array) = array else { continue };
            let tensor = tensor(array, port.dtype).map_err(|error| at(error.at(&port.name)))?;
            let bytes = tensor.encode(&port.name).encode_to_vec();
            fs::write(inner.join(format!("{what}_{i}.pb")), bytes).map_err(io)?;
        }
    }
    // Its permissions are the user's alone; a new folder's are what the user's mask leaves.
    let made = temporary.keep();
    let whole = open_to_others(&made).and_then(|()| fs::rename(&made, folder));
    whole.inspect_err(|_| drop(fs::remove_dir_all(&made))).map_err(io)
}

/// Gives a folder the permissions of the one around it.
fn open_to_others(folder: &Path) -> std::io::Result<()> {
    let around = folder.parent().unwrap_or(Path::new("."));
    fs::set_permissions(folder, fs::metadata(around)?.permissions())
}

/// The sets of a folder in ONNX's layout.
fn folder(path: &Path, ports: &Ports) -> Result<Vec<Set>> {
    let at = |error: Error| error.at(path.display());
    let mut sets: Vec<(usize, PathBuf)> = Vec::new();
    for entry in fs::read_dir(path).map_err(|cause| at(Error::new(cause)))? {
        let inner = entry.map_err(|cause| at(Error::new(cause)))?.path();
        if let Some(number) = numbered(&inner, "test_data_set_", "") {
            sets.push((number, inner));
        }
    }
    sets.sort();
    if sets.is_empty() && path.join("input_0.pb").exists() {
        sets.push((0, path.to_owned()));
    }
    if sets.is_empty() {
        return Err(at(Error::new("expected test_data_set_0, …, each with input_0.pb, …, found none")));
    }
    sets.iter().map(|(_, inner)| one(inner, ports).map_err(|error| error.at(inner.display()))).collect()
}

fn one(path: &Path, ports: &Ports) -> Result<Set> {
    let mut arrays: Vec<(String, String, ArrayD<f32>)> = Vec::new();
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(path).map_err(Error::new)? {
        files.push(entry.map_err(Error::new)?.path());
    }
    files.sort();
    for file in files {
        for what in ["input_", "output_"] {
            if let Some(number) = numbered(&file, what, ".pb") {
                let place = format!("{what}{number}.pb");
                let (name, array) = recorded(&file).map_err(|error| error.at(&place))?;
                arrays.push((name, format!("{what}{number}"), array));
            }
        }
    }
    // Names count where all are names of the graph's; exporters often leave others in.
    let known = |name: &String| ports.inputs.iter().chain(&ports.outputs).any(|port| port.name == *name);
    let named = arrays.iter().all(|(name, ..)| known(name));
    let arrays = arrays.into_iter().map(|(name, place, array)| (if named { name } else { place }, array));
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    set(name, arrays.collect(), ports)
}

/// The number between `before` and `after` in a file's name.
fn numbered(path: &Path, before: &str, after: &str) -> Option<usize> {
    path.file_name()?.to_str()?.strip_prefix(before)?.strip_suffix(after)?.parse().ok()
}

/// Bytes of a tensor's file: protobuf's own limit.
const LARGEST_TENSOR: u64 = (1 << 31) - 1;

/// The tensor in a file, and its name.
fn recorded(path: &Path) -> Result<(String, ArrayD<f32>)> {
    let proto = TensorProto::decode(emo_proto::file::read(path, LARGEST_TENSOR)?)
        .map_err(|cause| Error::new(format!("expected a tensor as ONNX has it: {cause}")))?;
    let tensor = Tensor::decode(&proto, &External::none())?;
    Ok((proto.name().to_owned(), array(&tensor)?))
}

/// Arrays by name, or by their number as `input_0`, `output_0`, or `arr_0` for an input.
fn set(name: String, arrays: Vec<(String, ArrayD<f32>)>, ports: &Ports) -> Result<Set> {
    let (mut inputs, mut outputs) = (vec![None; ports.inputs.len()], vec![None; ports.outputs.len()]);
    let number = |name: &str, before: &str| name.strip_prefix(before).and_then(|n| n.parse::<usize>().ok());
    for (name, array) in arrays {
        let named = |ports: &[Port]| ports.iter().position(|port| port.name == name);
        let place = match (named(&ports.inputs), named(&ports.outputs)) {
            (Some(i), _) => inputs.get_mut(i),
            (None, Some(i)) => outputs.get_mut(i),
            (None, None) => {
                match (number(&name, "input_").or(number(&name, "arr_")), number(&name, "output_")) {
                    (Some(i), _) => inputs.get_mut(i),
                    (None, Some(i)) => outputs.get_mut(i),
                    (None, None) => None,
                }
            }
        };
        match place {
            Some(Some(_)) => return Err(Error::new(format!("expected {name} once, found it twice"))),
            Some(place) => *place = Some(array),
            None => {
                let names = ports.inputs.iter().chain(&ports.outputs).map(|port| port.name.as_str());
                let names = names.collect::<Vec<_>>().join(", ");
                return Err(Error::new(format!("expected arrays of the graph's, {names}, found {name}")));
            }
        }
    }
    let missing =
        |(array, port): (Option<ArrayD<f32>>, &Port)| {
            let array = array.ok_or_else(|| {
                Error::new(format!("expected an array for the input {}, found none", port.name))
            })?;
            // Before other inputs are made after it.
            match port.takes(array.shape()) {
                true => Ok(array),
                false => Err(Error::new(format!("expected {}, found {:?}", port.shape(), array.shape()))
                    .at(&port.name)),
            }
        };
    let inputs = inputs.into_iter().zip(&ports.inputs).map(missing).collect::<Result<_>>()?;
    Ok(Set { name, inputs, outputs })
}

/// Integers beyond it have no f32 of their own.
const EXACT: u64 = 1 << 24;

fn array(tensor: &Tensor) -> Result<ArrayD<f32>> {
    let exact = |n: i64| match n.unsigned_abs() {
        ..=EXACT => Ok(n as f32),
        _ => Err(Error::new(format!("expected integers that f32 holds exactly, found {n}"))),
    };
    let values = match tensor.f32s() {
        Ok(values) => values,
        Err(_) => tensor.i64s()?.into_iter().map(exact).collect::<Result<_>>()?,
    };
    ArrayD::from_shape_vec(IxDyn(&tensor.dims), values).map_err(Error::new)
}

/// The array with elements of `dtype`: floats rounded to nearest, integers only where the value is one.
fn tensor(array: &ArrayD<f32>, dtype: DataType) -> Result<Tensor> {
    fn integers<T: TryFrom<i64>, const N: usize>(values: &[f32], bytes: fn(T) -> [u8; N]) -> Result<Vec<u8>> {
        let element = |&x: &f32| {
            let whole = x.fract() == 0.0 && x.abs() <= EXACT as f32;
            let n = T::try_from(x as i64).ok().filter(|_| whole);
            n.map(bytes).ok_or_else(|| Error::new(format!("expected a value that the type holds, found {x}")))
        };
        Ok(values.iter().map(element).collect::<Result<Vec<_>>>()?.concat())
    }
    let values: Vec<f32> = array.iter().copied().collect();
    let bytes: Vec<u8> = match dtype {
        DataType::Float | DataType::Undefined => return Tensor::from_f32(array.shape().to_vec(), values),
        DataType::Double => values.iter().flat_map(|&x| f64::from(x).to_le_bytes()).collect(),
        DataType::Float16 => values.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect(),
        DataType::Bfloat16 => values.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect(),
        DataType::Bool => values.iter().map(|&x| u8::from(x != 0.0)).collect(),
        DataType::Int8 => integers(&values, i8::to_le_bytes)?,
        DataType::Int16 => integers(&values, i16::to_le_bytes)?,
        DataType::Int32 => integers(&values, i32::to_le_bytes)?,
        DataType::Int64 => integers(&values, i64::to_le_bytes)?,
        DataType::Uint8 => integers(&values, u8::to_le_bytes)?,
        DataType::Uint16 => integers(&values, u16::to_le_bytes)?,
        DataType::Uint32 => integers(&values, u32::to_le_bytes)?,
        DataType::Uint64 => integers(&values, u64::to_le_bytes)?,
        other => {
            let message = format!(
                "expected elements that are numbers of 8 bits or more, found {}",
                other.as_str_name()
            );
            return Err(Error::new(message));
        }
    };
    Tensor::new(dtype, array.shape().to_vec(), bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports() -> Ports {
        let port = |name: &str, dtype| Port { name: name.to_owned(), dtype, dims: Vec::new() };
        Ports {
            inputs: vec![port("image", DataType::Float), port("ids", DataType::Int64)],
            outputs: vec![port("logits", DataType::Float16), port("boxes", DataType::Float)],
        }
    }

    fn values(shape: &[usize], values: &[f32]) -> ArrayD<f32> {
        ArrayD::from_shape_vec(shape, values.to_vec()).unwrap()
    }

    fn sets() -> Vec<Set> {
        let set = |i: usize| Set {
            name: format!("test_data_set_{i}"),
            inputs: vec![values(&[1, 2], &[i as f32, 0.25]), values(&[3], &[1.0, -2.0, 70_000.0])],
            outputs: vec![Some(values(&[], &[1.5])), None],
        };
        (0..12).map(set).collect()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        write(&path, &sets(), &ports()).unwrap();
        assert_eq!(read(&path, &ports()).unwrap(), sets());
        // One set alone.
        let one = read(&path.join("test_data_set_3"), &ports()).unwrap();
        assert_eq!(one, [sets()[3].clone()]);
        // Types are the graph's.
        let proto = fs::read(path.join("test_data_set_0/input_1.pb")).unwrap();
        let proto = TensorProto::decode(&*proto).unwrap();
        assert_eq!((proto.name(), proto.data_type()), ("ids", DataType::Int64.into()));
        // Nothing else is left, and nothing is overwritten.
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let message = write(&path, &sets(), &ports()).unwrap_err().to_string();
        assert!(message.contains("expected a new folder"), "{message}");
    }

    #[test]
    fn a_failure_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut sets = sets();
        sets[11].inputs[1][[0]] = 0.5;
        let message = write(&folder.path().join("data"), &sets, &ports()).unwrap_err().to_string();
        assert!(message.ends_with("ids: expected a value that the type holds, found 0.5"), "{message}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn arrays_are_told_by_name_or_number() {
        let (a, b) = (values(&[1], &[1.0]), values(&[1], &[2.0]));
        let named =
            |names: [&str; 2]| names.map(str::to_owned).into_iter().zip([a.clone(), b.clone()]).collect();
        for names in [["image", "ids"], ["input_0", "input_1"], ["arr_0", "arr_1"], ["image", "input_1"]] {
            let set = set("x".to_owned(), named(names), &ports()).unwrap();
            assert_eq!(set.inputs, [a.clone(), b.clone()], "{names:?}");
            assert_eq!(set.outputs, [None, None]);
        }
        let cases = [
            (["image", "logits"], "expected an array for the input ids, found none"),
            (["image", "image"], "expected image once, found it twice"),
            (
                ["image", "input_2"],
                "expected arrays of the graph's, image, ids, logits, boxes, found input_2",
            ),
        ];
        for (names, expected) in cases {
            let message = set("x".to_owned(), named(names), &ports()).unwrap_err().to_string();
            assert_eq!(message, expected);
        }
    }

    #[test]
    fn numbers_order_files_where_names_are_foreign() {
        let folder = tempfile::tempdir().unwrap();
        for (file, name, value) in [("input_0", "", 1.0), ("input_1", "x:0", 2.0), ("output_1", "boxes", 3.0)]
        {
            let bytes =
                tensor(&values(&[1], &[value]), DataType::Float).unwrap().encode(name).encode_to_vec();
            fs::write(folder.path().join(format!("{file}.pb")), bytes).unwrap();
        }
        let sets = read(folder.path(), &ports()).unwrap();
        assert_eq!(sets[0].inputs, [values(&[1], &[1.0]), values(&[1], &[2.0])]);
        assert_eq!(sets[0].outputs, [None, Some(values(&[1], &[3.0]))]);

        fs::write(folder.path().join("input_0.pb"), b"\xFFgarbage").unwrap();
        let message = read(folder.path(), &ports()).unwrap_err().to_string();
        assert!(message.contains("input_0.pb: expected a tensor as ONNX has it"), "{message}");
        for nothing in ["absent", "input_0.pb"] {
            assert!(read(&folder.path().join(nothing), &ports()).is_err());
        }
    }
}
