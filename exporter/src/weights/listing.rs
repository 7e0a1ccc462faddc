//! The tensors of a file, listed before any is read, under the published names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use emo_proto::Bytes;
use emo_proto::{Error, Result};

use super::entry::Listing;
use super::mismatch::Shown;
use super::{Parameter, pth, safetensors};

/// Entries of a checkpoint that hold a network's weights, the averaged ones of EMO's
/// training first.
const NETWORKS: [&str; 6] = ["net_E.", "net.", "state_dict.", "model.", "model_ema.", "state_dict_ema."];

/// What wrappers put before a parameter's name: DistributedDataParallel, dense models.
const WRAPPERS: [&str; 2] = ["module.", "backbone."];

/// Integer scalars beside each batch norm's statistics: training state that no export has.
const IGNORED: &str = "num_batches_tracked";

/// Modules and copies that training has beside a network, and no model: the head that segmenters are trained with,
/// averages under flattened names beside the weights that they were swapped with.
const SPARE: [&str; 2] = ["auxiliary_head.", "ema_"];

/// What stands on a backbone: spare where the model is a backbone alone.
const ON_BACKBONES: [&str; 6] = ["norm.", "head.", "classifier.", "neck.", "bbox_head.", "decode_head."];

/// How files begin that people take for checkpoints.
const FOREIGN: [(&[u8], &str); 8] = [
    (b"\x08", "what may be an ONNX model"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"GGUF", "a GGUF file"),
    (b"\x1f\x8b", "a gzip archive: unpack it"),
    (b"version https://git-lfs", "a Git LFS pointer: run git lfs pull"),
    (b"<", "an HTML or XML page: the download failed"),
    (b"{", "JSON"),
];

/// The tensors of the file at `path`, whose content `file` is. The format is found by
/// content, whatever the file's name says.
pub(super) fn list(path: &Path, file: &Bytes) -> Result<Listing> {
    let listing = if safetensors::is(file) {
        safetensors::list(file)?
    } else if pth::is(file) {
        pth::list(path, file)?
    } else {
        let found = match FOREIGN.iter().find(|(start, _)| file.starts_with(start)) {
            Some((_, what)) => *what,
            None if file.is_empty() => "an empty file",
            None => "something else",
        };
        return Err(Error::new(format!(
            "expected a checkpoint of torch.save or a safetensors file, found {found}"
        )));
    };
    if listing.is_empty() {
        return Err(Error::new("expected a checkpoint, found no tensor in it"));
    }
    Ok(listing)
}

/// The weights of one network in a checkpoint.
pub(super) struct Network {
    /// The preferred entry's tensors under the names that the model has.
    pub tensors: Listing,
    /// That entry's path, if it is not the whole file.
    pub entry: Option<String>,
    /// Tensors of modules that the model does without, by module.
    pub left_out: BTreeMap<&'static str, usize>,
}

/// The weights of one network in a checkpoint, for a model of the `expected` ones.
pub(super) fn network(mut listing: Listing, expected: &[Parameter]) -> Result<Network> {
    let mut path: Vec<&str> = Vec::new();
    let holds = |listing: &Listing, prefix: &str| listing.keys().any(|name| name.starts_with(prefix));
    while let Some(prefix) = NETWORKS.into_iter().find(|prefix| holds(&listing, prefix)) {
        listing = listing
            .into_iter()
            .filter_map(|(name, entry)| Some((name.strip_prefix(prefix)?.to_owned(), entry)))
            .collect();
        path.push(prefix.trim_end_matches('.'));
    }

    let known: BTreeSet<&str> = expected.iter().map(|parameter| parameter.name.as_str()).collect();
    let has = |module: &&str| known.iter().any(|name| name.starts_with(module));
    let alone = !ON_BACKBONES.iter().any(has);
    let spare =
        SPARE.iter().chain(ON_BACKBONES.iter().filter(|_| alone)).copied().filter(|module| !has(module));
    let spare: Vec<&'static str> = spare.collect();
    let mut network = Network {
        tensors: Listing::new(),
        entry: (!path.is_empty()).then(|| path.join(".")),
        left_out: BTreeMap::new(),
    };
    for (found, entry) in listing {
        if found.ends_with(IGNORED) {
            continue;
        }
        let name = unwrapped(&found, &known);
        if let Some(module) = spare.iter().find(|module| name.starts_with(**module)) {
            *network.left_out.entry(module.trim_end_matches(['.', '_'])).or_default() += 1;
            continue;
        }
        if network.tensors.contains_key(name) {
            return Err(Error::new(format!(
                "expected one tensor {0}, found two, one of them as {1}",
                Shown(name),
                Shown(&found)
            )));
        }
        network.tensors.insert(name.to_owned(), entry);
    }
    Ok(network)
}

