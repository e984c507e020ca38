//! P7: checks the files of `deploy/` against the binary and the schemas of Kubernetes. A number
//! that is written in two places must be the same in both.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its subject should fail")]

use crate::support::{
    Service, is_at_hand, run_to_end, scratch_path,
    service::{Ended, command},
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};
use yaml_rust2::{Yaml, YamlLoader};

fn path(name: &str) -> PathBuf {
    crate::support::repository("deploy").join(name)
}

fn manifest() -> String {
    fs::read_to_string(path("kubernetes.yaml")).unwrap()
}

/// Returns the object of this kind.
#[track_caller]
fn object(kind: &str) -> Yaml {
    let objects = YamlLoader::load_from_str(&manifest()).unwrap();
    objects.into_iter().find(|object| object["kind"].as_str() == Some(kind)).unwrap()
}

fn pod() -> Yaml {
    object("Deployment")["spec"]["template"]["spec"].clone()
}

fn container() -> Yaml {
    pod()["containers"][0].clone()
}

/// Returns the environment that the manifest gives the container.
fn environment() -> Vec<(String, String)> {
    let variables = container()["env"].as_vec().unwrap().clone();
    let value = |variable: &Yaml| match variable["value"].as_str() {
        Some(value) => value.to_owned(),
        // The version comes from the label of the pod.
        None => {
            let field = variable["valueFrom"]["fieldRef"]["fieldPath"].as_str().unwrap();
            let label =
                field.strip_prefix("metadata.labels['").unwrap().strip_suffix("']").unwrap();
            object("Deployment")["spec"]["template"]["metadata"]["labels"][label]
                .as_str()
                .unwrap()
                .to_owned()
        }
    };
    variables
        .iter()
        .map(|variable| (variable["name"].as_str().unwrap().to_owned(), value(variable)))
        .collect()
}

fn with_environment(command: &mut Command) -> &mut Command {
    command.envs(environment())
}

/// Returns a port of the container by its name.
fn container_port(name: &str) -> i64 {
    let ports = container()["ports"].as_vec().unwrap().clone();
    ports.iter().find(|port| port["name"].as_str() == Some(name)).unwrap()["containerPort"]
        .as_i64()
        .unwrap()
}

const PROBES: [&str; 3] = ["startupProbe", "readinessProbe", "livenessProbe"];

/// Returns how long a probe must fail until Kubernetes acts on it.
fn patience(probe: &str) -> Duration {
    let probe = container()[probe].clone();
    Duration::from_secs(
        (probe["periodSeconds"].as_i64().unwrap() * probe["failureThreshold"].as_i64().unwrap())
            as u64,
    )
}

/// Returns a duration of the printed plan.
fn planned(plan: &Ended, line: &str) -> Duration {
    let found = plan.stdout.lines().find_map(|text| text.strip_prefix(line)).unwrap();
    lameduck::parse_duration(found.trim()).unwrap()
}

#[test]
fn the_grace_period_of_the_pod_covers_the_worst_case_that_the_binary_prints() {
    let plan = run_to_end(with_environment(&mut command()).arg("--print-plan"));
    assert_eq!(plan.code, Some(0), "{plan:?}");
    let grace_period =
        Duration::from_secs(pod()["terminationGracePeriodSeconds"].as_i64().unwrap() as u64);
    assert_eq!(
        planned(&plan, "grace period"),
        grace_period,
        "SHUTDOWN_GRACE_PERIOD says what the pod has"
    );
    let watchdog = planned(&plan, "worst case") + Duration::from_millis(500);
    assert!(watchdog < grace_period, "{watchdog:?}: even the watchdog comes before the kubelet");
}

#[test]
fn a_longer_plan_in_the_same_pod_is_refused_with_exit_2() {
    let refused =
        run_to_end(with_environment(&mut command()).args(["--print-plan", "--drain=20s"]));
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("--grace-period"), "{}", refused.stderr);
}

#[test]
fn its_ports_are_those_of_the_binary_and_the_service_has_only_the_main_one() {
    let default = |flag: &str| {
        let setting = lameduck::SETTINGS.iter().find(|setting| setting.flag == flag).unwrap();
        assert!(
            environment().iter().all(|(name, _)| name != setting.variable),
            "the manifest leaves the default"
        );
        setting.default.parse::<i64>().unwrap()
    };
    assert_eq!(container_port("http"), default("port"));
    assert_eq!(container_port("internal"), default("internal-port"));
    let ports = object("Service")["spec"]["ports"].as_vec().unwrap().clone();
    let targets: Vec<_> = ports.iter().map(|port| port["targetPort"].as_str()).collect();
    assert_eq!(targets, [Some("http")]);
}

