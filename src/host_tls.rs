//! The TLS of a host, which is set up before the driver exists: its files are read within the limit
//! of the start, and a stop request ends the wait (P1, P7).

use crate::{
    host_config::{HostConfig, ShutdownHandle},
    host_error::{HostError, HostErrorKind},
    lifecycle::{Phase, Signal, StopReason},
    report::Report,
    runtime::{Clock, SignalSource},
    settings::Settings,
    tls::{CertificateContent, CertificateFiles, check, from_files},
};
use rustls::ServerConfig;
use std::{path::Path, sync::Arc};

impl HostConfig {
    /// Returns the configuration of the main server's TLS, if it speaks TLS.
    ///
    /// # Errors
    /// The report of a start that failed, or that a stop request ended.
    pub(crate) async fn take_tls(
        &mut self,
        clock: &dyn Clock,
        signals: &mut impl SignalSource,
    ) -> Result<Option<Arc<ServerConfig>>, Report> {
        let worst_case = self.settings.plan.worst_case();
        let stop_requests = self.stop_requests();
        tokio::select! {
            biased;
            loaded = self.load_tls(clock) => {
                loaded.map_err(|error| Report::failed_to_start(error, worst_case))
            }
            reason = stop_requests.first(signals) => {
                Err(Report::stopped_before_start(reason, worst_case))
            }
        }
    }

    async fn load_tls(
        &mut self,
        clock: &dyn Clock,
    ) -> Result<Option<Arc<ServerConfig>>, HostError> {
        let settings = &self.settings;
        let (Some(certificate), Some(key)) = (&settings.tls_cert, &settings.tls_key) else {
            return self.tls.as_ref().map(usable).transpose();
        };
        // The app may change its directory before a reload.
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let files = CertificateFiles { certificate: absolute(certificate), key: absolute(key) };
        let knobs = settings.knobs(&["tls-cert", "tls-key"]);
        let message = format!("cannot speak TLS{knobs}");
        let content = if self.reads_aside {
            read_in_time(&files, settings, &message, clock).await?
        } else {
            files.read()
        };
        let (config, certificate) = from_files(files, content)
            .map_err(|error| HostError::with_source(HostErrorKind::Tls, message, error))?;
        self.certificate = Some(certificate);
        Ok(Some(config))
    }

    fn stop_requests(&self) -> StopRequests {
        StopRequests {
            signals: self.settings.stop_signals.clone(),
            has_reload: self.reload.is_some(),
            handle: self.stop.clone(),
        }
    }
}

/// Returns a configuration of the app if sessions can be made of it. Otherwise each connection
/// would be dropped, and the start would look successful (P14).
fn usable(config: &Arc<ServerConfig>) -> Result<Arc<ServerConfig>, HostError> {
    check(config).map(|()| config.clone()).map_err(|error| {
        HostError::with_source(HostErrorKind::Tls, "cannot speak TLS with the configuration", error)
    })
}

/// Reads the files of the certificate, which must not take longer than the start may (P7).
async fn read_in_time(
    files: &CertificateFiles,
    settings: &Settings,
    message: &str,
    clock: &dyn Clock,
) -> Result<CertificateContent, HostError> {
    let limit = settings.plan.start;
    let mut late = clock.sleep_until(clock.now() + limit);
    tokio::select! {
        biased;
        read = files.read_aside() => read.map_err(|error| {
            HostError::with_source(HostErrorKind::System, message.to_owned(), error)
        }),
        () = late.as_mut() => {
            let limit = humantime::format_duration(limit);
            let knobs = settings.knobs(&["start"]);
            Err(HostError::new(
                HostErrorKind::StartTimeout,
                format!(
                    "{message}: reading {} and {} took longer than the limit of the start, \
                     plan.start={limit}{knobs}",
                    files.certificate.display(),
                    files.key.display()
                ),
            ))
        }
    }
}

/// The sources of a stop request before the driver exists.
struct StopRequests {
    signals: Vec<Signal>,
    /// SIGHUP is a reload, which is ignored until the host serves.
    has_reload: bool,
    handle: ShutdownHandle,
}

impl StopRequests {
    /// Waits for the first request.
    async fn first(self, source: &mut impl SignalSource) -> StopReason {
        while let Some(signal) = self.handle.signal_or_requested(source).await {
            if signal == Signal::Hangup && self.has_reload {
                let phase = Phase::Starting.name();
                crate::log::info!(phase, "reload ignored: the process does not serve");
            } else if self.signals.contains(&signal) {
                return StopReason::Signal(signal);
            } else {
                crate::log::info!(signal = signal.name(), "signal ignored");
            }
        }
        StopReason::Requested
    }
}