/// The name without wrappers' prefixes, of which a model may have some itself.
fn unwrapped<'a>(mut name: &'a str, known: &BTreeSet<&str>) -> &'a str {
    while !known.contains(name)
        && let Some(inner) = WRAPPERS.into_iter().find_map(|wrapper| name.strip_prefix(wrapper))
    {
        name = inner;
    }
    name
}

#[cfg(test)]
mod tests {
    use emo_proto::tensor::Tensor;

    use super::super::entry::Entry;
    use super::*;

    fn listing(names: &[&str]) -> Listing {
        let entry = || Entry { shape: vec![1], read: Box::new(|| Tensor::from_f32(vec![1], vec![0.0])) };
        names.iter().map(|name| ((*name).to_owned(), entry())).collect()
    }

    fn names(found: &[&str], expected: &[&str]) -> (Vec<String>, Option<String>) {
        let expected: Vec<_> =
            expected.iter().map(|name| Parameter { name: (*name).to_owned(), shape: vec![1] }).collect();
        let network = network(listing(found), &expected).unwrap();
        (network.tensors.into_keys().collect(), network.entry)
    }

    #[test]
    fn one_network_is_chosen_and_unwrapped() {
        let cases: [(&[&str], &str, Option<&str>); 9] = [
            (&["a.bias", "a.num_batches_tracked"], "a.bias", None),
            (&["net.a.bias", "net_E.b.bias", "optimizer.0"], "b.bias", Some("net_E")),
            (&["net.a.bias", "epoch.b"], "a.bias", Some("net")),
            (&["state_dict_ema.a.bias"], "a.bias", Some("state_dict_ema")),
            (&["model_ema.module.a.bias"], "a.bias", Some("model_ema")),
            (&["model.module.backbone.a.bias"], "a.bias", Some("model")),
            (&["backbone.module.a.bias"], "a.bias", None),
            (&["state_dict.model.a.bias"], "a.bias", Some("state_dict.model")),
            (&["network.a.bias"], "network.a.bias", None),
        ];
        for (found, name, entry) in cases {
            assert_eq!(
                names(found, &["a.bias"]),
                (vec![name.to_owned()], entry.map(str::to_owned)),
                "{found:?}"
            );
        }
    }

    #[test]
    fn a_prefix_that_the_model_has_stays() {
        let (names, _) = names(&["module.backbone.a.bias"], &["backbone.a.bias"]);
        assert_eq!(names, ["backbone.a.bias"]);
    }

    #[test]
    fn what_training_alone_has_is_left_out() {
        let left_out = |found: &[&str], expected: &[&str]| {
            let parameter = |name: &&str| Parameter { name: (*name).to_owned(), shape: vec![1] };
            let expected: Vec<_> = expected.iter().map(parameter).collect();
            let network = network(listing(found), &expected).unwrap();
            let left_out: Vec<_> = network.left_out.into_iter().collect();
            (network.tensors.into_keys().collect::<Vec<_>>(), left_out)
        };
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let segmenter = [
            "state_dict.backbone.stage0.bias",
            "state_dict.decode_head.bias",
            "state_dict.auxiliary_head.conv_seg.bias",
            "state_dict.auxiliary_head.conv_seg.weight",
            "state_dict.ema_backbone_stage0_bias",
            "optimizer.0",
        ];
        let expected = ["backbone.stage0.bias", "decode_head.bias"];
        assert_eq!(
            left_out(&segmenter, &expected),
            (owned(&expected), vec![("auxiliary_head", 2), ("ema", 1)])
        );
        // A backbone out of a segmenter and out of a classifier.
        let alone = ["stage0.bias"];
        let (names, modules) = left_out(&segmenter, &alone);
        assert_eq!((names, modules.len()), (owned(&alone), 3));
        let classifier = ["net.stage0.bias", "net.norm.norm.bias", "net.head.bias"];
        assert_eq!(left_out(&classifier, &alone), (owned(&alone), vec![("head", 1), ("norm", 1)]));
        // A classifier does not do without a neck.
        let (names, modules) = left_out(&["head.bias", "neck.bias"], &["head.bias"]);
        assert_eq!((names, modules), (owned(&["head.bias", "neck.bias"]), vec![]));
    }

    #[test]
    fn two_tensors_of_one_name_are_refused() {
        let error = network(listing(&["a.bias", "module.a.bias"]), &[]).err().unwrap().to_string();
        assert!(error.contains("module.a.bias"), "{error}");
    }
}