#[test]
fn its_probes_request_paths_that_the_binary_serves() {
    let service = Service::watch(with_environment(&mut command()).args([
        "--addr=127.0.0.1:0",
        "--internal-addr=127.0.0.1:0",
        "--log-format=json",
    ]));
    service.wait_for_phase("serving");
    for probe in PROBES {
        let get = container()[probe]["httpGet"].clone();
        assert_eq!(get["port"].as_str(), Some("internal"), "{probe}");
        let path = get["path"].as_str().unwrap();
        assert_eq!(service.probe(path).status, 200, "{probe} asks for {path}");
        assert_eq!(service.get(path).status, 404, "{path} is not to be had on the main port");
    }
    let version = environment().into_iter().find(|(name, _)| name == "APP_VERSION").unwrap().1;
    assert_eq!(service.get("/").header("app-version"), Some(version.as_str()));
}

#[test]
fn its_readiness_probe_passes_while_the_deleted_pod_still_serves() {
    // The manifest made the kubelet probe /readiness, which fails from SIGTERM on. The endpoint of
    // the deleted pod was then `serving: false`: kube-proxy had no fallback to it, and some
    // versions of Cilium cut its connections. The probe must pass while the pod still serves (P2b).
    let path = container()["readinessProbe"]["httpGet"]["path"].as_str().unwrap().to_owned();
    let service = Service::start(&["--lame-duck=30s"]);
    assert_eq!(service.probe(&path).status, 200, "{path}");
    service.terminate();
    assert_eq!(service.probe(&path).status, 200, "{path} in the lame duck delay");
    assert_eq!(
        service.probe("/readiness").status,
        503,
        "for balancers that probe the process themselves"
    );
}

#[test]
fn the_timing_of_its_probes_fits_the_plan() {
    let settings = lameduck::Settings::default();
    assert!(
        patience("startupProbe") > settings.plan.start,
        "the start's own limit comes first, and says why"
    );
    let timeout = Duration::from_secs(
        container()["readinessProbe"]["timeoutSeconds"].as_i64().unwrap() as u64,
    );
    assert!(
        patience("readinessProbe") + timeout < settings.plan.lame_duck,
        "seen while everything is still served"
    );
    assert!(
        patience("livenessProbe") >= Duration::from_secs(30),
        "a restart costs more than half a minute of patience"
    );
}

#[test]
fn a_rollout_removes_no_pod_before_another_is_ready() {
    let deployment = object("Deployment");
    let rolling = deployment["spec"]["strategy"]["rollingUpdate"].clone();
    assert_eq!(
        (rolling["maxUnavailable"].as_i64(), rolling["maxSurge"].as_i64()),
        (Some(0), Some(1))
    );
    let replicas = deployment["spec"]["replicas"].as_i64().unwrap();
    let disrupted = object("PodDisruptionBudget")["spec"]["maxUnavailable"].as_i64().unwrap();
    assert!((1..replicas).contains(&disrupted), "a node can be drained, and somebody serves");
    for (kind, selector) in [("Service", "selector"), ("PodDisruptionBudget", "selector")] {
        let selected = object(kind)["spec"][selector].clone();
        let labels = if kind == "Service" { selected } else { selected["matchLabels"].clone() };
        assert_eq!(
            labels, deployment["spec"]["selector"]["matchLabels"],
            "{kind} means the same pods"
        );
    }
}

#[test]
fn the_pod_has_no_privilege_that_it_does_not_need() {
    let (pod, container) = (pod(), container());
    assert_eq!(
        pod["enableServiceLinks"].as_bool(),
        Some(false),
        "a Service named app would inject APP_PORT"
    );
    assert_eq!(pod["automountServiceAccountToken"].as_bool(), Some(false));
    assert_eq!(pod["securityContext"]["runAsNonRoot"].as_bool(), Some(true));
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"].as_str(), Some("RuntimeDefault"));
    let context = &container["securityContext"];
    assert_eq!(context["allowPrivilegeEscalation"].as_bool(), Some(false));
    assert_eq!(context["readOnlyRootFilesystem"].as_bool(), Some(true));
    assert_eq!(context["capabilities"]["drop"][0].as_str(), Some("ALL"));
    assert!(!container["resources"]["requests"]["memory"].is_badvalue());
    assert!(!container["resources"]["limits"]["memory"].is_badvalue());
    assert!(container["lifecycle"].is_badvalue(), "no preStop hook is needed");
}

