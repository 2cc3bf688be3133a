//! Numbers and times as people read them. All functions are total: any input gives a short text.

use crate::net::status::Guarantee;

/// `text` as one line of at most `most` characters: control characters (line breaks, escapes of terminals) and marks that
/// turn the direction of writing become spaces, what is too long ends in an ellipsis.
#[must_use]
pub fn one_line(text: &str, most: usize) -> String {
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut out: String = text.chars().take(most).map(|c| if c.is_control() || turns(c) { ' ' } else { c }).collect();
    if text.chars().nth(most).is_some() {
        out.pop();
        out.push('…');
    }
    out
}

/// A count with its thousands set apart: `1,234,567`.
#[must_use]
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A count with its noun: `1 client`, `2 clients`.
#[must_use]
pub fn counted(value: u64, singular: &str, plural: &str) -> String {
    format!("{} {}", count(value), if value == 1 { singular } else { plural })
}

/// Binary units from bytes upward.
pub(crate) const BYTES: [(f64, &str); 6] = [
    (1.0, "B"),
    (1024.0, "KiB"),
    (1_048_576.0, "MiB"),
    (1_073_741_824.0, "GiB"),
    (1_099_511_627_776.0, "TiB"),
    (1_125_899_906_842_624.0, "PiB"),
];

/// The unit of `units` in which `value` is at least 1, or the first.
pub(crate) fn unit_of<'a>(units: &[(f64, &'a str)], value: f64) -> (f64, &'a str) {
    let first = units.first().copied().unwrap_or((1.0, ""));
    units.iter().rev().find(|(size, _)| value >= *size).copied().unwrap_or(first)
}

/// A size: `0 B`, `1.50 KiB`, `23.4 MiB`.
#[must_use]
pub fn bytes(value: u64) -> String {
    // What rounds to 1024 of a unit is 1.00 of the next.
    let (size, unit) = unit_of(&BYTES, value as f64 * (1024.0 / 1023.5));
    if size == 1.0 { format!("{value} B") } else { format!("{} {unit}", three_digits(value as f64 / size)) }
}

/// A duration: `0 s`, `12 ms`, `3.2 s`, `2 min 05 s`, `3 h 07 min`, `4 d 03 h`.
#[must_use]
pub fn seconds(value: f64) -> String {
    let value = if value.is_finite() { value.clamp(0.0, 1e12) } else { return "unknown".to_owned() };
    let whole = value.round() as u64;
    match value {
        0.0 => "0 s".to_owned(),
        v if v < 0.000_999_5 => "below 1 ms".to_owned(),
        v if v < 0.999_5 => format!("{:.0} ms", v * 1e3),
        v if v < 9.95 => format!("{v:.1} s"),
        v if v < 59.5 => format!("{v:.0} s"),
        v if v < 3599.5 => format!("{} min {:02} s", whole / 60, whole % 60),
        v if v < 86_370.0 => format!("{} h {:02} min", (whole + 30) / 3600, (whole + 30) % 3600 / 60),
        _ => format!("{} d {:02} h", (whole + 1800) / 86_400, (whole + 1800) % 86_400 / 3600),
    }
}

/// An epsilon, rounded up, so that the page never says less than was spent: `2.99`, `0.0132`; `infinite` for `None`.
#[must_use]
pub fn epsilon(value: Option<f64>) -> String {
    let Some(value) = value.filter(|v| v.is_finite()) else { return "infinite".to_owned() };
    let places = match value {
        v if v >= 0.1 || v <= 0.0 => 2,
        v if v >= 0.001 => 4,
        _ => return tiny(value),
    };
    let scale = 10_f64.powi(places);
    // A spend that prints exactly stays what it is in spite of its last bits.
    let up = (value * scale - 1e-9).ceil().max(0.0) / scale;
    format!("{up:.*}", places as usize)
}

/// A number in (0, 1) with two digits, rounded up: `1.3e-5`.
fn tiny(value: f64) -> String {
    let exponent = value.log10().floor().max(-300.0);
    let tenths = (value / 10_f64.powf(exponent) * 10.0 - 1e-9).ceil();
    format!("{:.1}e{exponent}", tenths / 10.0)
}

