//! From JSON text and `path=value` overrides to a typed config, with errors that help.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::ConfigError;

/// Parses JSON text.
pub fn parse(text: &str, origin: &str) -> Result<Value, ConfigError> {
    serde_json::from_str(text).map_err(|e| ConfigError::Parse {
        origin: origin.into(),
        message: format!("not JSON: {e}"),
        hint: String::new(),
    })
}

/// Sets `a.b.c=value` inside `root`. The value is JSON if it parses as JSON, else a string; `null`
/// removes the key, so that its default applies.
pub fn set(root: &mut Value, text: &str) -> Result<(), ConfigError> {
    let bad = || ConfigError::Override { text: text.into() };
    let (path, value) = text.split_once('=').ok_or_else(bad)?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.into()));
    set_value(root, path, value).ok_or_else(bad)
}

/// Sets the value at a dotted path, making objects on the way; `None` if the path is empty in places.
pub fn set_value(root: &mut Value, path: &str, value: Value) -> Option<()> {
    let mut parts: Vec<&str> = path.split('.').collect();
    let last = parts.pop()?;
    if last.is_empty() || parts.iter().any(|p| p.is_empty()) {
        return None;
    }
    let mut at = root;
    for part in parts {
        if !at.is_object() {
            *at = Value::Object(serde_json::Map::new());
        }
        at = at.as_object_mut()?.entry(part).or_insert_with(|| Value::Object(serde_json::Map::new()));
    }
    if !at.is_object() {
        *at = Value::Object(serde_json::Map::new());
    }
    let map = at.as_object_mut()?;
    if value.is_null() {
        map.shift_remove(last);
    } else {
        map.insert(last.into(), value);
    }
    Some(())
}

/// Reads a typed config; an error names the place and, for an unknown key or name, the nearest known.
pub fn typed<T: DeserializeOwned>(value: &Value, origin: &str) -> Result<T, ConfigError> {
    // From text: serde_json's own message then names the expected type.
    let text = value.to_string();
    let mut reader = serde_json::Deserializer::from_str(&text);
    serde_path_to_error::deserialize(&mut reader).map_err(|e| {
        let path = e.path().to_string();
        let inner = e.inner().to_string();
        let inner = inner.split(" at line ").next().unwrap_or(&inner).to_string();
        let hint = nearest(&inner);
        let message = if path == "." { inner } else { format!("at `{path}`: {inner}") };
        ConfigError::Parse { origin: origin.into(), message, hint }
    })
}

/// ``unknown field `x`, expected one of `a`, `b` `` -> ` (did you mean `a`?)`.
fn nearest(message: &str) -> String {
    if !message.starts_with("unknown") {
        return String::new();
    }
    let names: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let Some((found, known)) = names.split_first() else { return String::new() };
    known
        .iter()
        .map(|k| (strsim::damerau_levenshtein(found, k), k))
        .min()
        .map_or_else(String::new, |(_, k)| format!(" (did you mean `{k}`?)"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn with(text: &str) -> Result<Config, ConfigError> {
        let mut v = parse(Config::quickstart(), "quickstart").unwrap();
        set(&mut v, text)?;
        typed(&v, "quickstart")
    }

    #[test]
    fn overrides_reach_every_depth() {
        assert_eq!(with("privacy.bits=10").unwrap().privacy.bits, 10);
        assert_eq!(with("name=other").unwrap().name, "other");
        assert_eq!(with("evaluation.every=7").unwrap().evaluation.every, 7);
        assert_eq!(with("privacy.target_epsilon=null").unwrap().privacy.target_epsilon, None);
        assert!(matches!(with("rounds"), Err(ConfigError::Override { .. })));
        assert!(matches!(with("a..b=1"), Err(ConfigError::Override { .. })));
    }

    #[test]
    fn unknown_keys_name_the_nearest() {
        let e = with("privacy.gama=64").unwrap_err().to_string();
        assert!(e.contains("privacy") && e.contains("did you mean `gamma`?"), "{e}");
        let e = with("privacy.mechanism=skelam").unwrap_err().to_string();
        assert!(e.contains("unknown variant") && e.contains("did you mean"), "{e}");
        let e = with("rounds=\"many\"").unwrap_err().to_string();
        assert!(e.contains("rounds"), "{e}");
    }
}