#[test]
fn the_manifest_passes_the_schemas_of_kubernetes_strictly_and_a_wrong_key_does_not() {
    let validate = |file: &Path| run_to_end(tool("kubernetes-validate").arg("--strict").arg(file));
    if !is_at_hand("kubernetes-validate", is_found("kubernetes-validate")) {
        return;
    }
    let right = validate(&path("kubernetes.yaml"));
    assert_eq!(right.code, Some(0), "{right:?}");
    let wrong = scratch_path("wrong.yaml");
    for (key, misspelt) in
        [("enableServiceLinks", "enableServiceLink"), ("maxUnavailable: 0", "maxUnavailible: 0")]
    {
        fs::write(&wrong, manifest().replacen(key, misspelt, 1)).unwrap();
        let refused = validate(&wrong);
        fs::remove_file(&wrong).unwrap();
        assert_ne!(refused.code, Some(0), "{misspelt} passes: {refused:?}");
        let said = format!("{}{}", refused.stdout, refused.stderr);
        assert!(said.contains(misspelt.split(':').next().unwrap()), "{said}");
    }
}

#[test]
fn the_image_is_static_and_empty_runs_as_nobody_and_is_its_own_process_1() {
    let dockerfile = fs::read_to_string(path("Dockerfile")).unwrap();
    let last_stage = dockerfile.rsplit("\nFROM ").next().unwrap();
    assert!(last_stage.starts_with("scratch\n"));
    assert!(
        last_stage.contains("ENTRYPOINT [\"/lameduck\"]"),
        "exec form: no shell keeps SIGTERM to itself"
    );
    let user = pod()["securityContext"]["runAsUser"].as_i64().unwrap();
    assert!(last_stage.contains(&format!("USER {user}:{user}")), "the same as in the manifest");
    let expose = format!("EXPOSE {} {}", container_port("http"), container_port("internal"));
    assert!(last_stage.contains(&expose), "{expose}");
}

#[test]
fn hadolint_accepts_the_dockerfile_and_rejects_a_worse_one() {
    if !is_at_hand("hadolint", is_found("hadolint")) {
        return;
    }
    let right = run_to_end(tool("hadolint").arg("--no-color").arg(path("Dockerfile")));
    assert_eq!((right.code, right.stdout.as_str()), (Some(0), ""), "{right:?}");
    let worse = scratch_path("Dockerfile");
    fs::write(&worse, "FROM scratch\nCOPY lameduck /\nENTRYPOINT /lameduck\n").unwrap();
    let refused = run_to_end(tool("hadolint").arg("--no-color").arg(&worse));
    fs::remove_file(&worse).unwrap();
    assert!(refused.code != Some(0) && refused.stdout.contains("DL3025"), "{refused:?}");
}

#[test]
fn the_template_of_a_service_passes_the_same_tools_and_its_grace_periods_agree() {
    let folder = crate::support::repository("examples/service");
    for (name, tool_name, file) in [
        ("--strict", "kubernetes-validate", "deploy/kubernetes.yaml"),
        ("--no-color", "hadolint", "Dockerfile"),
    ] {
        if is_at_hand(tool_name, is_found(tool_name)) {
            let checked = run_to_end(tool(tool_name).arg(name).arg(folder.join(file)));
            assert_eq!(checked.code, Some(0), "{checked:?}");
        }
    }
    let manifest = fs::read_to_string(folder.join("deploy/kubernetes.yaml")).unwrap();
    assert!(manifest.contains("terminationGracePeriodSeconds: 30\n"));
    assert!(manifest.contains("name: SHUTDOWN_GRACE_PERIOD\n              value: 30s\n"));
    let unit = fs::read_to_string(folder.join("deploy/orders.service")).unwrap();
    assert!(unit.contains("SHUTDOWN_GRACE_PERIOD=30s\n") && unit.contains("TimeoutStopSec=30s\n"));
}

// The workflow and the image build with `--locked`, and git ignored the lock file of a copy of the
// folder. The image also got the whole `target` of its author.
#[test]
fn a_copy_of_the_template_commits_its_lock_file_and_builds_its_image_without_target() {
    let folder = crate::support::repository("examples/service");
    let text = |file: &str| fs::read_to_string(folder.join(file)).unwrap();
    assert!(text(".github/workflows/ci.yml").contains("--locked"));
    assert!(text("Dockerfile").contains("--locked") && text("Dockerfile").contains("COPY . ."));
    assert!(!text(".gitignore").contains("Cargo.lock"));
    assert!(text(".dockerignore").lines().any(|line| line == "/target"));
}

fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn is_found(name: &str) -> bool {
    tool(name).arg("--version").status().is_ok()
}
