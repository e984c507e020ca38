//! One line of a trace.

use super::{Fnv64, micros};
use std::{fmt, sync::Arc, time::Duration};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When, since the world began.
    pub at: Duration,
    /// Who did it or saw it.
    pub actor: Arc<str>,
    /// What.
    pub event: &'static str,
    /// The particulars, in the order they were given.
    pub fields: Vec<(&'static str, Value)>,
}

impl Record {
    /// The number called `name`, if there is one.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        self.fields.iter().find_map(|(key, value)| match value {
            Value::Number(number) if *key == name => Some(*number),
            Value::Number(_) | Value::Text(_) => None,
        })
    }

    /// The text called `name`, if there is one.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.fields.iter().find_map(|(key, value)| match value {
            Value::Text(text) if *key == name => Some(text.as_str()),
            Value::Number(_) | Value::Text(_) => None,
        })
    }

    pub(super) fn feed(&self, hash: &mut Fnv64) {
        hash.feed_number(micros(self.at));
        hash.feed_text(&self.actor);
        hash.feed_text(self.event);
        for (name, value) in &self.fields {
            hash.feed_text(name);
            match value {
                Value::Number(number) => hash.feed_number(*number),
                Value::Text(text) => hash.feed_text(text),
            }
        }
    }
}

/// `   1.234567 server phase to=Draining`: seconds since the world began, who, what, the particulars.
impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>4}.{:06} {} {}",
            self.at.as_secs(),
            self.at.subsec_micros(),
            self.actor,
            self.event
        )?;
        for (name, value) in &self.fields {
            write!(f, " {name}={value}")?;
        }
        Ok(())
    }
}

/// A particular of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A count, a size, a code, a time.
    Number(u64),
    /// Anything else.
    Text(String),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text)
                if !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() && c != '"') =>
            {
                f.write_str(text)
            }
            Self::Text(text) => write!(f, "{text:?}"),
        }
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self::Number(number as u64)
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}
