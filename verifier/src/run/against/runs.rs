//! The inputs that two files are run on, and the runs.

use emo_proto::file::OnnxFile;
use ndarray::{ArrayD, IxDyn};

use super::feed::{self, Kind};
use super::{Pair, Request};
use crate::runtime::{Failure, Runtime, Session};

/// One run's inputs, in the order of the judged file.
#[derive(Debug, Clone)]
pub struct Run {
    pub name: String,
    pub inputs: Vec<ArrayD<f32>>,
    /// The one input in which it differs from the first run, where there is just one.
    pub changed: Option<usize>,
}

/// What the judged file gives and what the other gives, in the order of the outputs.
pub type Answers = [Vec<ArrayD<f32>>; 2];

/// A seed behind those of the draws.
const OTHERWISE: u64 = 500;
/// Each input draws its own.
const APART: u64 = 1000;

/// Draws of what each input takes, then the first draw with one input changed alone.
pub fn noise(request: &Request, inputs: &[Pair], shapes: &[Vec<usize>]) -> Vec<Run> {
    let (own, other): (Vec<&str>, Vec<&str>) = inputs.iter().map(|pair| (pair.own, pair.other)).unzip();
    let kinds = feed::kinds(request.file, &own).into_iter().zip(feed::kinds(request.truth.1, &other));
    let kinds: Vec<Kind> = kinds.map(|(a, b)| feed::common(a, b)).collect();
    let draw =
        |input: usize, seed: u64| feed::fill(kinds[input], &shapes[input], seed + APART * input as u64);
    let runs = (0..request.probes as u64).map(|seed| Run {
        name: format!("noise-{seed}"),
        inputs: (0..inputs.len()).map(|input| draw(input, seed)).collect(),
        changed: None,
    });
    changed(runs.collect(), inputs, |_, input| draw(input, OTHERWISE))
}

/// Recorded inputs, then the first of them with one input changed alone: its elements in reverse, which the graph
/// takes as it takes the recorded ones.
pub fn around(recorded: &[Run], inputs: &[Pair]) -> Vec<Run> {
    changed(recorded.to_vec(), inputs, |first, input| {
        let array = &first.inputs[input];
        let mut elements: Vec<f32> = array.iter().copied().collect();
        elements.reverse();
        ArrayD::from_shape_vec(IxDyn(array.shape()), elements).expect("as many elements as before")
    })
}

fn changed(mut runs: Vec<Run>, inputs: &[Pair], other: impl Fn(&Run, usize) -> ArrayD<f32>) -> Vec<Run> {
    // Of one input two draws tell as much.
    if let Some(first) = runs.first().cloned().filter(|_| inputs.len() > 1 || runs.len() < 2) {
        runs.extend(inputs.iter().enumerate().map(|(input, pair)| {
            let mut run = Run { name: format!("{}, other {}", first.name, pair.own), ..first.clone() };
            (run.inputs[input], run.changed) = (other(&first, input), Some(input));
            run
        }));
    }
    runs
}

/// A file in an engine, readied anew when the shapes change.
pub struct Sessions<'a> {
    file: &'a OnnxFile,
    ports: [Vec<String>; 2],
    runtime: &'a dyn Runtime,
    ready: Option<Ready>,
}

/// A session, and the shapes that it takes.
struct Ready {
    shapes: Vec<Vec<usize>>,
    session: Box<dyn Session>,
}

impl<'a> Sessions<'a> {
    pub fn new(file: &'a OnnxFile, ports: [Vec<String>; 2], runtime: &'a dyn Runtime) -> Self {
        Self { file, ports, runtime, ready: None }
    }

    pub fn run(&mut self, run: &Run) -> Result<Vec<ArrayD<f32>>, Failure> {
        let shapes: Vec<Vec<usize>> = run.inputs.iter().map(|input| input.shape().to_vec()).collect();
        if self.ready.as_ref().is_none_or(|ready| ready.shapes != shapes) {
            let [inputs, outputs] = &self.ports;
            let ports: Vec<_> = inputs.iter().cloned().zip(shapes.iter().cloned()).collect();
            let session = self.runtime.prepare(self.file, &ports, outputs)?;
            self.ready = Some(Ready { shapes, session });
        }
        match &mut self.ready {
            Some(ready) => ready.session.run(&run.inputs),
            None => Err(Failure::from(emo_proto::Error::new("expected a session that is ready, found none"))),
        }
    }
}
