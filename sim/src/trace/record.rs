//! One line of a trace.

use super::{Fnv64, micros};
use std::{fmt, sync::Arc, time::Duration};

/// One event of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Time since the start of the world.
    pub at: Duration,
    /// Name of the process that caused or saw the event.
    pub actor: Arc<str>,
    /// Name of the event.
    pub event: &'static str,
    /// Fields, in the order in which they were recorded.
    pub fields: Arc<[(&'static str, Value)]>,
}

impl Record {
    /// Returns the number called `name`, if there is one.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        self.fields.iter().find_map(|(key, value)| match value {
            Value::Number(number) if *key == name => Some(*number),
            Value::Number(_) | Value::Text(_) => None,
        })
    }

    /// Returns the text called `name`, if there is one.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.fields.iter().find_map(|(key, value)| match value {
            Value::Text(text) if *key == name => Some(&**text),
            Value::Number(_) | Value::Text(_) => None,
        })
    }

    pub(super) fn feed(&self, hash: &mut Fnv64) {
        hash.feed_number(micros(self.at));
        hash.feed_text(&self.actor);
        hash.feed_text(self.event);
        for (name, value) in &*self.fields {
            hash.feed_text(name);
            match value {
                Value::Number(number) => hash.feed_number(*number),
                Value::Text(text) => hash.feed_text(text),
            }
        }
    }
}

/// Writes `   1.234567 server phase to=Draining`: seconds since the start of the world, actor,
/// event, fields.
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
        for (name, value) in &*self.fields {
            write!(f, " {name}={value}")?;
        }
        Ok(())
    }
}

/// Value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A count, a size, a code or a time.
    Number(u64),
    /// Any other value.
    Text(Arc<str>),
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
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<Arc<str>> for Value {
    fn from(text: Arc<str>) -> Self {
        Self::Text(text)
    }
}
