//! Panics that are caught and become errors: nothing of them on stderr.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Lets panics that an engine's guard catches pass in silence; all others are reported as before.
///
/// For a program to call once, as it starts: the hook is the process's, so a library leaves it alone.
pub fn silence_guarded_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |panic| {
            if !GUARDED.get() {
                before(panic);
            }
        }));
    });
}

/// The value of `run`, or what it says when it panics.
pub(crate) fn guarded<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    let before = GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(run));
    GUARDED.set(before);
    result.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("the engine panicked").to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_and_the_guard_ends_with_it() {
        assert_eq!(guarded(|| 7), Ok(7));
        assert_eq!(guarded(|| -> u8 { panic!("index {} of 3", 4) }), Err("index 4 of 3".to_owned()));
        assert!(!GUARDED.get());
        let inner = guarded(|| (guarded(|| -> u8 { panic!("inner") }), GUARDED.get()));
        assert_eq!(inner, Ok((Err("inner".to_owned()), true)));
    }
}
