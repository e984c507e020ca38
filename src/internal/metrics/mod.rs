//! `/metrics`: what an operator watches, for Prometheus.
//!
//! Nothing is counted for it. It reads what the report will say from where the report reads it, so the last scrape of a life
//! agrees with the report to the unit; only the latency histogram is its own ([`Latency`](crate::http)). It runs on the internal
//! thread, at each scrape, and takes no lock that a request takes.
//!
//! The crate `prometheus-client` writes OpenMetrics text and no other; the older format is made of that text, line by line
//! ([`classic`]). A second crate for it would bring a second registry, and with it two truths.

mod accept;
mod classic;
mod collect;
mod page;

pub(crate) use accept::Format;

use super::HostStatus;
use crate::runtime::ProcessStats;
use collect::{OfHost, OfProcess};
use prometheus_client::{encoding::text, registry::Registry};
use std::{fmt, sync::Arc};

/// What `/metrics` answers with.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
}

impl Metrics {
    pub(crate) fn new(
        status: Arc<HostStatus>,
        process_stats: Option<Box<dyn ProcessStats>>,
    ) -> Self {
        let mut registry = Registry::default();
        registry.sub_registry_with_prefix("lameduck").register_collector(Box::new(OfHost(status)));
        if let Some(process_stats) = process_stats {
            // These names are everybody's: dashboards and alerts know them.
            registry
                .sub_registry_with_prefix("process")
                .register_collector(Box::new(OfProcess(process_stats)));
        }
        Self { registry }
    }

    /// The page of now.
    ///
    /// # Errors
    /// A number that the format cannot hold.
    pub(crate) fn encode(&self, format: Format) -> Result<String, fmt::Error> {
        let mut page = String::with_capacity(16 * 1024);
        text::encode(&mut page, &self.registry)?;
        Ok(match format {
            Format::OpenMetrics => page,
            Format::Classic => classic::translate(&page),
        })
    }
}
