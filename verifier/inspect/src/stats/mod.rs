//! What a file costs: counts, memory, limits on both, two files side by side, a drawing.

pub mod audit;
pub mod budget;
pub mod diff;
pub mod memory;
pub mod plot;
