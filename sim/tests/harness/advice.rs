//! `lameduck-sim advise`: what it advises, and that its defaults are those of the documents.

use lameduck::lifecycle::Plan;
use lameduck_sim::{
    Deploy,
    harness::deploy::{Kubernetes, ProbePath, ProbingBalancer, advise},
};
use std::{fs, path::Path, time::Duration};

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_advised_delay_loses_nothing_and_half_of_it_does() {
    let interval = Duration::from_millis(400);
    let balancer = ProbingBalancer { interval, fall: 2, ..ProbingBalancer::default() };
    let advice = advise(Deploy::rolling(2).on(balancer), 0..2);
    let text = advice.to_string();
    let least = advice.least.unwrap_or_else(|| panic!("no delay is long enough:\n{text}"));
    // The second failed probe comes at most two intervals after the stop, and takes a round trip.
    assert!((interval..=3 * interval).contains(&least), "{text}");
    for point in &advice.curve {
        let loses = point.losses.plays_with_loss > 0;
        assert!(!loses || point.lame_duck < least, "{text}");
        assert!(loses || point.lame_duck > least / 2, "{text}");
    }
    assert!(advice.bound().is_some_and(|bound| (0.0..=1.0).contains(&bound)));
    assert!(text.contains("the least lame duck delay that loses nothing:"), "{text}");
    let svg = advice.svg();
    assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"), "{svg}");
    assert_eq!(svg.matches(',').count(), advice.curve.len(), "a point for each delay: {svg}");
}

#[test]
fn the_defaults_are_those_of_the_documents() {
    let Kubernetes { probe, probe_period, failure_threshold, propagation, grace_period } =
        Kubernetes::default();
    let yaml = read("deploy/kubernetes.yaml");
    let probes = yaml.split("readinessProbe:").nth(1).expect("a readiness probe");
    let value = |of: &str, name: &str| -> String {
        let found = of.split(&format!("{name}: ")).nth(1).and_then(|rest| rest.lines().next());
        found.unwrap_or_else(|| panic!("{name} is missing")).trim().to_owned()
    };
    assert_eq!((probe, &*value(probes, "path")), (ProbePath::Serving, "/serving"));
    assert_eq!(probe_period.as_secs().to_string(), value(probes, "periodSeconds"));
    assert_eq!(failure_threshold.to_string(), value(probes, "failureThreshold"));
    let grace = value(&yaml, "terminationGracePeriodSeconds");
    assert_eq!(grace_period.as_secs().to_string(), grace);

    let balancer = ProbingBalancer::default();
    let operations = read("docs/operations.md");
    let checks = format!(
        "inter {}s fall {} rise {}",
        balancer.interval.as_secs(),
        balancer.fall,
        balancer.rise
    );
    assert!(operations.contains(&checks), "{checks}");
    let command = format!(
        "lameduck-sim advise --platform kubernetes --probe-period {}s --failure-threshold {} \
         --propagation {}s",
        probe_period.as_secs(),
        failure_threshold,
        propagation.as_secs()
    );
    assert!(operations.contains(&command), "{command}");
    // The default of the service is enough for the default of the platform.
    assert!(Plan::default().lame_duck > propagation);
}
