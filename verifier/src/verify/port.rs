//! A classifier's interface, and what it is run on.

use std::path::PathBuf;

use emo_proto::file::OnnxFile;
use emo_proto::{Error, ModelProto, Result};
use ndarray::IxDyn;

use super::Request;
use super::probes::{Probe, probes};
use crate::audit::inputs;
use crate::data::image;
use crate::infer::{Bindings, Inference, declared};
use crate::sym::Expr;

/// Height and width of inputs where neither the file nor the caller says.
const SIDE: usize = 224;

/// The image input of a file.
pub struct Port {
    pub name: String,
    /// `None` where it is free.
    pub batch: Option<usize>,
    pub size: (usize, usize),
    /// The sizes of free axes as the file is judged with them.
    pub bindings: Bindings,
}

impl Port {
    /// The only input, [N, 3, H, W].
    #[must_use]
    pub fn of(model: &ModelProto, dims: &Bindings) -> Option<Self> {
        let graph = model.graph.as_ref()?;
        let mut ports = inputs(graph);
        let (input, None) = (ports.next()?, ports.next()) else { return None };
        let fact = declared(input, dims);
        let free = |axis: usize, extent: &Expr, default: usize| match extent.count() {
            Some(n) => (Some(n as usize), n as usize, None),
            None => (None, default, Some((format!("{}.{axis}", input.name()), default as i64))),
        };
        let [n, three, h, w] = fact.dims.as_deref().ok()? else { return None };
        if three.number().is_some_and(|n| n != 3) {
            return None;
        }
        let axes = [free(0, n, 1), free(1, three, 3), free(2, h, SIDE), free(3, w, SIDE)];
        let size = (axes[2].1, axes[3].1);
        let mut bindings = dims.clone();
        bindings.extend(axes.iter().filter_map(|(.., bound)| bound.clone()));
        Some(Self { name: input.name().to_owned(), batch: axes[0].0, size, bindings })
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

/// The caller's inputs, then the table's.
///
/// # Errors
/// An input of the caller's has another shape than the file takes, or a picture cannot be read.
pub fn probes_of(request: &Request, port: &Port) -> Result<Vec<Probe>> {
    for probe in &request.own {
        let shape = probe.input.shape();
        let fits =
            matches!(shape, [n, 3, h, w] if (*h, *w) == port.size && port.batch.is_none_or(|b| b == *n));
        if !fits {
            let (height, width) = port.size;
            let batch = port.batch.map_or("N".to_owned(), |n| n.to_string());
            return Err(Error::new(format!(
                "expected an input [{batch}, 3, {height}, {width}], found {shape:?}"
            ))
            .at(&probe.name));
        }
    }
    let picture = |path: &PathBuf| {
        let one = image(path, port.size)?;
        // The same picture in every place of a batch.
        let shape: Vec<usize> =
            std::iter::once(port.batch.unwrap_or(1)).chain(one.shape()[1..].iter().copied()).collect();
        let input = one.broadcast(IxDyn(&shape)).map(|view| view.to_owned());
        let input = input.ok_or_else(|| Error::new("expected a picture").at(path.display()))?;
        Ok(Probe { name: path.display().to_string(), input, recorded: None })
    };
    let pictures = request.pictures.iter().map(picture).collect::<Result<Vec<_>>>()?;
    let table = probes(request.probes, port.batch, port.size);
    Ok(request.own.iter().cloned().chain(pictures).chain(table).collect())
}
