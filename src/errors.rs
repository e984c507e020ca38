//! Formats errors with the whole chain of their causes (P14).

use crate::lifecycle::{BadSetting, PlanError};
use std::{error::Error, fmt};

/// The maximum number of causes that are followed. A chain may be a cycle.
const CAUSES_MAX: usize = 32;

/// Formats an error and its causes as `a: b: c`. Many errors repeat their cause in their own text;
/// such a cause is left out.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    for cause in causes(error).filter(|cause| !cause.is::<BadSetting>()) {
        let words = cause.to_string();
        if text.is_empty() {
            text = words;
        } else if !words.is_empty() && !says(&text, &words) {
            text.push_str(": ");
            text.push_str(&words);
        }
    }
    text
}

/// Joins the lines of a user's error: standard error gets one line (P14).
pub(crate) fn one_line(text: &str) -> String {
    let lines = text.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join("; ")
}

/// Formats the chain only when it is logged. A panic in a user's error then costs only the log
/// line.
pub(crate) struct Chain<'a>(pub(crate) &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&chain(self.0))
    }
}

/// Whether a setting or a plan is among the causes, at any depth: exit code 2 (P13).
pub(crate) fn is_bad_setting(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|cause| cause.is::<BadSetting>() || cause.is::<PlanError>())
}

/// The error, its cause, the cause of that, and so on.
pub(crate) fn causes<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source()).take(CAUSES_MAX)
}

/// Whether `text` contains `words` as whole words.
fn says(text: &str, words: &str) -> bool {
    let is_end = |next: Option<char>| next.is_none_or(|next| !next.is_alphanumeric());
    text.match_indices(words).any(|(at, found)| {
        is_end(text[..at].chars().next_back()) && is_end(text[at + found.len()..].chars().next())
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io;

    #[derive(Debug)]
    struct Layer(&'static str, Option<Box<dyn Error + Send + Sync>>);

    impl fmt::Display for Layer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Layer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_ref().map(|cause| &**cause as &(dyn Error + 'static))
        }
    }

    /// An error that is its own cause.
    #[derive(Debug)]
    pub(crate) struct Circle;

    impl fmt::Display for Circle {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("circle")
        }
    }

    impl Error for Circle {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(self)
        }
    }

    fn layers(texts: &[&'static str]) -> Layer {
        let (first, rest) = texts.split_first().expect("a text");
        let cause =
            (!rest.is_empty()).then(|| Box::new(layers(rest)) as Box<dyn Error + Send + Sync>);
        Layer(first, cause)
    }

    #[test]
    fn all_causes_of_an_error_are_logged_and_none_twice() {
        // A start hook on a dead database logged "cannot prepare the database", but not why.
        for (texts, told) in [
            (&["a"][..], "a"),
            (
                &["cannot prepare the database", "cannot connect", "refused"],
                "cannot prepare the database: cannot connect: refused",
            ),
            // An error that repeats its cause, or all of them.
            (&["cannot connect: refused", "refused"], "cannot connect: refused"),
            (&["a: b: c", "b: c", "c"], "a: b: c"),
            (
                &["cannot read (no such file)", "no such file", "errno 2"],
                "cannot read (no such file): errno 2",
            ),
            // A match inside a word is not a repetition.
            (&["row 10 is bad", "row 1"], "row 10 is bad: row 1"),
            // An error without a text.
            (&["", "refused"], "refused"),
            (&["a", "", "b"], "a: b"),
        ] {
            assert_eq!(chain(&layers(texts)), told, "{texts:?}");
        }
        assert_eq!(
            chain(&io::Error::other(layers(&["a", "b"]))),
            "a: b",
            "an error in an error of the system"
        );
        assert_eq!(chain(&Circle), "circle");
    }

    #[test]
    fn a_bad_setting_is_found_at_any_depth_and_not_logged_twice() {
        // A `main` that added context to its settings' error exited with 1, not 2.
        let bad = Layer("APP_PORT=x: expected a port", Some(Box::new(BadSetting)));
        let wrapped = Layer(
            "cannot start",
            Some(Box::new(Layer("cannot read the settings", Some(Box::new(bad))))),
        );
        assert!(is_bad_setting(&wrapped));
        assert_eq!(
            chain(&wrapped),
            "cannot start: cannot read the settings: APP_PORT=x: expected a port"
        );
        let plan =
            crate::lifecycle::Plan::default().check_grace_period(std::time::Duration::from_secs(1));
        assert!(is_bad_setting(&Layer(
            "cannot start",
            Some(Box::new(plan.expect_err("24 s do not fit")))
        )));
        assert!(!is_bad_setting(&layers(&["a", "b"])) && !is_bad_setting(&Circle));
    }
}
