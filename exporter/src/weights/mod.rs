//! Weights: named float tensors, from a formula or a checkpoint.
//!
//! A checkpoint holds exactly the tensors that a model takes, or loading it is one error
//! that lists every difference.

mod callables;
mod entry;
pub mod formula;
mod listing;
mod mismatch;
mod origin;
mod pth;
mod safetensors;

use std::collections::BTreeMap;
use std::panic;
use std::path::Path;
use std::thread;

use emo_proto::tensor::Tensor;
use emo_proto::{Error, Result, file};

use entry::{Entry, Listing};
pub use origin::{Origin, Spec};

/// A published state-dict entry: name and shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    pub name: String,
    pub shape: Vec<usize>,
}

/// Float tensors by published name, all f32, all finite.
#[derive(Debug, Clone)]
pub struct Weights {
    origin: Origin,
    tensors: BTreeMap<String, Tensor>,
    left_out: BTreeMap<&'static str, usize>,
}

/// Bytes of a checkpoint: the models' have a hundredth.
const LARGEST: u64 = 1 << 32;

impl Weights {
    /// Exactly the `expected` tensors, from where `spec` says.
    ///
    /// A checkpoint is a file of `torch.save` or a safetensors file, told apart by
    /// content. Its weights may stand at the top or under `net_E` (preferred), `net`,
    /// `state_dict`, `model`, `model_ema` or `state_dict_ema`, with `module.` and
    /// `backbone.` before their names, as f16, bf16, f32 or f64. What only training has, and what stands on a
    /// backbone where the model is one alone, is [left out](Self::left_out).
    ///
    /// # Errors
    ///
    /// The file cannot be read, is no checkpoint, or carries code; its tensors differ in
    /// name or shape from the expected ones, all of which the error lists; a number is
    /// not finite. The file's path comes first.
    pub fn load(spec: &Spec, expected: &[Parameter]) -> Result<Self> {
        match spec {
            Spec::Formula(seed) => Ok(Self::formula(*seed, expected)),
            Spec::File(path) => Self::read(path, expected),
        }
    }

    /// The `expected` tensors computed from their names: see [`formula`].
    pub fn formula(seed: u64, expected: &[Parameter]) -> Self {
        let tensor = |Parameter { name, shape }: &Parameter| {
            let values = formula::tensor(name, shape, seed);
            let tensor = Tensor::from_f32(shape.clone(), values).expect("the formula fills the shape");
            (name.clone(), tensor)
        };
        Self {
            origin: Origin::Formula { seed },
            tensors: expected.iter().map(tensor).collect(),
            left_out: BTreeMap::new(),
        }
    }

    /// Tensors that were found elsewhere, under their published names.
    ///
    /// # Errors
    /// One is no float, or not finite.
    pub fn from_tensors(origin: Origin, tensors: BTreeMap<String, Tensor>) -> Result<Self> {
        let checked = tensors.into_iter().map(|(name, tensor)| {
            let tensor = tensor.into_f32().and_then(|t| finite(&t).map(|()| t)).map_err(|e| e.at(&name))?;
            Ok((name, tensor))
        });
        Ok(Self { origin, tensors: checked.collect::<Result<_>>()?, left_out: BTreeMap::new() })
    }

    fn read(path: &Path, expected: &[Parameter]) -> Result<Self> {
        let source = file::Source::open(path)?;
        let file = source.whole(LARGEST)?;
        let load = || {
            let network = listing::network(listing::list(path, &file)?, expected)?;
            mismatch::compare(expected, &shapes(&network.tensors))?;
            let (origin, tensors) =
                beside(|| Origin::of_file(&file, network.entry.clone()), || tensors(&network.tensors));
            Ok(Self { origin, tensors: tensors?, left_out: network.left_out })
        };
        let loaded = load().map_err(|error: Error| error.at(path.display()));
        // The reader of pickles opens the file by its name once more.
        source.settled().and(loaded)
    }

    /// Where the weights came from.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Modules of the file that the model does without, and how many tensors each has.
    pub fn left_out(&self) -> &BTreeMap<&'static str, usize> {
        &self.left_out
    }

    /// The tensor of that name, f32.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// The tensor of that name.
    ///
    /// # Errors
    /// There is none.
    pub fn require(&self, name: &str) -> Result<&Tensor> {
        self.get(name).ok_or_else(|| Error::new("expected a weight of this name, found none").at(name))
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }
}

/// Both, side by side where a thread can be had.
fn beside<A: Send, B>(first: impl Fn() -> A + Send + Sync, second: impl FnOnce() -> B) -> (A, B) {
    thread::scope(|scope| {
        let other = thread::Builder::new().spawn_scoped(scope, &first);
        let b = second();
        let a = other.map_or_else(
            |_| first(),
            |other| other.join().unwrap_or_else(|payload| panic::resume_unwind(payload)),
        );
        (a, b)
    })
}

/// Whether a file holds exactly the `expected` tensors, by name and shape; none is read.
///
/// For a hint after [`Weights::load`] failed: the file may be another model's.
pub fn fits(path: &Path, expected: &[Parameter]) -> bool {
    let check = || {
        let network = listing::network(listing::list(path, &file::map(path)?)?, expected)?;
        mismatch::compare(expected, &shapes(&network.tensors))
    };
    check().is_ok()
}

fn shapes(listing: &Listing) -> BTreeMap<&str, &[usize]> {
    listing.iter().map(|(name, entry)| (name.as_str(), entry.shape.as_slice())).collect()
}

fn tensors(listing: &Listing) -> Result<BTreeMap<String, Tensor>> {
    let read = |(name, entry): (&String, &Entry)| {
        let tensor = (entry.read)().map_err(|error| error.at(name))?;
        finite(&tensor).map_err(|error| error.at(name))?;
        Ok((name.clone(), tensor))
    };
    listing.iter().map(read).collect()
}

/// An error that names the first element that is no number: with one, no output verifies.
fn finite(tensor: &Tensor) -> Result<()> {
    let mut values = tensor.bytes().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
    match values.by_ref().enumerate().find(|(_, value)| !value.is_finite()) {
        Some((index, value)) => {
            Err(Error::new(format!("expected finite numbers, found {value} at element {index}")))
        }
        None => Ok(()),
    }
}
