//! P13: `/metrics`: the numbers that an operator watches agree with the report, in formats that
//! other programs can read.

mod documents;
mod drill;
mod formats;
mod gauges;
mod hooks;
mod page;
mod tools;
