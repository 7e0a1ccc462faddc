//! The size of a file's attention windows, which no layer shows: that of the products between its layers.

use std::collections::BTreeMap;
use std::sync::Arc;

use emo_exporter::models::Model;

use super::found::{Found, Input, at_batch_one};
use super::layers::Place;
use super::plan::{Plan, Segment};
use crate::cost::Work;
use crate::infer::Inference;

/// The sides that are published for some size of the picture, in tokens.
const SIDES: [usize; 4] = [7, 8, 10, 16];

/// What is expected of the file at its own size, and with its windows: the model's own, unless others give the
/// file's counts.
pub(super) fn at_size(
    inference: &Inference,
    found: &[Found],
    places: &[Place],
    model: &Model,
    plan: &Arc<Plan>,
) -> Arc<Plan> {
    let published = model.published_size();
    let input = Input::of(inference);
    let (size, images) = input.as_ref().map_or((published, 1), |input| (input.size, input.images));
    let own = match (size, images) == (published, 1) && *model == plan.model {
        true => plan.clone(),
        false => Plan::new(model, size, images).map_or_else(|_| plan.clone(), Arc::new),
    };
    let batch = input.and_then(|input| input.batch);
    let products = products(inference, found, places, batch.as_deref());
    let (Some(window), most) = (model.window(), own.segments.values().filter(|s| s.products > 0).count())
    else {
        return own;
    };
    let mut best = (agreeing(&own, &products), own);
    for side in SIDES.into_iter().filter(|&side| side != window) {
        if best.0 == most {
            break;
        }
        let Ok(other) = Plan::new(&model.with_window(side), size, images) else { continue };
        let agree = agreeing(&other, &products);
        if agree > best.0 {
            best = (agree, Arc::new(other));
        }
    }
    best.1
}

/// What is against the attention windows of a file that was recognised as `found`: the model that was `asked` for has
/// others, or none such was published.
#[must_use]
pub fn other_window(found: &Model, asked: Option<&Model>) -> Option<String> {
    let mut sides = asked.unwrap_or(found).published_windows();
    sides.extend(asked.and_then(Model::window));
    sides.sort_unstable();
    sides.dedup();
    let side = found.window().filter(|side| !sides.contains(side))?;
    let sides: Vec<_> = sides.iter().map(ToString::to_string).collect();
    let published = if found.is_own() { "" } else { " as published" };
    Some(format!(
        "expected attention windows of {} tokens a side{published}, found {side}",
        sides.join(" or ")
    ))
}

/// Multiply-adds of products of two computed matrices, by place.
fn products<'p>(
    inference: &Inference,
    found: &[Found],
    places: &'p [Place],
    batch: Option<&str>,
) -> BTreeMap<&'p Place, i64> {
    let is_layer = |index: usize| found.iter().any(|found| found.parts.iter().any(|part| part.node == index));
    let mut products = BTreeMap::new();
    for (index, node) in inference.nodes.iter().enumerate() {
        if matches!(&*node.work, Work::MatMul { .. }) && !is_layer(index) {
            let macs = at_batch_one(&node.cost.macs, batch).unwrap_or(0);
            *products.entry(&places[index]).or_default() += macs as i64;
        }
    }
    products
}

/// Places at which a file's products are those of a plan: all of them, those of one pattern of windows alone, or once
/// what is the same in both patterns.
fn agreeing(plan: &Plan, products: &BTreeMap<&Place, i64>) -> usize {
    let agrees = |(place, segment): &(&Place, &Segment)| {
        let (all, found) = (segment.products, products.get(*place).copied().unwrap_or(0));
        all > 0 && [all, all / 2, all - segment.doubled].contains(&found)
    };
    plan.segments.iter().filter(agrees).count()
}
