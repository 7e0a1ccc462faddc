//! Whether a graph is small enough to be run here: a file of a hundred bytes may ask for terabytes.

use emo_proto::ModelProto;
use emo_proto::tensor::bits;

use crate::fact::Fact;
use crate::infer::{Inference, NodeFacts};
use crate::memory::peak;
use crate::run::failure::Failure;
use crate::sym::Expr;

/// Bytes that a graph may hold at once while it runs.
const MOST_BYTES: u64 = 1 << 32;
/// Times the stored constants that constants computed from them may take, and bytes beyond: engines compute them
/// before the graph runs, and keep them.
const MOST_TIMES: u64 = 64;
const SLACK: u64 = 1 << 29;

/// Refuses a graph whose values do not fit into what there is for them, as far as shapes tell.
///
/// # Errors
/// [`Failure::Wrong`], which says what is too large.
pub(super) fn afford(model: &ModelProto, inference: &Inference) -> Result<(), Failure> {
    let too_large = |what: &str, found: u64, most: u64| {
        let message =
            format!("too large to run here: expected {what} of {most} bytes at most, found {found}");
        Failure::wrong(message)
    };
    let values = inference.values.iter().chain(inference.bodies.iter().flat_map(|body| body.values.iter()));
    for (name, fact) in values {
        if let Some(found) = size(fact).filter(|&n| n > MOST_BYTES) {
            return Err(too_large("a value", found, MOST_BYTES).at(name));
        }
    }
    let sum = |sizes: &mut dyn Iterator<Item = u64>| sizes.fold(0, u64::saturating_add);
    let stored = inference.constants.iter().filter(|constant| constant.made_by.is_none());
    let stored = sum(&mut stored.filter_map(|constant| size(&constant.fact)));
    let computed = inference.nodes.iter().flat_map(NodeFacts::written).filter(|fact| fact.source.is_some());
    let computed = sum(&mut computed.filter_map(size));
    let most = stored.saturating_mul(MOST_TIMES).saturating_add(SLACK);
    if computed > most {
        return Err(too_large("computed constants", computed, most));
    }
    match peak(model, inference).bytes.and_then(|bytes| bytes.count()) {
        Some(found) if found > MOST_BYTES => Err(too_large("values at once", found, MOST_BYTES)),
        _ => Ok(()),
    }
}

/// Bytes of a value, where its extents are numbers or too large to be.
fn size(fact: &Fact) -> Option<u64> {
    let dims = fact.dims.as_ref().ok()?;
    if dims.iter().any(Expr::overflows) {
        return Some(u64::MAX);
    }
    let elements = dims.iter().try_fold(1_u64, |n, dim| Some(n.saturating_mul(dim.count()?)))?;
    Some(elements.saturating_mul(bits(fact.dtype).unwrap_or(8) as u64).div_ceil(8))
}
