//! The metrics of the workers' tokio runtimes: those that are stable in tokio.

use super::{
    collect::{float, seconds, things},
    page::Page,
};
use crate::{http::RuntimeMetrics, internal::HostStatus};
use prometheus_client::{collector::Collector, encoding::DescriptorEncoder};
use std::{fmt::Result, sync::Arc};

/// Collects the metrics of the runtimes on which the main server's connections run.
#[derive(Debug)]
pub(super) struct OfRuntimes(pub(super) Arc<HostStatus>);

impl OfRuntimes {
    /// The runtime of each worker, by its number.
    fn runtimes(&self) -> Vec<(usize, RuntimeMetrics)> {
        let workers = self.0.main.metrics.workers();
        let numbered = workers.iter().filter_map(|worker| {
            let number = self.0.heartbeats.number_of(&worker.heartbeat)?;
            Some((number, worker.runtime.clone()?))
        });
        let mut runtimes: Vec<_> = numbered.collect();
        runtimes.sort_by_key(|(number, _)| *number);
        runtimes
    }
}

impl Collector for OfRuntimes {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result {
        let mut page = Page(encoder);
        let runtimes = self.runtimes();
        let of_runtimes = |value: fn(&RuntimeMetrics) -> usize| {
            let rows = runtimes.iter().map(|(n, runtime)| (n.to_string(), value(runtime)));
            rows.collect::<Vec<_>>()
        };
        // A host in a runtime of the app's has one worker, whose runtime has several threads.
        let threads = || {
            let all = runtimes.iter().flat_map(|(n, runtime)| {
                (0..runtime.num_workers())
                    .map(move |thread| ((n + thread).to_string(), runtime, thread))
            });
            all.collect::<Vec<_>>()
        };
        let alive = of_runtimes(RuntimeMetrics::num_alive_tasks);
        page.gauges(
            things("tasks_alive", "Tasks of the runtime that have not ended"),
            alive.iter().map(|(n, count)| ([("runtime", n.as_str())], float(*count as u64))),
        )?;
        let queued = of_runtimes(RuntimeMetrics::global_queue_depth);
        page.gauges(
            things("global_queue_depth", "Tasks that wait in the global queue of the runtime"),
            queued.iter().map(|(n, count)| ([("runtime", n.as_str())], float(*count as u64))),
        )?;
        let threads = threads();
        page.counters(
            seconds("worker_busy", "Time in which the thread of the runtime ran tasks"),
            threads.iter().map(|(n, runtime, thread)| {
                let busy = runtime.worker_total_busy_duration(*thread).as_secs_f64();
                (("worker", n.as_str()), busy)
            }),
        )?;
        page.counters(
            things("worker_parks", "How often the thread of the runtime found nothing to do"),
            threads.iter().map(|(n, runtime, thread)| {
                (("worker", n.as_str()), runtime.worker_park_count(*thread))
            }),
        )
    }
}