/// A limit as it was set, to four decimals: `3`, `2.5`.
#[must_use]
pub fn limit(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A small probability: `1e-5`, `0.01`.
#[must_use]
pub fn delta(value: f64) -> String {
    if value > 0.0 && value < 1e-3 { format!("{value:e}") } else { format!("{value}") }
}

/// A share of `[0, 1]` in per cent: `93.10 %`.
#[must_use]
pub fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

/// A loss: four significant digits.
#[must_use]
pub fn loss(value: f64) -> String {
    match value.abs() {
        a if a >= 1e5 || (a > 0.0 && a < 1e-3) => format!("{value:.2e}"),
        a if a >= 100.0 => format!("{value:.1}"),
        _ => format!("{value:.4}"),
    }
}

/// What every epsilon of `guarantee` has in common, in one line.
#[must_use]
pub fn under(guarantee: &Guarantee) -> String {
    format!("at delta {}, neighbours: {}", delta(guarantee.delta), guarantee.neighbours)
}

/// A moment: `2026-11-22 21:34:31 UTC`.
#[must_use]
pub fn moment(unix_seconds: f64) -> String {
    // The year 9999 ends the calendar of this page.
    let at = if unix_seconds.is_finite() { unix_seconds.clamp(0.0, 253_402_300_799.0) as u64 } else { 0 };
    let (year, month, day) = date(at / 86_400);
    let (h, m, s) = (at / 3600 % 24, at / 60 % 60, at % 60);
    format!("{year:04}-{month:02}-{day:02} {h:02}:{m:02}:{s:02} UTC")
}

/// Year, month and day of a day that is `days` behind 1970-01-01 (Gregorian calendar).
fn date(days: u64) -> (u64, u64, u64) {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut left = days;
    let mut year = 1970;
    while left >= 365 + u64::from(leap(year)) {
        left -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if left < length {
            break;
        }
        left -= length;
        month += 1;
    }
    (year, month, left + 1)
}

/// Three digits that matter: `1.50`, `23.4`, `1023`.
fn three_digits(value: f64) -> String {
    match value {
        v if v < 9.995 => format!("{v:.2}"),
        v if v < 99.95 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_counts() {
        let shown: Vec<String> = [0, 1023, 1024, 1536, 24_536_678, 1 << 30, u64::MAX].map(bytes).to_vec();
        assert_eq!(shown, ["0 B", "1023 B", "1.00 KiB", "1.50 KiB", "23.4 MiB", "1.00 GiB", "16384 PiB"]);
        assert_eq!(bytes(1_048_575), "1.00 MiB");
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!((counted(1, "client", "clients"), counted(0, "a", "b")), ("1 client".into(), "0 b".into()));
    }

    #[test]
    fn durations() {
        let shown =
            [0.0, 0.0001, 0.012, 0.9996, 3.21, 12.0, 59.4, 59.6, 125.0, 3599.6, 11_220.0, 356_400.0].map(seconds);
        let right = ["0 s", "below 1 ms", "12 ms", "1.0 s", "3.2 s", "12 s", "59 s", "1 min 00 s", "2 min 05 s"];
        assert_eq!(shown[..9], right);
        assert_eq!(shown[9..], ["1 h 00 min", "3 h 07 min", "4 d 03 h"]);
        assert_eq!((seconds(-1.0), seconds(f64::NAN)), ("0 s".into(), "unknown".into()));
    }

    #[test]
    fn epsilons_are_never_understated() {
        let shown = [0.0, 2.99, 2.990_000_1, 0.013_21, 0.000_012_3, 3.0].map(|e| epsilon(Some(e)));
        assert_eq!(shown, ["0.00", "2.99", "3.00", "0.0133", "1.3e-5", "3.00"]);
        assert_eq!((epsilon(None), epsilon(Some(f64::INFINITY))), ("infinite".into(), "infinite".into()));
        assert_eq!((delta(1e-5), delta(0.01), limit(3.0)), ("1e-5".into(), "0.01".into(), "3".into()));
    }

    #[test]
    fn moments_of_the_calendar() {
        assert_eq!(moment(0.0), "1970-01-01 00:00:00 UTC");
        assert_eq!(moment(951_782_399.9), "2000-02-28 23:59:59 UTC");
        assert_eq!(moment(951_782_400.0), "2000-02-29 00:00:00 UTC");
        assert_eq!(moment(1_795_383_271.0), "2026-11-22 21:34:31 UTC");
        assert_eq!(moment(f64::INFINITY), moment(0.0));
        assert_eq!(moment(1e300), "9999-12-31 23:59:59 UTC");
    }

    #[test]
    fn text_from_outside_becomes_one_short_line() {
        assert_eq!(one_line("a\u{1b}[2J\nb\u{202e}c", 64), "a [2J b c");
        assert_eq!(one_line("abcdef", 4), "abc…");
        assert_eq!(one_line("abcd", 4), "abcd");
    }
}
