//! P13: `/metrics`: what an operator watches agrees with what the report says, in formats that
//! others can read.

mod documents;
mod drill;
mod formats;
mod gauges;
mod hooks;
mod page;
mod tools;
