//! A classifier's interface, and what it is run on.

use std::path::PathBuf;

use emo_exporter::weights::{Origin, formula};
use emo_proto::file::OnnxFile;
use emo_proto::{Error, ModelProto, Result};
use ndarray::{ArrayD, IxDyn};

use super::Request;
use super::probes::{Probe, probes};
use crate::audit::inputs;
use crate::data::image;
use crate::image::Image;
use crate::infer::{Bindings, Inference, declared};
use crate::probe::{OWN_NOISE, PROBES};
use crate::sym::Expr;

/// Height and width of inputs where neither the file nor the caller says.
const SIDE: usize = 224;

/// The image input of a file.
pub struct Port {
    pub name: String,
    pub image: Image,
    /// `None` where it is free.
    pub batch: Option<usize>,
    pub size: (usize, usize),
    /// The sizes of free axes as the file is judged with them.
    pub bindings: Bindings,
}

impl Port {
    /// The only input, images `[N, 3, H, W]` or `[N, H, W, 3]`.
    #[must_use]
    pub fn of(model: &ModelProto, dims: &Bindings) -> Option<Self> {
        let graph = model.graph.as_ref()?;
        let mut ports = inputs(graph);
        let (input, None) = (ports.next()?, ports.next()) else { return None };
        let fact = declared(input, dims);
        let image = Image::of(&fact)?;
        let free = |axis: usize, extent: &Expr, default: usize| match extent.count() {
            Some(n) => (Some(n as usize), n as usize, None),
            None => (None, default, Some((format!("{}.{}", input.name(), image.axes[axis]), default as i64))),
        };
        let [n, three, h, w] = image.extents(fact.dims.as_deref().ok()?)?;
        let axes = [free(0, n, 1), free(1, three, 3), free(2, h, SIDE), free(3, w, SIDE)];
        let size = (axes[2].1, axes[3].1);
        let mut bindings = dims.clone();
        bindings.extend(axes.iter().filter_map(|(.., bound)| bound.clone()));
        Some(Self { name: input.name().to_owned(), image, batch: axes[0].0, size, bindings })
    }
}

/// The output that has a logit for each class.
#[must_use]
pub fn logits(file: &OnnxFile, inference: &Inference, port: &Port, classes: usize) -> Option<String> {
    let outputs = file.model.graph.iter().flat_map(|g| &g.output).map(emo_proto::ValueInfoProto::name);
    let count = (port.batch.unwrap_or(1) * classes) as u64;
    let mut outputs = outputs.filter(|name| {
        let fact = inference.values.get(name);
        fact.is_some_and(|fact| fact.count().count().is_none_or(|n| n == count))
    });
    outputs.next().map(str::to_owned)
}

/// The caller's inputs, then the table's; of a file whose integers have ranges, `mild` ones alone.
///
/// # Errors
/// An input of the caller's has another shape than the file takes, or a picture cannot be read.
pub fn probes_of(request: &Request, port: &Port, file: &Origin, mild: bool) -> Result<Vec<Probe>> {
    for probe in &request.own {
        let shape = probe.input.shape();
        let fits = port.image.extents(shape).is_some_and(|[n, c, h, w]| {
            (*c, (*h, *w)) == (3, port.size) && port.batch.is_none_or(|batch| batch == *n)
        });
        if let Some(bad) = probe.input.iter().find(|x| !x.is_finite()) {
            return Err(Error::new(format!("expected finite numbers, found {bad}")).at(&probe.name));
        }
        if !fits {
            let (height, width) = port.size;
            let mut expected = [const { String::new() }; 4];
            let batch = port.batch.map_or("N".to_owned(), |n| n.to_string());
            let extents = [batch, "3".to_owned(), height.to_string(), width.to_string()];
            for (axis, extent) in port.image.axes.into_iter().zip(extents) {
                expected[axis] = extent;
            }
            let expected = expected.join(", ");
            return Err(
                Error::new(format!("expected an input [{expected}], found {shape:?}")).at(&probe.name)
            );
        }
    }
    let picture = |path: &PathBuf| {
        let one = image(path, port.size)?;
        // The same picture in every place of a batch.
        let shape: Vec<usize> =
            std::iter::once(port.batch.unwrap_or(1)).chain(one.shape()[1..].iter().copied()).collect();
        let input = one.broadcast(IxDyn(&shape)).map(|view| view.to_owned());
        let input = input.ok_or_else(|| Error::new("expected a picture").at(path.display()))?;
        Ok(Probe { name: path.display().to_string(), input: port.image.feed(input), recorded: None })
    };
    let pictures = request.pictures.iter().map(picture).collect::<Result<Vec<_>>>()?;
    let harsh = |probe: &Probe| PROBES.iter().any(|row| row.name == probe.name && !row.mild);
    let table = probes(request.probes + if mild { PROBES.len() } else { 0 }, port.batch, port.size);
    let table = table.into_iter().filter(|probe| !(mild && harsh(probe))).take(request.probes);
    let table = table.map(|probe| own_noise(probe, file));
    let table = table.map(|probe| Probe { input: port.image.feed(probe.input), ..probe });
    Ok(request.own.iter().cloned().chain(pictures).chain(table).collect())
}

/// The second noise, drawn by the digest of the file itself: whoever writes a file to be right on the test inputs alone
/// would have to know them before it is written.
fn own_noise(probe: Probe, file: &Origin) -> Probe {
    let Origin::File { sha256, .. } = file else { return probe };
    match sha256.get(..16).and_then(|digits| u64::from_str_radix(digits, 16).ok()) {
        Some(seed) if probe.name == "noise-1" => {
            let elements = formula::input(probe.input.shape(), seed);
            let drawn = ArrayD::from_shape_vec(probe.input.raw_dim(), elements);
            Probe { name: OWN_NOISE.to_owned(), input: drawn.unwrap_or(probe.input), ..probe }
        }
        _ => probe,
    }
}
