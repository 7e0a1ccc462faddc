//! Sizes that the user gives to what files leave open.

use anyhow::anyhow;
use emo_proto::ModelProto;
use emo_verifier::audit::{Sizes, open_names};

#[derive(Debug, clap::Args)]
pub struct SizeArgs {
    /// The whole shape of an input: images=1,3,640,640
    #[arg(long, value_name = "NAME=SHAPE")]
    input: Vec<String>,
    /// The size of an open dimension: batch=1
    #[arg(long, value_name = "NAME=N")]
    dim: Vec<String>,
}

impl SizeArgs {
    pub fn sizes(&self) -> anyhow::Result<Sizes> {
        let mut sizes = Sizes::default();
        self.input.iter().try_for_each(|text| sizes.input(text))?;
        self.dim.iter().try_for_each(|text| sizes.dim(text))?;
        Ok(sizes)
    }

    /// As they were given.
    pub fn arguments(&self) -> impl Iterator<Item = &str> {
        let inputs = self.input.iter().flat_map(|input| ["--input", input]);
        inputs.chain(self.dim.iter().flat_map(|dim| ["--dim", dim]))
    }
}

/// The sizes that mean nothing to a file.
#[derive(Debug)]
pub struct Unused {
    file: String,
    names: Vec<String>,
    /// What takes a size in the file.
    open: Vec<String>,
}

impl Unused {
    pub fn of(sizes: &Sizes, file: &str, model: &ModelProto) -> Self {
        let names = sizes.unknown(model);
        Self { file: file.to_owned(), names, open: open_names(model).into_iter().collect() }
    }

    /// Less what means something to another file that is read with it.
    pub fn beside(mut self, sizes: &Sizes, model: &ModelProto) -> Self {
        let unknown = sizes.unknown(model);
        self.names.retain(|name| unknown.contains(name));
        self
    }

    /// Every size must mean something to one of the files at least.
    pub fn check<'a>(files: impl IntoIterator<Item = &'a Unused>) -> anyhow::Result<()> {
        let mut files = files.into_iter();
        let Some(first) = files.next() else { return Ok(()) };
        let others: Vec<&Unused> = files.collect();
        let unused = |name: &&String| others.iter().all(|file| file.names.contains(*name));
        match (first.names.iter().find(unused), first.open.as_slice()) {
            (None, _) => Ok(()),
            (Some(name), []) => {
                Err(anyhow!("{}: expected no sizes, for there are no inputs, found {name}", first.file))
            }
            (Some(name), open) => {
                Err(anyhow!("{}: expected a size for one of {}, found {name}", first.file, open.join(", ")))
            }
        }
    }
}
