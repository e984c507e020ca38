//! Values that a request takes from the response before it.

/// A response from which the next request takes values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Previous {
    pub(crate) location: Option<String>,
    pub(crate) body: String,
}

impl Previous {
    /// Replaces `{location}`, `{body}` and `{/json/pointer}`. Other braces stay.
    pub(super) fn fill(&self, text: &str) -> String {
        let mut filled = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            filled.push_str(before);
            let value =
                after.split_once('}').and_then(|(name, rest)| Some((self.value(name)?, rest)));
            if let Some((value, after)) = value {
                filled.push_str(&value);
                rest = after;
            } else {
                filled.push('{');
                rest = after;
            }
        }
        filled + rest
    }

    pub(super) fn value(&self, name: &str) -> Option<String> {
        match name {
            "location" => self.location.clone(),
            "body" => Some(self.body.trim().to_owned()),
            _ if name.starts_with('/') => {
                let json: serde_json::Value = serde_json::from_str(&self.body).ok()?;
                let found = json.pointer(name)?;
                Some(found.as_str().map_or_else(|| found.to_string(), ToOwned::to_owned))
            }
            _ => None,
        }
    }
}
