//! Files as `torch.save` writes them, without PyTorch: checkpoints to test with, and to
//! measure with.
//!
//! A pickle of protocol 2 describes the object and refers to storages by key. The zip
//! format keeps each storage in an entry of its own; the format before PyTorch 1.6
//! appends them to the pickle. Source: PyTorch's `torch/serialization.py`.

use std::collections::HashMap;
use std::io::{Cursor, Write};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// Element type of a storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    F64,
    F32,
    F16,
    Bf16,
    I64,
}

/// Numbers that tensors are views of; rounded to the type when written.
#[derive(Debug, Clone)]
pub struct Storage {
    pub dtype: Dtype,
    pub values: Vec<f32>,
}

/// A tensor: elements of a storage, in elements from `offset`.
#[derive(Debug, Clone)]
pub struct View {
    pub storage: usize,
    pub offset: usize,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
}

/// What a checkpoint is made of.
#[derive(Debug, Clone)]
pub enum Object {
    Int(i32),
    Dict(Vec<(String, Object)>),
    /// `Module.state_dict()`: an `OrderedDict` with `_metadata`.
    StateDict(Vec<(String, Object)>),
    Tensor(View),
    /// A call that Python would make while unpickling: `module.name(argument)`.
    Call {
        module: &'static str,
        name: &'static str,
        argument: String,
    },
}

/// An object and the storages that it refers to.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    pub storages: Vec<Storage>,
    pub root: Object,
    /// As the file declares it; elements are little-endian always.
    pub big_endian: bool,
}

impl View {
    /// All of a storage, row-major.
    pub fn contiguous(storage: usize, shape: &[usize]) -> Self {
        Self { storage, offset: 0, shape: shape.to_vec(), strides: row_major(shape) }
    }
}

/// Strides of an array whose last axis varies fastest.
pub fn row_major(shape: &[usize]) -> Vec<usize> {
    (1..=shape.len()).map(|axis| shape[axis..].iter().product()).collect()
}

impl Checkpoint {
    /// A plain state dict: a storage of type `dtype` for each (name, shape, values).
    pub fn state_dict<'a>(
        dtype: Dtype,
        tensors: impl IntoIterator<Item = (&'a str, &'a [usize], Vec<f32>)>,
    ) -> Self {
        let mut checkpoint = Self { storages: Vec::new(), root: Object::Int(0), big_endian: false };
        let mut entries = Vec::new();
        for (name, shape, values) in tensors {
            let storage = checkpoint.storage(dtype, values);
            entries.push((name.to_owned(), Object::Tensor(View::contiguous(storage, shape))));
        }
        checkpoint.root = Object::StateDict(entries);
        checkpoint
    }

    /// Adds a storage; its index.
    pub fn storage(&mut self, dtype: Dtype, values: Vec<f32>) -> usize {
        self.storages.push(Storage { dtype, values });
        self.storages.len() - 1
    }

    /// The same object as a training script saves it: `{key: object, "epoch": 300}`.
    #[must_use]
    pub fn nested(mut self, key: &str) -> Self {
        self.root = Object::Dict(vec![(key.to_owned(), self.root), ("epoch".to_owned(), Object::Int(300))]);
        self
    }

    /// The zip format, since PyTorch 1.6.
    pub fn zip(&self) -> Vec<u8> {
        let mut pickle = Pickler::new();
        self.object(&mut pickle, &self.root, Format::Zip);
        let mut entries =
            vec![("data.pkl".to_owned(), pickle.stop()), ("byteorder".to_owned(), self.byte_order().into())];
        for (index, storage) in self.storages.iter().enumerate() {
            entries.push((format!("data/{}", key(index)), storage.dtype.bytes(&storage.values)));
        }
        entries.push(("version".to_owned(), b"3\n".to_vec()));

        let options =
            SimpleFileOptions::default().compression_method(CompressionMethod::Stored).with_alignment(64);
        let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in entries {
            archive.start_file(format!("archive/{name}"), options).expect("a short, unique name");
            archive.write_all(&bytes).expect("memory takes all");
        }
        archive.finish().expect("memory takes all").into_inner()
    }

    /// The format before PyTorch 1.6.
    pub fn legacy(&self) -> Vec<u8> {
        /// `0x1950a86a20f9469cfc6c`.
        const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
        const PROTOCOL: i32 = 1001;

        let mut file = Pickler::new();
        file.op(&[0x8a, MAGIC.len() as u8]).op(&MAGIC).end();
        file.begin().int(PROTOCOL).end();
        file.begin().op(b"}(");
        file.text("protocol_version").int(PROTOCOL);
        file.text("little_endian").op(if self.big_endian { b"\x89" } else { b"\x88" });
        file.text("type_sizes").op(b"}(");
        for (name, size) in [("short", 2), ("int", 4), ("long", 4)] {
            file.text(name).int(size);
        }
        file.op(b"uu").end();
        file.begin();
        self.object(&mut file, &self.root, Format::Legacy);
        file.end();

        let mut order: Vec<usize> = (0..self.storages.len()).collect();
        order.sort_by_key(|&index| key(index));
        file.begin().op(b"](");
        for &index in &order {
            file.text(&key(index));
        }
        file.op(b"e").end();
        for index in order {
            let storage = &self.storages[index];
            file.op(&(storage.values.len() as u64).to_le_bytes()).op(&storage.dtype.bytes(&storage.values));
        }
        file.bytes
    }

    fn byte_order(&self) -> &'static str {
        if self.big_endian { "big" } else { "little" }
    }

    fn object(&self, pickle: &mut Pickler, object: &Object, format: Format) {
        match object {
            Object::Int(value) => {
                pickle.int(*value);
            }
            Object::Dict(entries) => {
                pickle.op(b"}");
                self.entries(pickle, entries, format);
            }
            Object::StateDict(entries) => {
                pickle.ordered_dict();
                self.entries(pickle, entries, format);
                pickle.op(b"}").text("_metadata").ordered_dict().op(b"sb");
            }
            Object::Tensor(view) => self.tensor(pickle, view, format),
            Object::Call { module, name, argument } => {
                pickle.global(module, name).text(argument).op(b"\x85R");
            }
        }
    }

    fn entries(&self, pickle: &mut Pickler, entries: &[(String, Object)], format: Format) {
        pickle.op(b"(");
        for (name, value) in entries {
            pickle.text(name);
            self.object(pickle, value, format);
        }
        pickle.op(b"u");
    }

    /// `_rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks)`.
    fn tensor(&self, pickle: &mut Pickler, view: &View, format: Format) {
        let storage = &self.storages[view.storage];
        pickle.global("torch._utils", "_rebuild_tensor_v2").op(b"(");
        pickle.op(b"(").text("storage").global("torch", storage.dtype.class()).text(&key(view.storage));
        pickle.text("cpu").int(length(storage.values.len()));
        // The older format says of which part of a storage another is a view: of none.
        pickle.op(if format == Format::Legacy { b"Nt" } else { b"t" }).op(b"Q");
        pickle.int(length(view.offset)).tuple(&view.shape).tuple(&view.strides);
        pickle.op(b"\x89").ordered_dict().op(b"tR");
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Zip,
    Legacy,
}

