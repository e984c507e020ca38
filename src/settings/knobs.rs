//! What an operator can turn, by the names that the program at hand has (P14).

use super::{SETTINGS, Setting, Settings};
use crate::lifecycle::PlanError;

/// Where settings come from besides code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Knobs {
    /// Nowhere: messages name fields alone.
    #[default]
    Fields,
    /// The environment.
    Variables,
    /// Flags and the environment.
    Flags,
}

impl Settings {
    /// The flags and variables of these settings, in parentheses, as far as this program has them.
    pub(crate) fn knobs(&self, flags: &[&str]) -> String {
        let settings = || SETTINGS.iter().filter(|setting| flags.contains(&setting.flag));
        let flag = |setting: &Setting| format!("--{}", setting.flag);
        let variable = |setting: &Setting| setting.variable.to_owned();
        let names: Vec<String> = match self.knobs {
            Knobs::Fields => return String::new(),
            Knobs::Variables => settings().map(variable).collect(),
            Knobs::Flags => settings().map(flag).chain(settings().map(variable)).collect(),
        };
        format!(" ({})", names.join(", "))
    }

    /// A plan's error, with what an operator can turn.
    #[must_use]
    pub fn explain(&self, error: &PlanError) -> String {
        let knobs = match error {
            PlanError::ExceedsGracePeriod { .. } => self.knobs(&[
                "lame-duck",
                "drain",
                "cancel",
                "cleanup",
                "internal-close",
                "grace-period",
            ]),
            PlanError::HooksExceedCleanup { .. } => self.knobs(&["cleanup"]),
        };
        format!("{error}{knobs}")
    }
}
