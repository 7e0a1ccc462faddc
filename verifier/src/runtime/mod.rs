//! Engines that run ONNX files, behind one small interface; each is named in one file only.

mod tract;

use emo_proto::Result;
use ndarray::ArrayD;

pub use tract::Tract;

/// An engine.
pub trait Runtime {
    /// As reports name it.
    fn name(&self) -> &'static str;

    /// Readies the ONNX file `model` for `inputs`, the graph's inputs with a concrete shape each. A run gives
    /// the values called `outputs`, which may be any values of the graph; none means the graph's own outputs.
    ///
    /// # Errors
    ///
    /// The file cannot be read, an operator or a shape is not understood (the error names the node), an input
    /// or output is not in the graph, or an input of the graph is not in `inputs`.
    fn prepare(
        &self,
        model: &[u8],
        inputs: &[(String, Vec<usize>)],
        outputs: &[String],
    ) -> Result<Box<dyn Session>>;
}

/// A model ready to run on inputs of known shapes.
pub trait Session {
    /// The outputs for `inputs`, each side in the order given to [`Runtime::prepare`]. Outputs of another
    /// element type are converted to f32.
    ///
    /// # Errors
    ///
    /// The inputs have other shapes than were prepared for, or a node fails (the error names it).
    fn run(&mut self, inputs: &[ArrayD<f32>]) -> Result<Vec<ArrayD<f32>>>;
}
