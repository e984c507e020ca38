//! The names of settings that operators can change, in the form that this program accepts (P14).

use super::{SETTINGS, Setting, Settings};
use crate::{host_error::HostError, lifecycle::PlanError};

/// The sources of settings in addition to code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Knobs {
    /// None: messages name only fields.
    #[default]
    Fields,
    /// The environment.
    Variables,
    /// Flags and the environment.
    Flags,
}

impl Settings {
    /// Leaves flags that the program does not define out of its messages.
    #[cfg(feature = "cli")]
    pub(crate) fn set_defined_flags(&mut self, is_defined: impl Fn(&str) -> bool) {
        let flags = SETTINGS.iter().map(|setting| setting.flag);
        self.undefined_flags = flags.filter(|flag| !is_defined(flag)).collect();
    }

    /// Returns the flags and variables of these settings that this program accepts, in parentheses.
    pub(crate) fn knobs(&self, flags: &[&str]) -> String {
        let settings = || SETTINGS.iter().filter(|setting| flags.contains(&setting.flag));
        let flag = |setting: &Setting| format!("--{}", setting.flag);
        let variable = |setting: &Setting| setting.variable.to_owned();
        let names: Vec<String> = match self.knobs {
            Knobs::Fields => return String::new(),
            Knobs::Variables => settings().map(variable).collect(),
            Knobs::Flags => {
                let defined = settings().filter(|row| !self.undefined_flags.contains(&row.flag));
                defined.map(flag).chain(settings().map(variable)).collect()
            }
        };
        format!(" ({})", names.join(", "))
    }

    /// Adds to a plan's error the settings that an operator can change.
    pub(crate) fn explain(&self, error: PlanError) -> HostError {
        let knobs = match error {
            PlanError::ExceedsGracePeriod { .. } => self.knobs(&[
                "lame-duck",
                "drain",
                "streams",
                "cancel",
                "cleanup",
                "internal-close",
                "grace-period",
            ]),
            PlanError::HooksExceedCleanup { .. } => self.knobs(&["cleanup"]),
        };
        HostError::settings(format!("{error}{knobs}"), error)
    }
}
