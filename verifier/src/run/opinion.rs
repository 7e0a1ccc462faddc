//! A second engine: where a file seems wrong in one, another is asked before anybody is blamed.

use ndarray::ArrayD;

use crate::runtime::{Concrete, ENGINES, Failure, Options, Runtime};

/// The engines at hand beside the one that reports call `first`, those that know most operators first.
#[must_use]
pub fn others(first: &str) -> Vec<Box<dyn Runtime>> {
    const ORDER: [&str; 3] = ["ort", "f64", "tract"];
    let rows = ORDER.iter().filter_map(|name| ENGINES.iter().find(|engine| engine.name == *name));
    let open = rows.filter_map(|engine| (engine.open)(&Options::default()).ok());
    open.filter(|runtime| runtime.name() != first).collect()
}

/// The values called `outputs` for `fed`, the values called `inputs`, each any of the main graph.
///
/// # Errors
/// Those of [`Runtime::ready`] and of [`Session::run`](crate::runtime::Session::run).
pub fn values(
    runtime: &dyn Runtime,
    model: &Concrete,
    inputs: &[String],
    fed: &[ArrayD<f32>],
    outputs: &[String],
) -> Result<Vec<ArrayD<f32>>, Failure> {
    runtime.ready(model, inputs, outputs)?.run(fed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_engine_is_always_at_hand() {
        for engine in ENGINES {
            let Ok(runtime) = (engine.open)(&Options::default()) else { continue };
            let others: Vec<&str> = others(runtime.name()).iter().map(|other| other.name()).collect();
            assert!(!others.is_empty() && !others.contains(&runtime.name()), "{}: {others:?}", engine.name);
        }
    }
}
