//! Tests of the repository itself: the documents, the layers, the names.

mod architecture;
mod circles;
mod limits;
mod names;
mod promises;
