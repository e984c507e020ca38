//! What a service with a command line needs: the settings as clap flags, and log output that no
//! reader can hold up.
//!
//! Every row of [`SETTINGS`] is a flag. [`flags`] adds them to a command line of your own, and
//! [`settings`] reads them back: a flag over its variable over your default.
//!
//! ```
//! use clap::{Arg, Command};
//! use lameduck::{Settings, cli};
//!
//! let database = Arg::new("database").long("database");
//! let command = Command::new("shop").args(cli::flags()).arg(database);
//! let args = ["shop", "--drain=20s", "--database=db:5432"];
//! let matches = command.clone().get_matches_from(args);
//!
//! let mut defaults = Settings::default();
//! defaults.app_version = "1.2.3".to_owned();
//! let settings = cli::settings(defaults, &command, &matches)?;
//! assert_eq!(settings.plan.drain.as_secs(), 20);
//! # Ok::<(), lameduck::SettingsError>(())
//! ```

pub mod logging;
mod readable;

use crate::{SETTINGS, Settings, SettingsError};
use clap::{Arg, ArgAction, ArgMatches, Command};

/// A flag for each setting, with its variable and its default in the help. The id of an argument is
/// the flag's name without the dashes; leave out those that your service shall not have.
pub fn flags() -> impl Iterator<Item = Arg> {
    SETTINGS.iter().map(|setting| {
        Arg::new(setting.flag)
            .long(setting.flag)
            .value_name(setting.value)
            .action(if setting.is_repeatable() { ArgAction::Append } else { ArgAction::Set })
            .help(format!(
                "{} [env: {}] [default: {}]",
                setting.help, setting.variable, setting.default
            ))
    })
}

/// Reads the settings from what `command` has matched: flags over the environment of this process
/// over `defaults`. A flag that `command` does not define counts as not given, and messages do not
/// name it.
///
/// # Errors
/// [`SettingsError`] names the flag or the variable, and its value.
pub fn settings(
    defaults: Settings,
    command: &Command,
    matches: &ArgMatches,
) -> Result<Settings, SettingsError> {
    let given = |flag: &str| matches.try_get_many::<String>(flag).ok().flatten();
    let mut settings = defaults.resolve(
        |setting| given(setting.flag).into_iter().flatten().cloned().collect(),
        crate::settings::variable,
    )?;
    settings.set_defined_flags(|flag| command.get_arguments().any(|arg| arg.get_id() == flag));
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// A service defined only some of the flags. Its errors named the others, too, and an operator
    /// who used one of these got another error. In a release build clap does not know from its
    /// matches which flags there are.
    #[test]
    fn messages_name_only_the_flags_that_the_program_has() {
        let drain = flags().filter(|arg| arg.get_id() == "drain");
        let command = Command::new("shop").args(drain);
        let matches = command.clone().get_matches_from(["shop"]);
        let defaults = Settings::default().grace_period(Duration::from_secs(3));
        let settings = settings(defaults, &command, &matches).expect("settings");
        let said = settings.check().expect_err("a plan that does not fit").to_string();
        assert!(said.contains("(--drain, SHUTDOWN_LAME_DUCK, SHUTDOWN_DRAIN"), "{said}");
        assert!(!said.contains("--lame-duck"), "{said}");
    }
}
