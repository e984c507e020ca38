//! P14: a bad setting of an example ends its start with one line and exit code 2.

use super::executable;
use crate::support::run_to_end;
use std::process::{Command, Stdio};

/// A service whose `RUST_LOG` was misspelled exited with 1, and its line was the `Debug` form of an
/// error. One with an injected `APP_PORT` panicked, with exit code 101.
#[test]
fn a_bad_setting_is_one_line_and_exit_code_2() {
    let filter = ("RUST_LOG", "inof");
    let port = ("APP_PORT", "tcp://10.0.0.1:80");
    let mut examples: Vec<_> =
        ["axum_pool", "background", "events", "grpc", "hello", "tower_stack"]
            .map(|example| (example, filter))
            .into();
    examples.extend([("hello", port), ("from_axum_serve", port)]);
    for (example, (variable, value)) in examples {
        let mut command = Command::new(executable(example));
        command.env_clear().env(variable, value);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let ended = run_to_end(&mut command);
        assert_eq!(ended.code, Some(2), "{example}: {ended:?}");
        let line = format!("error: {variable}={value}: ");
        assert!(ended.stderr.starts_with(&line), "{example}: {}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 1, "{example}: {}", ended.stderr);
    }
}
