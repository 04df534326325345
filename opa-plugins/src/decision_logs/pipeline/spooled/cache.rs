//! Where `nd_builtin_cache` is in the text of an event that was read from the disk.

use std::ops::Range;

const KEY: &[u8] = br#""nd_builtin_cache":"#;

/// The place of the member with the comma before it, as [`write_event`](super::super::super::write_event)
/// tells it. `json` is what that wrote: without spaces between members.
pub(super) fn place(json: &[u8]) -> Option<Range<usize>> {
    let mut start = None;
    let (mut depth, mut in_string, mut escaped) = (0_u32, false, false);
    for (at, byte) in json.iter().enumerate() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => depth += 1,
            b',' | b'}' if depth == 1 => {
                if let Some(start) = start {
                    return Some(start..at);
                }
                let after = json.get(at + 1..).unwrap_or_default();
                if *byte == b',' && after.starts_with(KEY) {
                    start = Some(at);
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_member_is_found_at_the_top_only() {
        for (json, member) in [
            (
                r#"{"a":{"x":",\"nd_builtin_cache\":1"},"nd_builtin_cache":{"t":{"[]":"},{\\"}},"z":1}"#,
                Some(r#","nd_builtin_cache":{"t":{"[]":"},{\\"}}"#),
            ),
            (
                r#"{"a":1,"nd_builtin_cache":{}}"#,
                Some(r#","nd_builtin_cache":{}"#),
            ),
            (r#"{"a":{"b":1,"nd_builtin_cache":{}}}"#, None),
            (r#"{"a":"x,\"nd_builtin_cache\":"}"#, None),
            ("{}", None),
        ] {
            let found = place(json.as_bytes()).map(|place| &json[place]);
            assert_eq!(found, member, "{json}");
        }
    }
}
