//! Which module may import which.

/// A top-level module, the siblings that it may import, and the sentence of a failure.
pub(super) struct Rule {
    pub(super) module: &'static str,
    pub(super) may: &'static [&'static str],
    pub(super) sentence: &'static str,
}

pub(super) const RULES: &[Rule] = &[
    Rule {
        module: "lifecycle",
        may: &[],
        sentence: "lifecycle is pure: it imports nothing of this crate",
    },
    Rule {
        module: "runtime",
        may: &["lifecycle"],
        sentence: "runtime has only traits: it imports only the lifecycle's labels",
    },
    Rule {
        module: "errors",
        may: &["lifecycle"],
        sentence: "errors writes any error as text: it imports only the lifecycle's labels",
    },
    Rule {
        module: "assertions",
        may: &[],
        sentence: "assertions are used by users' code alone, and import nothing of this crate",
    },
    Rule { module: "log", may: &[], sentence: "log is used by all modules, and imports none" },
    Rule {
        module: "unwind",
        may: &["log"],
        sentence: "unwind is used by all modules, and imports only log",
    },
    Rule {
        module: "host_error",
        may: &["errors", "lifecycle", "unwind", "http"],
        sentence: "host_error is below the host: it imports nothing of it",
    },
    Rule {
        module: "http",
        may: &["runtime", "errors", "lifecycle", "log", "unwind"],
        sentence: "http imports only the runtime traits, the lifecycle's labels and the helpers",
    },
    Rule {
        module: "user_tasks",
        may: &["runtime", "lifecycle", "log", "unwind"],
        sentence: "user_tasks is below the host: it imports nothing of it",
    },
    Rule {
        module: "hook",
        may: &["runtime", "errors", "lifecycle", "log", "unwind", "http", "host_error"],
        sentence: "hook is below the host: it imports nothing of it",
    },
    Rule {
        module: "readiness",
        may: &["runtime", "errors", "lifecycle", "log", "unwind", "http", "hook"],
        sentence: "readiness is below the host: it imports nothing of it",
    },
    Rule {
        module: "background",
        may: &["runtime", "errors", "lifecycle", "log", "unwind", "http", "host_error", "hook"],
        sentence: "background is below the host: it imports nothing of it",
    },
    Rule {
        module: "proxy_protocol",
        may: &["runtime"],
        sentence: "proxy_protocol wraps listeners, and imports nothing of the host",
    },
    Rule {
        module: "tls",
        may: &["runtime", "errors", "log", "unwind"],
        sentence: "tls wraps listeners, and imports nothing of the host",
    },
    Rule {
        module: "report",
        may: &["runtime", "errors", "lifecycle", "log", "unwind", "http", "host_error"],
        sentence: "report is below the host: it imports nothing of it",
    },
    Rule {
        module: "internal",
        may: &[
            "runtime",
            "errors",
            "lifecycle",
            "log",
            "unwind",
            "http",
            "host_error",
            "hook",
            "readiness",
            "report",
            "tls",
        ],
        sentence: "internal reads what the host publishes, and imports nothing of the host",
    },
    Rule {
        module: "settings",
        may: &["runtime", "lifecycle", "http", "host_error", "os::connections_max"],
        sentence: "settings import limits and plans, and of `os` only its limit on connections",
    },
    Rule {
        module: "os",
        may: &["runtime", "errors", "lifecycle", "log"],
        sentence: "os implements the runtime traits, and decides nothing",
    },
    Rule {
        module: "host_config",
        may: &[
            "runtime",
            "lifecycle",
            "log",
            "http",
            "host_error",
            "hook",
            "readiness",
            "background",
            "internal",
            "settings",
            "tls",
        ],
        sentence: "host_config holds what host and driver need, and imports neither",
    },
    Rule {
        module: "host_tls",
        may: &[
            "runtime",
            "lifecycle",
            "log",
            "report",
            "settings",
            "host_config",
            "host_error",
            "tls",
        ],
        sentence: "host_tls is read before there is a driver, and imports none",
    },
    Rule {
        module: "host",
        may: &[
            "runtime",
            "errors",
            "lifecycle",
            "log",
            "unwind",
            "http",
            "user_tasks",
            "hook",
            "readiness",
            "background",
            "report",
            "internal",
            "settings",
            "host_config",
            "host_error",
            "host_tls",
            "driver",
            "proxy_protocol",
            "tls",
        ],
        sentence: "the host uses the runtime traits: it imports nothing of `os`",
    },
    Rule {
        module: "driver",
        may: &[
            "runtime",
            "errors",
            "lifecycle",
            "log",
            "unwind",
            "http",
            "user_tasks",
            "hook",
            "readiness",
            "background",
            "report",
            "internal",
            "settings",
            "host_config",
            "host_error",
        ],
        sentence: "the driver uses the runtime traits: it imports nothing of `os`",
    },
    Rule {
        module: "drill",
        may: &["http"],
        sentence: "the demo service uses the public API, as the services of users do",
    },
    Rule {
        module: "systemd",
        may: &[
            "runtime",
            "errors",
            "lifecycle",
            "log",
            "internal",
            "settings",
            "host_config",
            "os",
        ],
        sentence: "systemd reports the host's status and passes inherited sockets on: it decides \
                   nothing",
    },
];

/// Entry points: modules that may import anything of the crate.
pub(super) const ENTRY_POINTS: [&str; 3] = ["process", "cli", "lib"];
