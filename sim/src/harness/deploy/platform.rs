//! Models of what replaces processes and routes requests during a deploy, each with its delays.

use std::time::Duration;

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Endpoint of lameduck's internal server that a platform probes.
/// [`ServerTrials::probe`](super::ServerTrials::probe) sets it for a server that is not lameduck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbePath {
    /// `/readiness`: 503 from the stop request on.
    Readiness,
    /// `/serving`: 503 once the listeners close.
    Serving,
}

impl ProbePath {
    pub(super) const fn path(self) -> &'static str {
        match self {
            Self::Readiness => "/readiness",
            Self::Serving => "/serving",
        }
    }
}

/// Kubernetes with a Service: a rolling update with `maxSurge: 1` and `maxUnavailable: 0`.
///
/// A new pod is started. Once the kubelet's probe has succeeded, an old pod is deleted: it gets
/// SIGTERM, and its endpoint is withdrawn at the same moment. Each node applies the changes of the
/// endpoints in order, each with its own lag, up to `propagation`. A connection stays with its pod
/// until it is closed. Each client is on a separate node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kubernetes {
    /// Endpoint that the kubelet probes. Default [`ProbePath::Serving`].
    pub probe: ProbePath,
    /// `periodSeconds` of the readiness probe. Default 2 s.
    pub probe_period: Duration,
    /// `failureThreshold` of the readiness probe. Default 1.
    pub failure_threshold: u32,
    /// Longest time from a change of the endpoints until a node applies it. Default 3 s.
    pub propagation: Duration,
    /// `terminationGracePeriodSeconds`: a pod that takes longer is killed. Default 30 s.
    pub grace_period: Duration,
}

impl Default for Kubernetes {
    fn default() -> Self {
        Self {
            probe: ProbePath::Serving,
            probe_period: secs(2),
            failure_threshold: 1,
            propagation: secs(3),
            grace_period: secs(30),
        }
    }
}

/// A balancer that detects a stop only by its probes, as HAProxy does, or an ALB with targets by
/// address. It has a pool of connections to each server, chooses a server for each request, and
/// never repeats a request.
///
/// The servers are fixed. Each in turn is stopped, and started again on its address after its exit.
/// The next one follows once the balancer sends requests to it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbingBalancer {
    /// Endpoint that the balancer probes. Default [`ProbePath::Readiness`].
    pub probe: ProbePath,
    /// Time between two probes of a server. Default 1 s.
    pub interval: Duration,
    /// Number of failed probes after which a server gets no requests. Default 1.
    pub fall: u32,
    /// Number of successful probes after which a server gets requests. Default 1.
    pub rise: u32,
    /// Time from the exit of a process to the start of the next. Default 1 s.
    pub restart_delay: Duration,
    /// Time from the stop until a process is killed. Default 30 s.
    pub grace_period: Duration,
}

impl Default for ProbingBalancer {
    fn default() -> Self {
        Self {
            probe: ProbePath::Readiness,
            interval: secs(1),
            fall: 1,
            rise: 1,
            restart_delay: secs(1),
            grace_period: secs(30),
        }
    }
}

/// `systemctl restart` of services on hosts that clients reach directly. Each is stopped, and
/// started again after its exit. In between, connections are refused, which no service can avoid:
/// only clients that try again do not notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Systemd {
    /// Time from the exit to the next start. Default 100 ms.
    pub restart_delay: Duration,
    /// `TimeoutStopSec`: a process that takes longer is killed. Default 90 s.
    pub grace_period: Duration,
}

impl Default for Systemd {
    fn default() -> Self {
        Self { restart_delay: Duration::from_millis(100), grace_period: secs(90) }
    }
}

/// Blue/green: all new processes are started next to the old ones. Once all are ready, the traffic
/// is switched, which each node applies within `propagation`. The old processes are stopped `bake`
/// after the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlueGreen {
    /// Endpoint that is probed. Default [`ProbePath::Serving`].
    pub probe: ProbePath,
    /// Time between two probes. Default 2 s.
    pub probe_period: Duration,
    /// Longest time from the switch until a node applies it. Default 3 s.
    pub propagation: Duration,
    /// Time from the switch to the stop of the old processes. Default 0 s.
    pub bake: Duration,
    /// Time from the stop until a process is killed. Default 30 s.
    pub grace_period: Duration,
}

impl Default for BlueGreen {
    fn default() -> Self {
        Self {
            probe: ProbePath::Serving,
            probe_period: secs(2),
            propagation: secs(3),
            bake: Duration::ZERO,
            grace_period: secs(30),
        }
    }
}

/// What replaces the processes and routes the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Platform {
    /// A rolling update of Kubernetes.
    Kubernetes(Kubernetes),
    /// Restarts behind a balancer that probes.
    ProbingBalancer(ProbingBalancer),
    /// Restarts without a balancer.
    Systemd(Systemd),
    /// A switch from old to new processes.
    BlueGreen(BlueGreen),
}

