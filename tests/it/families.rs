//! The mistakes of every family of models, made in our own files of several spellings: a row a mistake. What PyTorch
//! makes of them, `tests/peers/families.py` judges.

use emo_tests::Order;
use emo_tests::mutate::{self, Mutation, Subject};
use emo_verifier::verify::cause::CAUSES;

use crate::verify::{MUTATIONS, found};
use crate::{boxes, dense, heads};

/// As published; for any runtime, folded; with neighbours merged.
const TARGETS: &[&str] = &["reference", "portable", "ort-cpu"];
/// Of families that the last two spell alike.
const TWO: &[&str] = &["reference", "portable"];
/// Where norms are still nodes, whose ε can be wrong.
const UNFOLDED: &[&str] = &["reference"];

/// A mistake, its block, and the targets whose files can have it.
type Row = (Mutation, &'static str, &'static [&'static str]);

/// At 128 × 128 pixels the third stage has 8 × 8 tokens and four windows, which are padded; the fourth one window.
const EMO: [Row; 7] = [
    (mutate::VALUE_BEFORE_ATTENTION, "stage3.1", TARGETS),
    (mutate::SIGMOID_GELU, "stage3.2", TARGETS),
    (mutate::EXCHANGED_QK, "stage3.3", TARGETS),
    (mutate::NO_SCALE, "stage4.1", TARGETS),
    (mutate::MASKED_PADDING, "stage3.5", TARGETS),
    (mutate::MASKED_PADDING, "stage4.2", TARGETS),
    // Where q and k are maps of a window each.
    (mutate::LATE_PADDING, "stage3.4", UNFOLDED),
];

/// At the same size.
const EMO2: [Row; 24] = [
    (mutate::CLOSE_ONLY, "stage3.1", TARGETS),
    (mutate::REMOTE_ONLY, "stage3.2", TARGETS),
    (mutate::REMOTE_CLOSE, "stage3.1", TARGETS),
    (mutate::CLOSE_REMOTE, "stage3.2", TARGETS),
    (mutate::ZERO_PADDED_VALUES, "stage3.1", TARGETS),
    (mutate::MASKED_PADDING, "stage3.3", TARGETS),
    (mutate::MASKED_PADDING, "stage4.1", TARGETS),
    (mutate::LATE_PADDING, "stage3.1", TARGETS),
    (mutate::VALUE_AFTER_ATTENTION, "stage3.3", TARGETS),
    (mutate::NO_LAYER_SCALE, "stage3.4", TARGETS),
    (mutate::NO_ATTENTION, "stage3.5", TARGETS),
    (mutate::NO_VALUE_ACTIVATION, "stage3.6", TARGETS),
    (mutate::NO_LOCAL_ACTIVATION, "stage3.7", TARGETS),
    (mutate::NO_LOCAL_ACTIVATION, "stage2.1", TARGETS),
    (mutate::NO_SKIP, "stage3.2", TARGETS),
    (mutate::NO_SHORTCUT, "stage2.1", TARGETS),
    (mutate::TANH_GELU, "stage3.4", TARGETS),
    (mutate::SIGMOID_GELU, "stage4.1", TARGETS),
    (mutate::EPSILON, "stage3.1", TARGETS),
    (mutate::LOCAL_EPSILON, "stage3.1", UNFOLDED),
    (mutate::EXCHANGED_QK, "stage3.2", TARGETS),
    (mutate::NO_SCALE, "stage3.3", TARGETS),
    (mutate::SCALED_WEIGHT, "stage3.5", TARGETS),
    (mutate::TRANSPOSED_KERNEL, "stage1.1", TARGETS),
];

const MOBILENET: [Row; 5] = [
    // Blocks that have no shortcut end with their norm, where it is a node.
    (mutate::NO_SHORTCUT, "blocks.3.2", TWO),
    (mutate::RELU, "blocks.2.1", TWO),
    (mutate::HALF_OPEN_CLIP, "blocks.4.2", TWO),
    (mutate::TENSORFLOW_EPSILON, "blocks.3.1", UNFOLDED),
    (mutate::SCALED_WEIGHT, "blocks.5.1", TWO),
];

const DEIT: [Row; 10] = [
    (mutate::NO_POSITION, "patch_embed", TWO),
    (mutate::MEAN_OF_PATCHES, "head", TWO),
    (mutate::MEAN_OF_TOKENS, "head", TWO),
    (mutate::FEED_FORWARD_EPSILON, "blocks.5", TWO),
    (mutate::NO_ATTENTION_SHORTCUT, "blocks.3", TWO),
    (mutate::NO_SHORTCUT, "blocks.7", TWO),
    (mutate::TANH_GELU, "blocks.4", TWO),
    (mutate::SIGMOID_GELU, "blocks.6", TWO),
    (mutate::NO_SCALE, "blocks.2", TWO),
    (mutate::EXCHANGED_QK, "blocks.1", TWO),
];

/// Every row in one of its targets, such that each target has its turn; with `EMO_THOROUGH=1` in all.
fn mistakes(model: &str, side: usize, rows: &[Row]) {
    let thorough = std::env::var("EMO_THOROUGH").is_ok_and(|v| v == "1");
    for target in TARGETS {
        let of = |(turn, (.., targets)): &(usize, &Row)| {
            if thorough { targets.contains(target) } else { targets[turn % targets.len()] == *target }
        };
        let mut rows = rows.iter().enumerate().filter(of).peekable();
        if rows.peek().is_none() {
            continue;
        }
        let subject = Subject::ours(&Order::named(model, target).with(|t| t.size = (side, side)));
        for (_, (mutation, block, _)) in rows {
            let place = format!("{model} for {target}: {} in {block}", mutation.what);
            let bytes = subject.with(mutation.edit, block);
            found(&place, &bytes.unwrap_or_else(|| panic!("{place} cannot be made")), block, mutation);
        }
    }
}

macro_rules! mistakes_of {
    ($($test:ident: $model:literal, $side:literal, $rows:expr;)*) => {$(
        #[test]
        fn $test() {
            mistakes($model, $side, &$rows);
        }
    )*};
}

mistakes_of! {
    mistakes_of_emo: "emo-1m", 128, EMO;
    mistakes_of_emo2: "emo2-1m", 128, EMO2;
    mistakes_of_mobilenetv2: "mobilenetv2-100", 64, MOBILENET;
    mistakes_of_deit: "deit-tiny", 224, DEIT;
}

/// Made in PyTorch before the export, by the peers (`tests/peers/families.py`); a stride is another layer's shape, and is
/// told as such.
const ELSEWHERE: [&str; 2] = ["exchanged-channels", "stride"];

/// Whatever the judge can compute on purpose is made here, or in `verify.rs`, so that it is known to be told.
#[test]
fn every_known_mistake_is_made() {
    let rows = [&EMO[..], &EMO2, &MOBILENET, &DEIT].concat();
    let dense =
        dense::WRONG.map(|(.., cause)| cause).into_iter().chain(heads::WRONG.map(|(.., cause)| cause));
    let dense = dense.chain(boxes::WRONG.map(|(.., cause)| cause));
    let made = rows.iter().map(|(m, ..)| m.cause).chain(MUTATIONS.map(|m| m.cause)).chain(dense);
    let made: Vec<&str> = made.chain(ELSEWHERE).collect();
    for cause in CAUSES.iter().filter(|cause| !cause.tries.is_empty()) {
        assert!(made.contains(&cause.name), "{} has no row", cause.name);
    }
}
