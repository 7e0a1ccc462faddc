//! What a file of ours says of itself, held against its own graph.

use emo_exporter::metadata;
use emo_exporter::models::{Model, Task, own};
use emo_exporter::profile::Profile;
use emo_exporter::rewrite::Rewrite;
use emo_exporter::target::Output;
use emo_proto::tensor_proto::DataType;
use emo_proto::{Error, ModelProto, Result};

use crate::compare::{FLOAT16, FLOAT32, FLOAT32_DEEP, Tolerance};
use crate::fact::Fact;
use crate::image::Image;
use crate::infer::declared;
use crate::models::plan::Count;
use crate::sym::Expr;

/// The model that a file claims to be, and its interface.
#[derive(Debug, Clone)]
pub struct Identity {
    pub model: Model,
    pub profile: &'static Profile,
    pub opset: i64,
    pub ir_version: i64,
    /// `None` where the batch is free.
    pub batch: Option<usize>,
    /// Height and width of the input, in pixels.
    pub size: (usize, usize),
    /// Whether the input is an image of bytes, `[N, H, W, 3]`, rather than normalised floats.
    pub image: bool,
    /// What leaves the file.
    pub output: Output,
    /// Whether weights are float16.
    pub half: bool,
    /// Where the weights came from, as the file tells it.
    pub weights: String,
    /// What the profile's exact rewrites took out, as the file tells it.
    pub rewrites: Vec<Rewrite>,
}

impl Identity {
    /// Reads the metadata and the declared interface.
    ///
    /// # Errors
    /// The file is not one that this project writes.
    pub fn read(model: &ModelProto) -> Result<Self> {
        let property = |key: &str| {
            let entry = model.metadata_props.iter().find(|p| p.key() == key);
            entry.map(emo_proto::StringStringEntryProto::value).ok_or_else(|| {
                Error::new(format!("expected the metadata entry {key} of a file that emo wrote, found none"))
            })
        };
        let (name, profile) = (property(metadata::MODEL)?, property(metadata::PROFILE)?);
        let known = known(name, property(metadata::DEFINITION).ok())?;
        let profile = Profile::named(profile).ok_or_else(|| unknown(metadata::PROFILE, profile))?;
        let rewrites = property(metadata::REWRITES).unwrap_or_default().lines().map(str::parse);
        let Interface { batch, size, classes, image } = interface(model, known.task())?;
        let classes = match classes {
            Some(classes) => classes,
            None => {
                let told = property(metadata::CLASS_COUNT)?;
                told.parse().map_err(|_| unknown(metadata::CLASS_COUNT, told))?
            }
        };
        let output = match property(metadata::OUTPUT) {
            Ok(name) => Output::named(name).ok_or_else(|| unknown(metadata::OUTPUT, name))?,
            Err(_) => known.output_forms()[0],
        };
        let opset = model.opset_import.iter().find(|set| set.domain().is_empty());
        Ok(Self {
            model: known.with_classes(classes),
            profile,
            opset: opset.map_or(0, emo_proto::OperatorSetIdProto::version),
            ir_version: model.ir_version(),
            batch,
            size,
            image,
            output,
            half: model
                .graph
                .iter()
                .flat_map(|g| &g.initializer)
                .any(|i| i.data_type() == DataType::Float16 as i32),
            weights: property(metadata::WEIGHTS)?.to_owned(),
            rewrites: rewrites.collect::<Result<_>>()?,
        })
    }

    /// What the rewrites that the file tells took out, in all.
    #[must_use]
    pub fn removed(&self) -> Count {
        let count = |r: &Rewrite| Count { params: r.parameters, macs: r.macs, fvcore: r.fvcore };
        self.rewrites.iter().map(count).fold(Count::default(), |sum, count| sum + count)
    }

    /// What its function may be off by: the engine computes in float32 what is stored in float16.
    #[must_use]
    pub fn tolerance(&self) -> &'static Tolerance {
        match (self.half, self.model.task()) {
            (true, _) => &FLOAT16,
            (false, Task::Classify) => &FLOAT32,
            (false, _) => &FLOAT32_DEEP,
        }
    }

    /// Whether published figures apply: a published size, the published classes and windows, one image.
    #[must_use]
    pub fn is_published(&self) -> bool {
        let Some(published) = Model::named(&self.model.name) else { return false };
        *published == self.model
            && published.published_sizes().contains(&self.size)
            && self.batch.unwrap_or(1) == 1
    }
}

/// The published model called `name`, or the network of somebody's own that the file describes.
fn known(name: &str, definition: Option<&str>) -> Result<Model> {
    let Some(definition) = definition else {
        return Model::told(name).ok_or_else(|| unknown(metadata::MODEL, name));
    };
    let model = own::read(definition, metadata::DEFINITION)?;
    match model.name == name {
        true => Ok(model),
        false => Err(Error::new(format!("expected a definition of {name}, found one of {}", model.name))
            .at(metadata::DEFINITION)),
    }
}

fn unknown(key: &str, value: &str) -> Error {
    Error::new(format!("expected a known value of {key}, found {value:?}; this version may be too old"))
}

struct Interface {
    batch: Option<usize>,
    size: (usize, usize),
    /// `None` where the output does not tell.
    classes: Option<usize>,
    image: bool,
}

/// One input [N, 3, H, W], or an image [N, H, W, 3], N alone free; and for a classifier one output [N, classes].
fn interface(model: &ModelProto, task: Task) -> Result<Interface> {
    let graph = model.graph.as_ref().ok_or_else(|| Error::new("expected a graph, found none"))?;
    let single = |values: &[emo_proto::ValueInfoProto], what: &str| match values {
        [value] => Ok(declared(value, &Default::default())),
        other => Err(Error::new(format!("expected one {what}, found {}", other.len()))),
    };
    let input = single(&graph.input, "input")?;
    let refuse = |what: &str, fact: &Fact| {
        Error::new(format!("expected an {what}, found {:?}", fact.dims)).at("interface")
    };
    let size = |e: &Expr| e.count().map(|n| n as usize);
    let image = Image::of(&input).zip(input.dims.as_deref().ok()).and_then(|(image, dims)| {
        let [n, three, h, w] = image.extents(dims)?;
        three.is(3).then_some((image, n.clone(), size(h)?, size(w)?))
    });
    let Some((image, batch, height, width)) = image else {
        return Err(refuse("input [N, 3, H, W] or [N, H, W, 3]", &input));
    };
    let image = image.axes == Image::BYTES.axes;
    let classes = match task {
        Task::Classify => {
            let output = single(&graph.output, "output")?;
            match output.dims.as_deref() {
                Ok([n, classes]) if *n == batch && size(classes).is_some() => size(classes),
                _ => return Err(refuse("output [N, classes]", &output)),
            }
        }
        Task::Features | Task::Detect | Task::Segment => None,
    };
    Ok(Interface { batch: size(&batch), size: (height, width), classes, image })
}
