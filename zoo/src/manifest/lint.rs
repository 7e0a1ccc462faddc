//! A file held to every profile.

use std::collections::BTreeMap;

use emo_exporter::profile::PROFILES;
use emo_proto::ModelProto;
use emo_verifier::infer::Inference;

use super::entry::Lint;

/// What every profile has against a file, by the profile's name.
#[must_use]
pub fn lint(model: &ModelProto, inference: &Inference) -> BTreeMap<String, Lint> {
    let held_to = |profile| {
        let lint = emo_verifier::lint::lint(model, inference, profile);
        Lint { violations: lint.broken(), partitions: lint.partitions.len() }
    };
    PROFILES.iter().map(|profile| (profile.name.to_owned(), held_to(profile))).collect()
}
