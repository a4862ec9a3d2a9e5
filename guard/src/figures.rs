//! Figures as people read them, for evidence, reasons, screens and the log.

use std::time::Duration;

/// `4194304` → `4,194,304`.
pub fn grouped(number: u64) -> String {
    if number < 1000 { number.to_string() } else { format!("{},{:03}", grouped(number / 1000), number % 1000) }
}

/// A number of bytes in the largest binary unit that it fills: `1.5 GiB`.
pub fn bytes(number: u64) -> String {
    bytesize::ByteSize::b(number).display().iec().to_string()
}

/// A time in the largest unit that it fills: `8.4 µs`, `20 ms`, `1.5 s`, `2 min`.
pub fn time(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let (value, unit) = match seconds {
        s if s >= 3600.0 => (s / 3600.0, "h"),
        s if s >= 60.0 => (s / 60.0, "min"),
        s if s >= 1.0 => (s, "s"),
        s if s >= 1e-3 => (s * 1e3, "ms"),
        s if s > 0.0 => (s * 1e6, "µs"),
        _ => (0.0, "s"),
    };
    let text = format!("{value:.1}");
    format!("{} {unit}", text.strip_suffix(".0").unwrap_or(&text))
}

/// A share of 1 as a percentage: `80 %`, `82.5 %`.
pub fn percent(share: f64) -> String {
    let text = format!("{:.1}", share * 100.0);
    format!("{} %", text.strip_suffix(".0").unwrap_or(&text))
}

/// A rate or a growth, entries a second: `812/s`, `-40/s`.
#[allow(clippy::cast_possible_truncation, reason = "`as` saturates, and no table changes that fast")]
pub fn per_second(rate: f64) -> String {
    let rounded = rate.round() as i64;
    let sign = if rounded < 0 { "-" } else { "" };
    format!("{sign}{}/s", grouped(rounded.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        assert_eq!([grouped(0), grouped(999), grouped(1_000), grouped(65_536)], ["0", "999", "1,000", "65,536"]);
        assert_eq!(grouped(u64::MAX), "18,446,744,073,709,551,615");
        assert_eq!([bytes(1 << 20), bytes(3 << 29)], ["1.0 MiB", "1.5 GiB"]);
        assert_eq!([percent(0.8), percent(0.825), percent(1.5)], ["80 %", "82.5 %", "150 %"]);
        assert_eq!([per_second(811.7), per_second(-1_040.0), per_second(-0.2)], ["812/s", "-1,040/s", "0/s"]);
    }

    #[test]
    fn times_take_the_unit_they_fill() {
        let shown = |nanos| time(Duration::from_nanos(nanos));
        assert_eq!(
            [shown(0), shown(8_400), shown(20_000_000), shown(1_500_000_000), shown(120_000_000_000)],
            ["0 s", "8.4 µs", "20 ms", "1.5 s", "2 min"]
        );
        assert!(time(Duration::MAX).ends_with(" h"));
    }
}
