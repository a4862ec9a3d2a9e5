//! Sizes and durations as people write them.

use std::time::Duration;

/// `512M` or `2G` to MiB. A guest below 256 MiB does not reach its command; above 1 TiB it is a typing error.
pub fn size_mib(text: &str) -> Result<u32, String> {
    let wrong = || format!("{text:?} is no size: write a number and M or G, as in 512M or 2G");
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let mib = match unit {
        "M" | "MiB" => Some(number),
        "G" | "GiB" => number.checked_mul(1024),
        _ => return Err(wrong()),
    };
    match mib {
        Some(mib) if (256..=1024 * 1024).contains(&mib) => u32::try_from(mib).map_err(|_| wrong()),
        _ => Err(format!("{text} is out of range: a guest takes 256M to 1024G")),
    }
}

/// `90s`, `10m` or `2h` to a duration above zero.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration: write a number and s, m or h, as in 90s or 10m");
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(wrong()),
    };
    match number.checked_mul(factor) {
        Some(seconds) if (1..=86_400).contains(&seconds) => Ok(Duration::from_secs(seconds)),
        _ => Err(format!("{text} is out of range: 1s to 24h")),
    }
}

/// The number and the unit that follows it directly.
fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    Some((text[..end].parse().ok()?, &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(size_mib("512M"), Ok(512));
        assert_eq!(size_mib("2G"), Ok(2048));
        assert_eq!(size_mib("1GiB"), Ok(1024));
        for wrong in ["", "M", "512", "512K", "-1G", "1.5G", "2 G", "99999999999999999999G", "G2"] {
            assert!(size_mib(wrong).is_err(), "{wrong}");
        }
        assert!(size_mib("255M").unwrap_err().contains("256M to 1024G"));
        assert!(size_mib("18014398509481985G").unwrap_err().contains("out of range"));
    }

    #[test]
    fn durations() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("10m"), Ok(Duration::from_mins(10)));
        assert_eq!(duration("2h"), Ok(Duration::from_hours(2)));
        for wrong in ["", "s", "90", "90ms", "-1s", "1.5m", "0s", "25h", "99999999999999999999s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
