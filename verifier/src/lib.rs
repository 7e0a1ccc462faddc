pub mod compare;
pub mod reference;
pub mod runtime;
