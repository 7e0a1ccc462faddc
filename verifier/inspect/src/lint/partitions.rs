//! Into how many partitions a runtime cuts a graph that it takes only parts of.

use std::collections::BTreeMap;

use super::graph::Step;

/// The sizes of the partitions, in the order in which they run: as many nodes as can run together
/// go into one, and the next begins behind what the runtime does not take.
///
/// A partition must not wait for itself through a node outside of it. So each node has a number,
/// the least that its operands allow: that of the latest of them, and one more where a node that is
/// not taken reads from one that is. The taken nodes of a number are a partition. ONNX Runtime cuts
/// in the same way (`core/providers/partitioning_utils.cc`, `CreateSupportedPartitionNodeGroups`);
/// like its partitions, these need not be connected.
///
/// `taken` says of each step whether the runtime takes it; a node whose body it does not take whole
/// is changed to not taken. Then the body is a graph of its own, with partitions of its own.
pub(super) fn partitions(steps: &[Step], taken: &mut [bool]) -> Vec<usize> {
    // Bodies come after what holds them.
    for (i, step) in steps.iter().enumerate().rev() {
        if let Some(holder) = step.holder.filter(|_| !taken[i]) {
            taken[holder] = false;
        }
    }
    let mut numbers = vec![0_usize; steps.len()];
    let mut sizes: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    for (i, step) in steps.iter().enumerate() {
        let behind = |&before: &usize| numbers[before] + usize::from(taken[before] && !taken[i]);
        numbers[i] = step.after.iter().map(behind).max().unwrap_or(0);
        let held = step.holder.is_some_and(|holder| taken[holder]);
        if taken[i] && !held {
            *sizes.entry((step.graph, numbers[i])).or_default() += 1;
        }
    }
    sizes.into_values().collect()
}
