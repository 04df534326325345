//! What is put into a spool by its tests.

/// Up to 4 KB that depend on both numbers.
#[must_use]
pub fn json(stream: u64, number: u64) -> String {
    let mut state = (stream << 32) ^ number;
    let mut text = format!(r#"{{"stream": {stream}, "number": {number}, "x": ""#);
    for _ in 0..number % 250 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        text.push_str(&format!("{state:016x}"));
    }
    text.push_str("\"}");
    text
}
