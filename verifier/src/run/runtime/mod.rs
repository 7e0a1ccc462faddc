//! Engines that run ONNX files, behind one small interface; each is named in one file only.
//!
//! [`Concrete`] is a file at given input shapes: what an engine gets is cut out of it, from any
//! values to any values, its shape arithmetic computed already, with f32 at both ends.

mod evaluator;
#[cfg(feature = "engines")]
mod faults;
#[cfg(feature = "engines")]
mod ort;
mod own;
#[cfg(feature = "engines")]
mod tract;

use std::path::PathBuf;

use emo_proto::file::OnnxFile;
use ndarray::ArrayD;

pub use evaluator::Evaluator;
#[cfg(feature = "engines")]
pub use ort::Ort;
pub use own::{Exact, Own};
#[cfg(feature = "engines")]
pub use tract::Tract;

pub use crate::run::failure::Failure;
pub use crate::run::plain::{Concrete, Cut, Form};
pub use crate::run::quiet::silence_guarded_panics;

/// What a run may ask of an engine.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Threads within an operator; `None` leaves it to the engine. tract takes one.
    pub threads: Option<usize>,
    /// The library of ONNX Runtime, before every other place where it may be.
    pub ort_library: Option<PathBuf>,
}

/// A row of the engine table.
#[derive(Debug, Clone, Copy)]
pub struct Engine {
    /// As the command line and reports spell it.
    pub name: &'static str,
    /// One line of help.
    pub what: &'static str,
    pub open: fn(&Options) -> Result<Box<dyn Runtime>, Failure>,
}

/// Every engine, the default first.
pub const ENGINES: &[Engine] = &[
    #[cfg(feature = "engines")]
    Engine {
        name: "tract",
        what: "pure Rust, always there",
        open: |options| match options.threads {
            Some(threads) if threads > 1 => Err(Failure::wrong(format!(
                "tract runs on one thread, found {threads}; ask for one thread, or try another runtime"
            ))),
            _ => Ok(Box::new(Tract)),
        },
    },
    #[cfg(feature = "engines")]
    Engine {
        name: "ort",
        what: "ONNX Runtime, from a library on this machine",
        open: |options| Ok(Box::new(Ort::open(options)?)),
    },
    Engine {
        name: "f64",
        what: "our own evaluation in f64 that rounds as the file says: slow, and a second opinion on any engine",
        open: |options| match options.threads {
            Some(threads) if threads > 1 => Err(Failure::wrong(format!(
                "f64 runs on one thread, found {threads}; ask for one thread, or try another runtime"
            ))),
            _ => Ok(Box::new(Own)),
        },
    },
];

impl Engine {
    /// The row called `name`.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Engine> {
        ENGINES.iter().find(|engine| engine.name == name)
    }
}

/// An engine.
pub trait Runtime {
    /// As reports name it.
    fn name(&self) -> &'static str;

    /// Whether it takes files as they are written, fused and integer operators too, and rounds as they say.
    fn as_written(&self) -> bool {
        false
    }

    /// Readies the part of `model` that computes `outputs` from `inputs`, each any values of its graph;
    /// without names the graph's own.
    ///
    /// # Errors
    ///
    /// [`Failure::Wrong`] where a name is none of the graph's or `outputs` need more than `inputs`, the other
    /// failures where the engine does not take the graph.
    fn ready(
        &self,
        model: &Concrete,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<Box<dyn Session>, Failure>;

    /// Readies a whole file for `inputs`, the graph's inputs with a shape each; a session takes them in this
    /// order. A run gives the values called `outputs`; none means the graph's own.
    ///
    /// # Errors
    ///
    /// Those of [`Concrete::new`] and [`Runtime::ready`].
    fn prepare(
        &self,
        file: &OnnxFile,
        inputs: &[(String, Vec<usize>)],
        outputs: &[String],
    ) -> Result<Box<dyn Session>, Failure> {
        let names: Vec<String> = inputs.iter().map(|(name, _)| name.clone()).collect();
        self.ready(&Concrete::new(file, inputs)?, &names, outputs)
    }
}

/// A graph ready to run on inputs of known shapes.
pub trait Session {
    /// The outputs for `inputs`, each side in the order given to [`Runtime::ready`]. Values of another element
    /// type are converted from and to f32.
    ///
    /// # Errors
    ///
    /// [`Failure::Wrong`] where the inputs have other shapes than were prepared for, [`Failure::Refused`] where
    /// a node fails (the message names it).
    fn run(&mut self, inputs: &[ArrayD<f32>]) -> Result<Vec<ArrayD<f32>>, Failure>;
}

/// Holds what a session is given to the shapes that it was made for.
pub(crate) fn expect_inputs(
    inputs: &[ArrayD<f32>],
    expected: &[(String, Vec<usize>)],
) -> Result<(), Failure> {
    if inputs.len() != expected.len() {
        return Err(Failure::wrong(format!("expected {} inputs, found {}", expected.len(), inputs.len())));
    }
    for (input, (name, shape)) in inputs.iter().zip(expected) {
        if input.shape() != shape {
            let message = format!("expected shape {shape:?}, found {:?}", input.shape());
            return Err(Failure::wrong(message).at(name));
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(feature = "engines")]
#[cfg(test)]
mod tests;
