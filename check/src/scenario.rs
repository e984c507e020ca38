//! What a scenario is, and the table of all.

use crate::{
    scenarios,
    target::Profile,
    trial::{Abort, Trial},
};
use std::fmt;

/// How much a failure weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// Required: by an RFC, or because a platform kills what does not comply.
    Must,
    /// Expected by the profile.
    Should,
    /// Only reported.
    Info,
}

impl Grade {
    /// Returns the name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Must => "MUST",
            Self::Should => "SHOULD",
            Self::Info => "INFO",
        }
    }
}

impl fmt::Display for Grade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Which grade a scenario has in which profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// The same in all.
    Always(Grade),
    /// `SHOULD` where a stopping server still gets traffic, `INFO` in `bare`.
    LameDuck,
}

impl Weight {
    /// Returns the grade in a profile.
    #[must_use]
    pub const fn in_profile(self, profile: Profile) -> Grade {
        match (self, profile) {
            (Self::Always(grade), _) => grade,
            (Self::LameDuck, Profile::Kubernetes | Profile::Proxy) => Grade::Should,
            (Self::LameDuck, Profile::Bare) => Grade::Info,
        }
    }
}

/// What a scenario needs from the server or the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// Connections that are kept after a response.
    KeepAlive,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// The route of `--slow`.
    Slow,
    /// The route of `--echo`.
    Echo,
    /// The route of `--stream`.
    Stream,
    /// The route of `--big`.
    Big,
    /// The route of `--ws`.
    Upgrade,
    /// The URL of `--ready`.
    Ready,
    /// The URL of `--live`.
    Live,
    /// A stop by signal, which works on a frozen process.
    StopSignal,
    /// A port that can be chosen for each start.
    ChosenPort,
    /// TLS on the server's address.
    Tls,
    /// No TLS on the server's address, which all other scenarios need.
    PlainText,
    /// `/proc`, to fill a pipe.
    LogPipe,
    /// Linux, to limit another process.
    Limits,
    /// The right to start a process as PID 1 of a namespace.
    PidNamespace,
}

impl Need {
    /// Returns why a scenario is skipped without this.
    #[must_use]
    pub const fn missing(self) -> &'static str {
        match self {
            Self::KeepAlive => "the server keeps no connection after a response",
            Self::Http2 => "no HTTP/2 with prior knowledge",
            Self::Slow => "no --slow route",
            Self::Echo => "no --echo route",
            Self::Stream => "no --stream route",
            Self::Big => "no --big route",
            Self::Upgrade => "no --ws route",
            Self::Ready => "no --ready URL",
            Self::Live => "no --live URL",
            Self::StopSignal => "the stop is no signal",
            Self::ChosenPort => "the port is fixed: use --port-env or {port}",
            Self::LogPipe => "this system has no /proc/self/fd",
            Self::Tls => "the server was not said to speak TLS: --tls",
            Self::PlainText => "the server speaks TLS",
            Self::Limits => "only Linux limits the descriptors of another process",
            Self::PidNamespace => "this user may not create PID namespaces with `unshare`",
        }
    }
}

/// One situation in which a server may lose something.
#[derive(Debug)]
pub struct Scenario {
    /// Family and name, for example `accept/backlog`.
    pub name: &'static str,
    /// How much a failure weighs.
    pub weight: Weight,
    /// What must be there; otherwise it is skipped.
    pub needs: &'static [Need],
    /// What it does.
    pub does: &'static str,
    /// Why it matters.
    pub why: &'static str,
    /// The RFC section or the rule of a platform.
    pub rule: &'static str,
    /// The usual repair.
    pub repair: &'static str,
    /// Plays it once.
    pub play: fn(&mut Trial<'_>) -> Result<(), Abort>,
}

impl Scenario {
    /// Returns everything that it needs: all scenarios but those of TLS need plain text.
    pub fn all_needs(&self) -> impl Iterator<Item = Need> {
        let plain = (!self.needs.contains(&Need::Tls)).then_some(Need::PlainText);
        plain.into_iter().chain(self.needs.iter().copied())
    }

    /// Returns the first part of its name.
    #[must_use]
    pub fn family(&self) -> &'static str {
        self.name.split('/').next().unwrap_or(self.name)
    }
}

/// Returns all scenarios, family by family.
pub fn all() -> impl Iterator<Item = &'static Scenario> {
    scenarios::FAMILIES.iter().copied().flatten()
}

/// Returns whether a name matches a pattern, in which `*` stands for any text.
#[must_use]
pub fn matches(pattern: &str, name: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else { return pattern == name };
    let Some(rest) = name.strip_prefix(before) else { return false };
    (0..=rest.len()).any(|at| rest.is_char_boundary(at) && matches(after, &rest[at..]))
}

#[cfg(test)]
mod tests {
    use super::{all, matches};
    use std::collections::BTreeSet;

    #[test]
    fn patterns_have_stars() {
        assert!(matches("accept/*", "accept/backlog") && matches("*/big", "cut/big"));
        assert!(matches("*", "a/b") && matches("a/b", "a/b") && matches("*log", "accept/backlog"));
        assert!(!matches("accept", "accept/backlog") && !matches("a*c", "accept/backlog"));
    }

    #[test]
    fn names_are_unique_and_have_a_family() {
        let names: Vec<&str> = all().map(|scenario| scenario.name).collect();
        let unique: BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!(unique.len(), names.len());
        assert!(names.iter().all(|name| name.split('/').count() == 2), "{names:?}");
    }

    #[test]
    fn every_scenario_is_explained() {
        for scenario in all() {
            let texts = [scenario.does, scenario.why, scenario.rule, scenario.repair];
            for text in texts {
                assert!(text.len() > 10, "{}: {text:?}", scenario.name);
            }
            assert!(scenario.does.ends_with('.') && scenario.why.ends_with('.'));
        }
    }
}