/// A storage's key, whose order as text is not that of the indices.
fn key(index: usize) -> String {
    index.to_string()
}

fn length(value: usize) -> i32 {
    i32::try_from(value).expect("test data is small")
}

impl Dtype {
    /// `values` as they come back from a storage of the type.
    pub fn round(self, values: Vec<f32>) -> Vec<f32> {
        let round = |v: f32| match self {
            Self::F64 | Self::F32 => v,
            Self::F16 => half::f16::from_f32(v).to_f32(),
            Self::Bf16 => half::bf16::from_f32(v).to_f32(),
            Self::I64 => v.trunc(),
        };
        values.into_iter().map(round).collect()
    }

    /// `values` rounded to the type, little-endian.
    pub fn bytes(self, values: &[f32]) -> Vec<u8> {
        let values = values.iter();
        match self {
            Self::F64 => values.flat_map(|&v| f64::from(v).to_le_bytes()).collect(),
            Self::F32 => values.flat_map(|v| v.to_le_bytes()).collect(),
            Self::F16 => values.flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect(),
            Self::Bf16 => values.flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()).collect(),
            Self::I64 => values.flat_map(|&v| (v as i64).to_le_bytes()).collect(),
        }
    }

    fn class(self) -> &'static str {
        match self {
            Self::F64 => "DoubleStorage",
            Self::F32 => "FloatStorage",
            Self::F16 => "HalfStorage",
            Self::Bf16 => "BFloat16Storage",
            Self::I64 => "LongStorage",
        }
    }
}

/// Writes pickles of protocol 2, one after another. Texts and globals are memoized, as
/// Python's pickler does with them.
struct Pickler {
    bytes: Vec<u8>,
    memo: HashMap<Vec<u8>, u32>,
}

impl Pickler {
    fn new() -> Self {
        let mut pickler = Self { bytes: Vec::new(), memo: HashMap::new() };
        pickler.begin();
        pickler
    }

    fn begin(&mut self) -> &mut Self {
        self.memo.clear();
        self.op(b"\x80\x02")
    }

    fn end(&mut self) {
        self.op(b".");
    }

    fn stop(mut self) -> Vec<u8> {
        self.end();
        self.bytes
    }

    fn op(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    fn int(&mut self, value: i32) -> &mut Self {
        match u8::try_from(value) {
            Ok(byte) => self.op(&[b'K', byte]),
            Err(_) => self.op(b"J").op(&value.to_le_bytes()),
        }
    }

    fn tuple(&mut self, values: &[usize]) -> &mut Self {
        self.op(b"(");
        for &value in values {
            self.int(length(value));
        }
        self.op(b"t")
    }

    fn text(&mut self, text: &str) -> &mut Self {
        let length = u32::try_from(text.len()).expect("test data is small");
        self.memoized([b"X", &length.to_le_bytes()[..], text.as_bytes()].concat())
    }

    fn global(&mut self, module: &str, name: &str) -> &mut Self {
        self.memoized(format!("c{module}\n{name}\n").into_bytes())
    }

    fn ordered_dict(&mut self) -> &mut Self {
        self.global("collections", "OrderedDict").op(b")R")
    }

    fn memoized(&mut self, value: Vec<u8>) -> &mut Self {
        let next = u32::try_from(self.memo.len()).expect("test data is small");
        match self.memo.get(&value).copied() {
            Some(index) if index < 256 => self.op(&[b'h', index as u8]),
            Some(index) => self.op(b"j").op(&index.to_le_bytes()),
            None => {
                self.op(&value).op(b"r").op(&next.to_le_bytes());
                self.memo.insert(value, next);
                self
            }
        }
    }
}
