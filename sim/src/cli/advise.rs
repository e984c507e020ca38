//! `lameduck-sim advise`: how long the lame duck delay must be.

use super::{Held, print};
use clap::{Args, ValueEnum};
use lameduck_sim::harness::deploy::{
    BlueGreen, Deploy, Kubernetes, Platform, ProbingBalancer, advise,
};
use std::{fs, io, path::PathBuf, time::Duration};

/// Settings of the platform. Those that are not given have the defaults of its model.
#[derive(Debug, Args)]
pub(crate) struct Advise {
    /// What replaces the processes and routes the requests
    #[arg(long, value_enum, default_value = "kubernetes")]
    platform: Named,
    /// Time between two probes of a process: periodSeconds, or HAProxy's inter [default: 2s for
    /// kubernetes and blue-green, 1s for balancer]
    #[arg(long, value_name = "SPAN", value_parser = humantime::parse_duration)]
    probe_period: Option<Duration>,
    /// Failed probes after which a process gets no requests: failureThreshold, or HAProxy's fall
    /// [default: 1]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100))]
    failure_threshold: Option<u32>,
    /// Longest time until a node applies a change of the endpoints, not for balancer [default: 3s]
    #[arg(long, value_name = "SPAN", value_parser = humantime::parse_duration)]
    propagation: Option<Duration>,
    /// Number of replicas
    #[arg(long, value_name = "COUNT", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u8).range(1..=20))]
    replicas: u8,
    /// Number of deploys for each delay
    #[arg(long, value_name = "COUNT", default_value_t = 30)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    deploys: u32,
    /// Write the curve of lost requests to this SVG file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// Names of the platforms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Named {
    /// A rolling update of Kubernetes
    Kubernetes,
    /// Restarts behind a balancer that probes
    #[value(alias = "haproxy", alias = "alb")]
    Balancer,
    /// A switch from old to new processes
    BlueGreen,
}

impl Advise {
    fn platform(&self) -> Result<Platform, String> {
        let refused = |flag: &str| Err(format!("{flag} does not apply to {:?}", self.platform));
        match self.platform {
            Named::Kubernetes => {
                let default = Kubernetes::default();
                Ok(Platform::Kubernetes(Kubernetes {
                    probe_period: self.probe_period.unwrap_or(default.probe_period),
                    failure_threshold: self.failure_threshold.unwrap_or(default.failure_threshold),
                    propagation: self.propagation.unwrap_or(default.propagation),
                    grace_period: GRACE_PERIOD,
                    ..default
                }))
            }
            Named::Balancer if self.propagation.is_some() => refused("--propagation"),
            Named::Balancer => {
                let default = ProbingBalancer::default();
                Ok(Platform::ProbingBalancer(ProbingBalancer {
                    interval: self.probe_period.unwrap_or(default.interval),
                    fall: self.failure_threshold.unwrap_or(default.fall),
                    grace_period: GRACE_PERIOD,
                    ..default
                }))
            }
            Named::BlueGreen if self.failure_threshold.is_some() => refused("--failure-threshold"),
            Named::BlueGreen => {
                let default = BlueGreen::default();
                Ok(Platform::BlueGreen(BlueGreen {
                    probe_period: self.probe_period.unwrap_or(default.probe_period),
                    propagation: self.propagation.unwrap_or(default.propagation),
                    grace_period: GRACE_PERIOD,
                    ..default
                }))
            }
        }
    }
}

/// The delay is searched for, and the grace period must follow it.
const GRACE_PERIOD: Duration = Duration::from_secs(600);
/// Longest time that a platform may need to notice a stop.
const NOTICES_MAX: Duration = Duration::from_secs(300);

/// Checks that a balancer needs no longer than [`NOTICES_MAX`], with one probe more. Otherwise its
/// deploys would not end in the time of a play, and processes would be killed in the delays that
/// are tried.
fn notices_in_time(platform: Platform) -> Result<(), String> {
    let Platform::ProbingBalancer(balancer) = platform else { return Ok(()) };
    let notices = balancer.interval * balancer.fall;
    if notices + balancer.interval <= NOTICES_MAX {
        return Ok(());
    }
    Err(format!(
        "--probe-period {:?} with --failure-threshold {}: the balancer may notice a stop only after \
         {notices:?}; with one probe more that must be at most {NOTICES_MAX:?}",
        balancer.interval, balancer.fall
    ))
}

pub(crate) fn advise_on(settings: &Advise) -> io::Result<Held> {
    let given =
        [("--probe-period", settings.probe_period), ("--propagation", settings.propagation)];
    let spans = given.into_iter().filter_map(|(flag, span)| Some((flag, span?)));
    let wrong = |span: Duration| span > NOTICES_MAX || span.is_zero();
    if let Some((flag, span)) = spans.into_iter().find(|(_, span)| wrong(*span)) {
        let why = format!("{flag} {span:?}: a time above 0s and at most {NOTICES_MAX:?}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let refused = |why| io::Error::new(io::ErrorKind::InvalidInput, why);
    let platform = settings.platform().map_err(refused)?;
    notices_in_time(platform).map_err(refused)?;
    let deploy = Deploy::rolling(settings.replicas.into()).on(platform);
    let advice = advise(deploy, 0..settings.deploys.into());
    print(&format!("{platform:?}\n{advice}\n"))?;
    if let Some(path) = &settings.svg {
        fs::write(path, advice.svg()).map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", path.display()))
        })?;
    }
    Ok(if advice.least.is_some() { Held::Yes } else { Held::No })
}

#[cfg(test)]
mod tests {
    use super::advise_on;
    use crate::cli::args::{Args, Command};
    use clap::Parser;

    // "A time of 0ns is not above 0s" did not say which.
    #[test]
    fn a_time_out_of_its_range_is_named_by_its_flag() {
        for flag in ["--probe-period", "--propagation"] {
            let args = Args::parse_from(["lameduck-sim", "advise", flag, "0s"]);
            let Some(Command::Advise(settings)) = args.command else { panic!("no command") };
            let error = advise_on(&settings).unwrap_err().to_string();
            assert!(error.starts_with(flag), "{error}");
        }
    }

    // The deploys of such a balancer did not end in the simulated hour, and a delay was advised.
    #[test]
    fn a_balancer_that_notices_too_late_is_refused() {
        for (period, threshold, notices) in [("300s", "1", "300s"), ("60s", "5", "300s")] {
            let words = ["lameduck-sim", "advise", "--platform=balancer", "--deploys=1"];
            let given = ["--probe-period", period, "--failure-threshold", threshold];
            let args = Args::parse_from(words.into_iter().chain(given));
            let Some(Command::Advise(settings)) = args.command else { panic!("no command") };
            let error = advise_on(&settings).unwrap_err().to_string();
            assert!(error.contains(&format!("only after {notices}")), "{error}");
        }
    }
}