impl From<Kubernetes> for Platform {
    fn from(platform: Kubernetes) -> Self {
        Self::Kubernetes(platform)
    }
}

impl From<ProbingBalancer> for Platform {
    fn from(platform: ProbingBalancer) -> Self {
        Self::ProbingBalancer(platform)
    }
}

impl From<Systemd> for Platform {
    fn from(platform: Systemd) -> Self {
        Self::Systemd(platform)
    }
}

impl From<BlueGreen> for Platform {
    fn from(platform: BlueGreen) -> Self {
        Self::BlueGreen(platform)
    }
}

impl Platform {
    pub(super) const fn grace_period(&self) -> Duration {
        match self {
            Self::Kubernetes(platform) => platform.grace_period,
            Self::ProbingBalancer(platform) => platform.grace_period,
            Self::Systemd(platform) => platform.grace_period,
            Self::BlueGreen(platform) => platform.grace_period,
        }
    }

    /// Returns the longest time until a node applies a change of the rotation.
    pub(super) const fn propagation(&self) -> Duration {
        match self {
            Self::Kubernetes(platform) => platform.propagation,
            Self::BlueGreen(platform) => platform.propagation,
            Self::ProbingBalancer(_) | Self::Systemd(_) => Duration::ZERO,
        }
    }

    /// Whether a new process runs next to the old one that it replaces, on a separate address.
    pub(super) const fn has_surge(&self) -> bool {
        matches!(self, Self::Kubernetes(_) | Self::BlueGreen(_))
    }

    /// Whether requests are forwarded by a balancer with a pool of connections.
    pub(super) const fn has_pool(&self) -> bool {
        matches!(self, Self::ProbingBalancer(_))
    }

    /// Returns how processes are probed.
    pub(super) const fn probing(&self) -> Probing {
        match self {
            Self::Kubernetes(platform) => Probing {
                path: platform.probe.path(),
                period: platform.probe_period,
                fall: platform.failure_threshold,
                rise: 1,
            },
            Self::ProbingBalancer(platform) => Probing {
                path: platform.probe.path(),
                period: platform.interval,
                fall: platform.fall,
                rise: platform.rise,
            },
            // In place of `READY=1`.
            Self::Systemd(_) => Probing {
                path: ProbePath::Readiness.path(),
                period: Duration::from_millis(20),
                fall: 1,
                rise: 1,
            },
            Self::BlueGreen(platform) => Probing {
                path: platform.probe.path(),
                period: platform.probe_period,
                fall: 1,
                rise: 1,
            },
        }
    }
}

/// How a process is probed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probing {
    pub(super) path: &'static str,
    pub(super) period: Duration,
    pub(super) fall: u32,
    pub(super) rise: u32,
}

/// A deploy: how many replicas are replaced, and by which [`Platform`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deploy {
    pub(super) replicas: usize,
    pub(super) platform: Platform,
}

impl Deploy {
    /// Creates a rolling deploy of this number of replicas, on [`Kubernetes`] with its defaults.
    ///
    /// # Panics
    /// Panics unless `replicas` is from 1 to 20.
    #[track_caller]
    #[must_use]
    pub fn rolling(replicas: usize) -> Self {
        assert!(
            (1..=20).contains(&replicas),
            "a deploy of {replicas} replicas: it must have from 1 to 20"
        );
        Self { replicas, platform: Kubernetes::default().into() }
    }

    /// Creates a [`BlueGreen`] deploy with its defaults.
    ///
    /// # Panics
    /// Panics unless `replicas` is from 1 to 20.
    #[track_caller]
    #[must_use]
    pub fn blue_green(replicas: usize) -> Self {
        Self::rolling(replicas).on(BlueGreen::default())
    }

    /// Returns about how long it takes from its begin to the exit of the last old process, with
    /// this lame duck delay.
    pub(super) fn length(&self, lame_duck: Duration) -> Duration {
        /// A start, and the end of the requests in flight.
        const EACH: Duration = Duration::from_millis(500);
        let (replicas, probing) =
            (u32::try_from(self.replicas).unwrap_or(u32::MAX), self.platform.probing());
        match self.platform {
            Platform::Kubernetes(_) => (EACH + probing.period) * replicas + lame_duck,
            Platform::ProbingBalancer(platform) => {
                let seen = probing.period * (probing.rise + 1);
                (lame_duck + platform.restart_delay + EACH + seen) * replicas
            }
            Platform::Systemd(platform) => (lame_duck + platform.restart_delay + EACH) * replicas,
            Platform::BlueGreen(platform) => EACH + probing.period + platform.bake + lame_duck,
        }
    }

    /// Sets the platform.
    #[must_use]
    pub fn on(mut self, platform: impl Into<Platform>) -> Self {
        self.platform = platform.into();
        self
    }
}
