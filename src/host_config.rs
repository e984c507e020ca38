//! What a host is given before it runs, except its service.

#[cfg(feature = "tls")]
use crate::tls::ReloadingCertificate;
use crate::{
    background::BackgroundTask,
    hook::{BoxFuture, Hook},
    host_error::{HostError, HostErrorKind},
    http::{BoxError, OutcomeObserver},
    internal::{HostStatus, InternalRoute},
    lifecycle::Signal,
    readiness::ReadinessCheck,
    runtime::{Address, SignalSource},
    settings::Settings,
    unwind::AppValue,
};
use std::{collections::BTreeMap, fmt, sync::Arc};
use tokio_util::sync::CancellationToken;

/// Everything that a host is given, except its service.
#[derive(Default)]
pub(crate) struct HostConfig {
    pub(crate) settings: Settings,
    pub(crate) hooks: Vec<Hook>,
    pub(crate) background: Vec<BackgroundTask>,
    pub(crate) checks: Vec<ReadinessCheck>,
    pub(crate) routes: BTreeMap<String, InternalRoute>,
    pub(crate) stop: ShutdownHandle,
    pub(crate) on_bound: Option<AppValue<OnBound>>,
    /// Reads the resource usage of the process; set only by the entry points that own one.
    #[cfg(feature = "metrics")]
    pub(crate) process_stats: Option<Box<dyn crate::runtime::ProcessStats>>,
    /// The metrics of the app.
    #[cfg(feature = "metrics")]
    pub(crate) app_metrics: Option<Arc<AppValue<crate::internal::AppMetrics>>>,
    /// Whether `/debug/pprof/` is served.
    #[cfg(feature = "profiles")]
    pub(crate) profiles: bool,
    #[cfg(feature = "profiles")]
    pub(crate) heap_profile: Option<crate::runtime::HeapProfile>,
    /// Takes profiles of the process; set only by the entry points that own one.
    #[cfg(feature = "profiles")]
    pub(crate) profiler: Option<Box<dyn crate::runtime::Profiler>>,
    pub(crate) reload: Option<Reload>,
    pub(crate) outcome_observer: Option<OutcomeObserver>,
    pub(crate) observer: Option<Observer>,
    /// The configuration that the app made itself.
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
    /// The certificate that was read from files.
    #[cfg(feature = "tls")]
    pub(crate) certificate: Option<Arc<ReloadingCertificate>>,
    /// Whether the files of the certificate are read on a separate thread, within the limit of the
    /// start. A simulation reads them directly, because its clock does not wait for a thread.
    #[cfg(feature = "tls")]
    pub(crate) reads_aside: bool,
    #[cfg(all(feature = "systemd", target_os = "linux"))]
    pub(crate) systemd: bool,
}

/// The app's reload.
pub(crate) type Reload = Arc<dyn Fn() -> BoxFuture<Result<(), BoxError>> + Send + Sync>;

pub(crate) type OnBound = Box<dyn FnOnce(&BoundAddresses) + Send>;

/// Reports the host's status to another program. It runs on the internal server's thread, which a
/// blocked worker does not stop, and ends with the internal server.
pub(crate) type Observer = Box<dyn FnOnce(Arc<HostStatus>) -> BoxFuture<()> + Send>;

impl HostConfig {
    /// Returns the reason why no host can run with this configuration (P14).
    pub(crate) fn refusal(&self) -> Option<HostError> {
        if let Err(error) = self.settings.check() {
            return Some(error);
        }
        #[cfg(feature = "tls")]
        if self.tls.is_some() && self.settings.tls_cert.is_some() {
            let message = "tls_cert is set, and Builder::tls was called: choose one of them";
            return Some(HostError::new(HostErrorKind::Settings, message));
        }
        let path = self.routes.keys().find(|path| !path.starts_with('/'))?;
        let message = format!("internal route {path:?}: a path begins with a slash");
        Some(HostError::new(HostErrorKind::Settings, message))
    }
}

impl fmt::Debug for HostConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostConfig")
            .field("settings", &self.settings)
            .field("hooks", &self.hooks)
            .field("background", &self.background)
            .field("checks", &self.checks)
            .field("routes", &self.routes.keys())
            .finish_non_exhaustive()
    }
}

/// The addresses of a host whose ports are reserved. For port 0 they contain the port that the
/// system chose.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct BoundAddresses {
    /// The addresses of the main server, in the order of the settings: first those without, then
    /// those with PROXY headers.
    pub main: Vec<Address>,
    /// The address of the internal server.
    pub internal: Address,
}

/// Requests the stop of a host by code, as a signal does. Clones stop the same host.
///
/// Such a stop comes from inside the process: no platform withdraws the endpoint, so `/serving` is
/// 503 at once (P2b).
#[derive(Clone, Debug, Default)]
pub struct ShutdownHandle(CancellationToken);

impl ShutdownHandle {
    /// Requests the stop. Further calls change nothing.
    pub fn stop(&self) {
        self.0.cancel();
    }

    /// Ready once the stop was requested.
    pub(crate) async fn requested(&self) {
        self.0.cancelled().await;
    }

    /// Waits for a signal, or until the stop was requested by code: then `None`. A signal that is
    /// held back comes first, because the app's code may have received it, too (P2b).
    pub(crate) async fn signal_or_requested(
        &self,
        signals: &mut impl SignalSource,
    ) -> Option<Signal> {
        tokio::select! {
            biased;
            signal = signals.recv() => return Some(signal),
            () = self.requested() => {}
        }
        if signals.is_holding() { Some(signals.recv().await) } else { None }
    }
}
