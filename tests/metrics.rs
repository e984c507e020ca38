//! `/metrics`: what an operator watches agrees with what the report says, in formats that others can read.

#[path = "metrics/documents.rs"]
mod documents;
#[path = "metrics/drill.rs"]
mod drill;
#[path = "metrics/formats.rs"]
mod formats;
#[path = "metrics/gauges.rs"]
mod gauges;
#[path = "metrics/hooks.rs"]
mod hooks;
#[path = "metrics/page.rs"]
mod page;
#[path = "metrics/tools.rs"]
mod tools;

mod support;
