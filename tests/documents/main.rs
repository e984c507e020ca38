//! Tests of the repository itself: the documents, the layers, the names.

mod architecture;
mod circles;
mod from_axum_serve;
mod import_rules;
mod limits;
mod names;
mod paths;
mod promises;
mod width;
mod worker_costs;
