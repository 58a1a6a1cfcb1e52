//! The table that a bench prints: medians of rounds, ratios to a floor, and whether targets are
//! met.

/// One line: what was measured, and a sample for each round.
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) target: Option<Target>,
    pub(crate) samples: Vec<f64>,
}

/// A target that this project sets itself.
#[derive(Clone, Copy)]
#[allow(dead_code, reason = "no bench uses all of them")]
pub(crate) enum Target {
    RatioAtMost(f64),
    RatioAtLeast(f64),
    AtMost(f64),
}

impl Row {
    pub(crate) fn new(what: impl Into<String>, target: Option<Target>) -> Self {
        Self {
            what: what.into(),
            target,
            samples: Vec::new(),
        }
    }
}

pub(crate) fn print_header() {
    println!(
        "{:<40} {:<35} {:>9} {:>7} {:>8}  met",
        "work", "what", "median", "ratio", "target",
    );
}

/// Prints the rows of one kind of work. The first one is what the others are compared with, round
/// by round.
pub(crate) fn print_rows<'a>(work: &str, rows: impl IntoIterator<Item = &'a Row>) {
    let mut floor: Option<&Row> = None;
    for row in rows {
        let floor = *floor.get_or_insert(row);
        let ratios = row.samples.iter().zip(&floor.samples);
        let ratio = median(ratios.map(|(it, floor)| it / floor));
        let value = median(row.samples.iter().copied());
        let (target, met) = match row.target {
            None => (String::new(), ""),
            Some(target) => (target.show(), met(target.is_met(value, ratio))),
        };
        let shown_ratio = if ratio.is_finite() {
            digits(ratio)
        } else {
            String::new()
        };
        println!(
            "{work:<40} {:<35} {:>9} {shown_ratio:>7} {target:>8}  {met}",
            row.what,
            digits(value),
        );
    }
    println!();
}

impl Target {
    fn is_met(self, value: f64, ratio: f64) -> bool {
        match self {
            Self::RatioAtMost(most) => ratio <= most,
            Self::RatioAtLeast(least) => ratio >= least,
            Self::AtMost(most) => value <= most,
        }
    }

    fn show(self) -> String {
        match self {
            Self::RatioAtMost(most) => format!("≤ {most} ×"),
            Self::RatioAtLeast(least) => format!("≥ {least} ×"),
            Self::AtMost(most) => format!("≤ {most}"),
        }
    }
}

fn met(met: bool) -> &'static str {
    if met { "yes" } else { "NO" }
}

fn digits(value: f64) -> String {
    let decimals = match value {
        large if large >= 1_000.0 => 0,
        large if large >= 100.0 => 1,
        _ => 2,
    };
    format!("{value:.decimals$}")
}

pub(crate) fn median(samples: impl Iterator<Item = f64>) -> f64 {
    let mut samples: Vec<_> = samples.collect();
    samples.sort_by(f64::total_cmp);
    let middle = samples.len() / 2;
    match samples.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => samples[middle],
        _ => (samples[middle - 1] + samples[middle]) / 2.0,
    }
}
