//! ONNX Runtime, from a library that is loaded when it is asked for.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use emo_proto::text::label;
use emo_proto::{Error, GraphProto};
use ndarray::ArrayD;
use ort::environment::Environment;
use ort::session::SessionInputValue;
use ort::value::TensorRef;
use prost::Message;

use super::{Concrete, Cut, Failure, Form, Options, Runtime, Session, expect_inputs};

const NAME: &str = "ONNX Runtime";

/// What to do where there is no library.
const HOW: &str = "install one with `pip install onnxruntime`, or name its file, in ORT_DYLIB_PATH for \
                   example";

/// The library in use: a process can have one.
static LOADED: Mutex<Option<(PathBuf, Environment)>> = Mutex::new(None);

/// ONNX Runtime on the processor.
#[derive(Debug, Clone)]
pub struct Ort {
    environment: Environment,
    threads: Option<usize>,
}

impl Ort {
    /// Loads the library, unless that has been done.
    ///
    /// # Errors
    ///
    /// There is none, or what is there does not load; another one is in use already.
    pub fn open(options: &Options) -> Result<Self, Failure> {
        let path = library(options)?;
        let mut loaded = LOADED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let environment = match &*loaded {
            Some((before, environment)) if *before == path => environment.clone(),
            Some((before, _)) => {
                let (before, path) = (before.display(), path.display());
                return Err(Failure::wrong(format!(
                    "expected one library a process, found {before} and {path}"
                )));
            }
            None => {
                let load = |why: &dyn std::fmt::Display| {
                    Failure::wrong(format!("it is no ONNX Runtime that loads here: {why}; {HOW}"))
                        .at(path.display())
                };
                // Loading runs what is in the file; a malformed one must not end the process.
                let builder = crate::run::quiet::guarded(|| ort::init_from(&path));
                let builder = builder.map_err(|panic| load(&panic))?.map_err(|error| load(&error))?;
                let environment = builder.with_name("emo").with_telemetry(false).build();
                let environment = environment.map_err(|error| load(&error))?;
                environment.set_log_level(ort::logging::LogLevel::Fatal);
                loaded.insert((path.clone(), environment)).1.clone()
            }
        };
        Ok(Self { environment, threads: options.threads })
    }
}

impl Runtime for Ort {
    fn name(&self) -> &'static str {
        NAME
    }

    fn as_written(&self) -> bool {
        true
    }

    fn ready(
        &self,
        model: &Concrete,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<Box<dyn Session>, Failure> {
        let Cut { model: cut, inputs, .. } = model.cut(inputs, outputs, Form::Written)?;
        let graph = cut.graph.clone().unwrap_or_default();
        let bytes = cut.encode_to_vec();
        drop(cut);
        let commit = || -> ort::Result<ort::session::Session> {
            let builder = ort::session::Session::builder(&self.environment)?;
            let builder = builder.with_log_level(ort::logging::LogLevel::Fatal)?;
            let mut builder = match self.threads {
                Some(threads) => builder.with_intra_threads(threads)?,
                None => builder,
            };
            builder.commit_from_memory(&bytes)
        };
        let session = commit().map_err(|error| failure(error.message(), &graph))?;
        Ok(Box::new(Ready { session, graph, inputs }))
    }
}

struct Ready {
    session: ort::session::Session,
    /// For what a failure names.
    graph: GraphProto,
    inputs: Vec<(String, Vec<usize>)>,
}

impl Session for Ready {
    fn run(&mut self, inputs: &[ArrayD<f32>]) -> Result<Vec<ArrayD<f32>>, Failure> {
        expect_inputs(inputs, &self.inputs)?;
        let graph = &self.graph;
        let inputs: Vec<_> = inputs.iter().map(|input| input.as_standard_layout()).collect();
        let values: ort::Result<Vec<SessionInputValue>> =
            inputs.iter().map(|input| Ok(TensorRef::from_array_view(input.view())?.into())).collect();
        let values = values.map_err(|error| failure(error.message(), graph))?;
        let outputs = self.session.run(values.as_slice()).map_err(|error| failure(error.message(), graph))?;
        let array = |output: &ort::value::DynValue| Ok(output.try_extract_array::<f32>()?.to_owned());
        outputs
            .values()
            .map(|output| array(&output))
            .collect::<ort::Result<_>>()
            .map_err(|e| failure(e.message(), graph))
    }
}

/// What an error of ONNX Runtime is about. It names an operator that it lacks in one of three sentences.
fn failure(message: &str, graph: &GraphProto) -> Failure {
    let word = |text: &str| {
        let word = text.trim_start().split(|c: char| !c.is_alphanumeric() && c != '_').next();
        word.unwrap_or_default().to_owned()
    };
    let after = ["Could not find an implementation for ", "No Op registered for "];
    let lacking =
        after.iter().find_map(|sentence| Some(word(message.split_once(sentence)?.1))).or_else(|| {
            // `Fatal error: com.microsoft:FusedConv(-1) is not …`
            let (before, _) = message.split_once(" is not a registered function/op")?;
            Some(word(before.rsplit([' ', ':']).next()?))
        });
    match lacking {
        Some(operator) => {
            let node = graph.node.iter().find(|node| node.op_type() == operator);
            let node = node.map_or_else(|| operator.clone(), label);
            Failure::Lacking { runtime: NAME, operator, node }
        }
        None => Failure::Refused { runtime: NAME, why: Error::new(message) },
    }
}

