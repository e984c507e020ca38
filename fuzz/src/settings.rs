//! Settings: any text in any variable is accepted, or refused with an error that names the variable
//! and the text.

use lameduck::{SETTINGS, Settings, parse_duration};
use std::time::Duration;

/// Input: lines of `n=text`, where `n` selects a setting.
pub fn settings(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<(usize, &str)> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(n, value)| {
            (n.bytes().fold(0, |sum, byte| sum + usize::from(byte)) % SETTINGS.len(), value)
        })
        .collect();
    let variable = |name: &str| {
        lines
            .iter()
            .find(|(n, _)| SETTINGS[*n].variable == name)
            .map(|(_, value)| (*value).to_owned())
    };
    let flag = |setting: &lameduck::Setting| {
        let picked = lines.iter().rev().filter(|(n, _)| SETTINGS[*n].flag == setting.flag);
        picked.map(|(_, value)| (*value).to_owned()).take(2).skip(1).collect()
    };
    match Settings::default().resolve(flag, variable) {
        Ok(settings) => {
            let _ = settings.check();
            assert!(
                settings.plan.worst_case() <= Duration::from_secs(5 * 24 * 3600),
                "P7: the worst case is not bounded"
            );
        }
        Err(error) => {
            assert!(
                !error.setting.is_empty() && !error.reason.is_empty(),
                "P14: {error:?} does not say what is wrong"
            );
            let said = error.to_string();
            assert!(
                said.contains(&error.setting)
                    && (said.contains(&error.value) || error.value.contains(char::is_control)),
                "P14: {said}"
            );
        }
    }
    if let Ok(span) = parse_duration(&text) {
        assert!(span <= Duration::from_secs(24 * 3600), "{text:?} is {span:?}");
    }
}
