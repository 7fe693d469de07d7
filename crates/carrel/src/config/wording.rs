//! What serde says of a value that does not fit, in the words of people who write YAML and have never seen our types.

/// How a number is called, and one without decimals.
pub(super) const NUMBER: &str = "a number";
pub(super) const WHOLE: &str = "a whole number";

/// The same message, without names of types. What has no words of its own here stays as it is.
pub(super) fn of(message: &str) -> String {
    // The message may quote a value, which is anything: what was expected stands last.
    let kinds = ["invalid type: ", "invalid value: "];
    let found = kinds.iter().find_map(|kind| message.strip_prefix(kind));
    if let Some((found, expected)) = found.and_then(|rest| rest.rsplit_once(", expected ")) {
        return format!("must be {}, not {}", wanted(expected), seen(found));
    }
    if let Some(key) = message.strip_prefix("missing field ") {
        return format!("'{}' is missing", key.trim_matches('`'));
    }
    with_nearest(message)
}

fn wanted(expected: &str) -> String {
    let whole = |least: i128, most: i128| format!("{WHOLE} from {least} to {most}");
    match expected {
        "u8" => whole(0, u8::MAX.into()),
        "u16" => whole(0, u16::MAX.into()),
        "u32" => whole(0, u32::MAX.into()),
        "u64" => whole(0, u64::MAX.into()),
        "i32" => whole(i32::MIN.into(), i32::MAX.into()),
        "i64" => whole(i64::MIN.into(), i64::MAX.into()),
        "f64" => NUMBER.to_owned(),
        "a string" => "text".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        // So an enum is called by those who read JSON.
        "string or map" => "one word".to_owned(),
        "a map" => "keys with values".to_owned(),
        ours if ours.starts_with("struct ") => "keys with values".to_owned(),
        other => other.to_owned(),
    }
}

fn seen(found: &str) -> String {
    match found {
        "null" => "nothing".to_owned(),
        "sequence" => "a list".to_owned(),
        "map" => "keys with values".to_owned(),
        value => match value.strip_prefix("string ") {
            // In quotes, as it was: what goes to a log is blanked between them.
            Some(text) => format!("the text {text}"),
            None => value.split('`').nth(1).unwrap_or(value).to_owned(),
        },
    }
}

/// Names the known key or word that is nearest to an unknown one.
fn with_nearest(message: &str) -> String {
    let is_of_it = ["unknown field", "unknown variant"]
        .iter()
        .any(|kind| message.starts_with(kind));
    let mut quoted = message.split('`').skip(1).step_by(2);
    let (true, Some(unknown)) = (is_of_it, quoted.next()) else {
        return message.to_owned();
    };
    let known: Vec<&str> = quoted.collect();
    let nearest = known
        .iter()
        .map(|known| (strsim::jaro_winkler(unknown, known), known))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((likeness, known)) if likeness > 0.6 => {
            format!("'{unknown}' is not known; did you mean '{known}'?")
        }
        _ => format!("'{unknown}' is not known; known are {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn what_must_be_is_said_without_names_of_types() {
        let cases = [
            (
                "invalid type: string \"900\", expected u32",
                "must be a whole number from 0 to 4294967295, not the text \"900\"",
            ),
            (
                "invalid value: integer `70000`, expected u16",
                "must be a whole number from 0 to 65535, not 70000",
            ),
            (
                "invalid type: floating point `0.5`, expected a string",
                "must be text, not 0.5",
            ),
            (
                "invalid type: boolean `true`, expected a sequence",
                "must be a list, not true",
            ),
            (
                "invalid type: string \"a, expected b\", expected struct Fleet",
                "must be keys with values, not the text \"a, expected b\"",
            ),
            (
                "invalid type: null, expected a boolean",
                "must be true or false, not nothing",
            ),
            (
                "invalid type: map, expected f64",
                "must be a number, not keys with values",
            ),
            (
                "invalid type: sequence, expected string or map",
                "must be one word, not a list",
            ),
            ("missing field `baseUrl`", "'baseUrl' is missing"),
            (
                "unknown variant `jail`, expected one of `auto`, `oci`, `process`",
                "'jail' is not known; known are auto, oci, process",
            ),
            (
                "unknown variant `anthropic`, expected `Anthropic` or `OpenAiChat`",
                "'anthropic' is not known; did you mean 'Anthropic'?",
            ),
            ("'x' must be 'y'", "'x' must be 'y'"),
        ];
        for (serde, ours) in cases {
            assert_eq!(of(serde), ours);
        }
    }
}