/// The library: where it was said to be, where the environment says, or in a Python package.
fn library(options: &Options) -> Result<PathBuf, Failure> {
    if let Some(path) = &options.ort_library {
        return existing(path, "what was given");
    }
    if let Some(path) = std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()) {
        return existing(Path::new(&path), "ORT_DYLIB_PATH");
    }
    let active = std::env::var_os("VIRTUAL_ENV").map(PathBuf::from);
    let found = active
        .iter()
        .flat_map(|venv| site_packages(venv))
        .find_map(|site| in_package(&site.join("onnxruntime")));
    found.or_else(|| in_package(&python_package()?)).ok_or_else(|| {
        Failure::wrong(format!("expected a library of ONNX Runtime on this machine, found none; {HOW}"))
    })
}

fn existing(path: &Path, from: &str) -> Result<PathBuf, Failure> {
    let found = path.canonicalize().ok().filter(|path| path.is_file());
    found.ok_or_else(|| {
        Failure::wrong(format!(
            "expected {from} to name a library of ONNX Runtime, found no file there; {HOW}"
        ))
        .at(path.display())
    })
}

/// The folders of a virtual environment that hold its packages.
fn site_packages(venv: &Path) -> Vec<PathBuf> {
    let versions = entries(&venv.join("lib")).into_iter().filter(|path| starts_with(path, "python"));
    let mut folders: Vec<PathBuf> = versions.map(|path| path.join("site-packages")).collect();
    folders.push(venv.join("Lib").join("site-packages"));
    folders
}

/// The library that the Python package `onnxruntime` brings along.
fn in_package(package: &Path) -> Option<PathBuf> {
    const NAMES: [&str; 3] = ["libonnxruntime.so", "libonnxruntime.", "onnxruntime.dll"];
    let files = entries(&package.join("capi"));
    NAMES
        .iter()
        .find_map(|name| files.iter().find(|file| starts_with(file, name) && file.is_file()))?
        .canonicalize()
        .ok()
}

/// The folder of the package that `python3` would import, without importing it.
fn python_package() -> Option<PathBuf> {
    // The first entry is the current folder, whose files are nobody's to run.
    const SCRIPT: &str = "import sys; sys.path[:1] = []; import importlib.util as u; \
                          print(u.find_spec('onnxruntime').submodule_search_locations[0])";
    let output = Command::new("python3").args(["-c", SCRIPT]).output().ok().filter(|o| o.status.success())?;
    Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim()))
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    paths.sort();
    paths
}

fn starts_with(path: &Path, start: &str) -> bool {
    path.file_name().and_then(OsStr::to_str).is_some_and(|name| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{binary, shapes};
    use super::*;

    #[test]
    fn a_python_package_has_the_library_on_every_system() {
        for (packages, file) in [
            ("lib/python3.13/site-packages", "libonnxruntime.so.1.32.0"),
            ("lib/python3.9/site-packages", "libonnxruntime.1.31.0.dylib"),
            ("Lib/site-packages", "onnxruntime.dll"),
        ] {
            let venv = tempfile::tempdir().unwrap();
            let folder = venv.path().join(packages).join("onnxruntime/capi");
            std::fs::create_dir_all(&folder).unwrap();
            for file in [file, "libonnxruntime_providers_shared.so", "onnxruntime_pybind11_state.so"] {
                std::fs::write(folder.join(file), "").unwrap();
            }
            let sites = site_packages(venv.path());
            let found = sites.iter().find_map(|site| in_package(&site.join("onnxruntime"))).unwrap();
            assert_eq!(found.file_name().unwrap(), file);
        }
    }

    #[test]
    fn sentences_about_operators_are_understood() {
        let file = binary(&[("Add", &["a", "b"], "c"), ("Frobnicate", &["c", "b"], "d")], "d");
        let concrete = Concrete::new(&file, &shapes(&[("a", &[1]), ("b", &[1])])).unwrap();
        let graph = concrete.cut(&[], &[], Form::Written).unwrap().model.graph.unwrap();
        for sentence in [
            "Could not find an implementation for Frobnicate(1) node with name 'x'",
            "No Op registered for Frobnicate with domain_version of 17",
            "Load model failed:Fatal error: ai.onnx:Frobnicate(-1) is not a registered function/op",
            "Fatal error: Frobnicate is not a registered function/op",
        ] {
            let lacking = Failure::Lacking {
                runtime: NAME,
                operator: "Frobnicate".to_owned(),
                node: "the Frobnicate".to_owned(),
            };
            assert_eq!(failure(sentence, &graph), lacking, "{sentence}");
        }
        let other = failure("Node (x) has input size 1 not in range", &graph);
        assert!(matches!(other, Failure::Refused { .. }), "{other}");
    }
}
