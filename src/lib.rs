//! lameduck
extern crate alloc;

pub mod env;
pub mod lifecycle;
#[cfg(unix)]
pub mod os;
