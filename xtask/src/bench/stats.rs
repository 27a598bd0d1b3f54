//! Medians, spreads and ratios.

use super::data::{Kind, Measure};

/// The value below which `part` (0 to 1) of the samples lie, between neighbours in proportion; 0
/// without samples.
pub(crate) fn quantile(samples: &[f64], part: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let place = part.clamp(0.0, 1.0) * last as f64;
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "0 to the number of samples"
    )]
    let below = place as usize;
    let rest = place - below as f64;
    let low = sorted.get(below).copied().unwrap_or_default();
    let high = sorted.get(below + 1).copied().unwrap_or(low);
    low + (high - low) * rest
}

/// The middle one.
pub(crate) fn median(samples: &[f64]) -> f64 {
    quantile(samples, 0.5)
}

/// The median of what each round of ours is of the peer's in the same round: what disturbs one
/// round disturbs both.
pub(crate) fn paired_ratio(measure: &Measure) -> Option<f64> {
    let pairs = measure.ours.iter().zip(&measure.peer).filter(|(_, peer)| **peer > 0.0);
    let ratios: Vec<f64> = pairs.map(|(ours, peer)| ours / peer).collect();
    (!ratios.is_empty()).then(|| median(&ratios))
}

/// Change of a measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Same,
    Better,
    Worse,
}

/// Compares two sets of samples. A count has changed if it differs; a time or a rate if the middle
/// halves of its samples do not overlap and the medians differ by more than a twentieth.
pub(crate) fn change(kind: Kind, before: &[f64], after: &[f64]) -> Change {
    let (old, new) = (median(before), median(after));
    let less_is_better = kind != Kind::Rate;
    let direction = if (new < old) == less_is_better { Change::Better } else { Change::Worse };
    let differs = match kind {
        Kind::Count => new != old,
        Kind::Time | Kind::Rate => {
            let apart = |low: &[f64], high: &[f64]| quantile(low, 0.75) < quantile(high, 0.25);
            (new - old).abs() > old.abs() / 20.0 && (apart(before, after) || apart(after, before))
        }
    };
    if differs { direction } else { Change::Same }
}

/// A number with as many digits as tell something, and thousands apart.
pub(crate) fn number(value: f64) -> String {
    let decimals = match value.abs() {
        small if small < 10.0 && small.fract() != 0.0 => 2,
        middle if middle < 1000.0 && middle.fract() != 0.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.decimals$}");
    let (whole, rest) =
        text.split_once('.').map_or((text.as_str(), None), |(whole, rest)| (whole, Some(rest)));
    let mut out = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at) % 3 == 0 && digit.is_ascii_digit() && !out.ends_with('-') {
            out.push(' ');
        }
        out.push(digit);
    }
    if let Some(rest) = rest {
        out.push('.');
        out.push_str(rest);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(quantile(&[0.0, 10.0], 0.25), 2.5);
        assert_eq!(quantile(&[5.0], 0.9), 5.0);
        assert_eq!(median(&[]), 0.0);
    }

    #[test]
    fn a_ratio_is_taken_round_by_round() {
        let measure = Measure {
            bench: String::new(),
            what: String::new(),
            unit: String::new(),
            kind: Kind::Time,
            // The second round was twice as slow for both.
            ours: vec![1.0, 2.0, 1.0],
            peer: vec![2.0, 4.0, 2.0],
        };
        assert_eq!(paired_ratio(&measure), Some(0.5));
        assert_eq!(paired_ratio(&Measure { peer: Vec::new(), ..measure }), None);
    }

    #[test]
    fn noise_is_no_change() {
        let before = [100.0, 110.0, 90.0, 105.0];
        assert_eq!(change(Kind::Time, &before, &[104.0, 112.0, 95.0, 108.0]), Change::Same);
        assert_eq!(change(Kind::Time, &before, &[50.0, 52.0, 55.0, 49.0]), Change::Better);
        assert_eq!(change(Kind::Rate, &before, &[50.0, 52.0, 55.0, 49.0]), Change::Worse);
        assert_eq!(change(Kind::Count, &[7.0], &[7.0]), Change::Same);
        assert_eq!(change(Kind::Count, &[7.0], &[8.0]), Change::Worse);
        assert_eq!(change(Kind::Count, &[7.0], &[6.0]), Change::Better);
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(number(21870.0), "21 870");
        assert_eq!(number(0.333_3), "0.33");
        assert_eq!(number(12.34), "12.3");
        assert_eq!(number(5.0), "5");
        assert_eq!(number(1_234_567.8), "1 234 568");
        assert_eq!(number(-123.0), "-123");
    }
}
