//! `/metrics`: the metrics for Prometheus.
//!
//! The page reads the same counters as the report, so the last scrape of a run agrees with the
//! report exactly. Only the latency histogram is counted for metrics alone
//! ([`Latency`](crate::http)). The page is written on the internal thread at each scrape, and takes
//! no lock that a request takes.
//!
//! The crate `prometheus-client` writes only OpenMetrics text. The older format is converted from
//! that text, line by line ([`classic`]). A second crate for it would need a second registry, whose
//! values could differ.

mod accept;
mod classic;
mod collect;
mod page;
mod runtimes;

pub(crate) use accept::Format;

use super::HostStatus;
use crate::{
    runtime::ProcessStats,
    unwind::{AppValue, catch},
};
use collect::{OfHost, OfProcess};
use prometheus_client::{encoding::text, registry::Registry};
use runtimes::OfRuntimes;
use std::{fmt, sync::Arc};

/// The app's metrics.
pub(crate) type AppMetrics = Registry;

/// The response of `/metrics`.
pub(crate) struct Metrics {
    registry: Registry,
    /// The metrics of the app.
    app: Option<Arc<AppValue<AppMetrics>>>,
}

impl Metrics {
    pub(crate) fn new(
        status: Arc<HostStatus>,
        process_stats: Option<Box<dyn ProcessStats>>,
        app: Option<Arc<AppValue<AppMetrics>>>,
    ) -> Self {
        let mut registry = Registry::default();
        registry
            .sub_registry_with_prefix("lameduck")
            .register_collector(Box::new(OfHost(status.clone())));
        if let Some(process_stats) = process_stats {
            // These names are standard: dashboards and alerts rely on them.
            registry
                .sub_registry_with_prefix("process")
                .register_collector(Box::new(OfProcess(process_stats)));
            // Real times, which a simulation must not see.
            registry
                .sub_registry_with_prefix("tokio")
                .register_collector(Box::new(OfRuntimes(status)));
        }
        Self { registry, app }
    }

    /// Returns the current page.
    ///
    /// # Errors
    /// If the format cannot represent a number.
    pub(crate) fn encode(&self, format: Format) -> Result<String, fmt::Error> {
        let mut page = String::with_capacity(16 * 1024);
        text::encode_registry(&mut page, &self.registry)?;
        if let Some(app) = &self.app {
            // The code of the app: its collectors may panic.
            catch(|| text::encode_registry(&mut page, app)).map_err(|panic| {
                crate::log::error!(panic, "the app's metrics panicked");
                fmt::Error
            })??;
        }
        text::encode_eof(&mut page)?;
        Ok(match format {
            Format::OpenMetrics => page,
            Format::Classic => classic::translate(&page),
        })
    }
}
