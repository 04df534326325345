//! Figures of several rounds, and how they are shown.

use std::fmt;

/// Measurements of the same thing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures(Vec<f64>);

impl Figures {
    pub(crate) fn add(&mut self, figure: f64) {
        self.0.push(figure);
        self.0.sort_by(f64::total_cmp);
    }

    pub(crate) fn median(&self) -> f64 {
        self.0.get(self.0.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ends = self.0.first().zip(self.0.last());
        let (least, most) = ends.unwrap_or((&f64::NAN, &f64::NAN));
        let digits = f.precision().unwrap_or(2);
        write!(
            f,
            "{:.digits$} ({least:.digits$}..{most:.digits$})",
            self.median()
        )
    }
}

/// A heading of the report.
pub(crate) fn heading(text: &str) {
    println!("\n## {text}");
}

/// A line of the report.
pub(crate) fn line(what: &str, figure: impl fmt::Display, unit: &str) {
    println!("{what:<58} {figure} {unit}");
}
