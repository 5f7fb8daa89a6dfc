use std::{str::FromStr, time::Duration};

use super::Invalid;

/// An instant, to the microsecond: what both stores keep and what is compared.
///
/// Between the years 1 and 9999, the range of `google.protobuf.Timestamp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

const MICROS: i64 = 1_000_000;

impl Timestamp {
    /// 0001-01-01T00:00:00Z.
    pub const MIN: Self = Self(-62_135_596_800 * MICROS);
    /// 9999-12-31T23:59:59.999999Z.
    pub const MAX: Self = Self(253_402_300_800 * MICROS - 1);

    /// The instant `micros` microseconds after 1970-01-01T00:00:00Z, if it is in range.
    #[must_use]
    pub fn from_micros(micros: i64) -> Option<Self> {
        (Self::MIN.0..=Self::MAX.0).contains(&micros).then_some(Self(micros))
    }

    /// The instant of a protocol's seconds and nanoseconds, cut to the
    /// microsecond, so that a limit never lies later than was asked for.
    #[must_use]
    pub fn from_seconds_and_nanos(seconds: i64, nanos: i32) -> Option<Self> {
        let fraction = (0..1_000_000_000).contains(&nanos).then_some(i64::from(nanos) / 1_000)?;
        Self::from_micros(seconds.checked_mul(MICROS)?.checked_add(fraction)?)
    }

    /// Microseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn as_micros(self) -> i64 {
        self.0
    }

    /// Whole seconds since 1970-01-01T00:00:00Z and the nanoseconds within them.
    #[must_use]
    pub fn to_seconds_and_nanos(self) -> (i64, i32) {
        let nanos = self.0.rem_euclid(MICROS) * 1_000;
        (self.0.div_euclid(MICROS), i32::try_from(nanos).expect("below 1,000,000,000"))
    }

    /// This instant and `duration` more, or [`Timestamp::MAX`] where that lies beyond it.
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(micros).min(Self::MAX.0))
    }

    /// This instant less `duration`, or [`Timestamp::MIN`] where that lies before it.
    #[must_use]
    pub fn saturating_sub(self, duration: Duration) -> Self {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(micros).max(Self::MIN.0))
    }

    /// How long before this instant `earlier` was; nothing if it was not.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or_default())
    }
}

impl FromStr for Timestamp {
    type Err = Invalid;

    /// RFC 3339, not finer than a microsecond.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        // The parser takes more than that, such as a day alone, and cuts what is finer.
        let parsed = is_time(text).then(|| text.parse::<prost_types::Timestamp>().ok()).flatten();
        parsed.and_then(|time| Self::from_seconds_and_nanos(time.seconds, time.nanos)).ok_or_else(
            || {
                Invalid::new(
                    "must be a time such as 2027-01-02T03:04:05Z, not finer than a microsecond",
                )
            },
        )
    }
}

fn is_time(text: &str) -> bool {
    let is_like = |text: &str, model: &str| {
        let alike = |(byte, model): (u8, u8)| match model {
            b'0' => byte.is_ascii_digit(),
            _ => byte.eq_ignore_ascii_case(&model),
        };
        text.len() == model.len() && text.bytes().zip(model.bytes()).all(alike)
    };
    let is_fraction = |text: &str| {
        let digits = text.strip_prefix('.').unwrap_or_default();
        text.is_empty()
            || (!digits.is_empty()
                && digits.bytes().all(|b| b.is_ascii_digit())
                && digits.bytes().skip(6).all(|b| b == b'0'))
    };
    let Some((second, rest)) = text.split_at_checked(19) else { return false };
    let (fraction, zone) = rest.split_at(rest.find(['Z', 'z', '+', '-']).unwrap_or(rest.len()));
    is_like(second, "0000-00-00T00:00:00")
        && !second.ends_with("60")
        && is_fraction(fraction)
        && ["Z", "+00:00", "-00:00"].into_iter().any(|model| is_like(zone, model))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fraction_finer_than_a_microsecond_is_cut_off() {
        let instant = Timestamp::from_seconds_and_nanos(1, 1_999).unwrap();
        assert_eq!(instant.as_micros(), 1_000_001);
        assert_eq!(instant.to_seconds_and_nanos(), (1, 1_000));
    }

    #[test]
    fn instants_before_1970_keep_their_fraction() {
        let instant = Timestamp::from_seconds_and_nanos(-1, 250_000_000).unwrap();
        assert_eq!(instant.to_seconds_and_nanos(), (-1, 250_000_000));
    }

    #[test]
    fn what_is_out_of_range_is_no_instant() {
        assert_eq!(Timestamp::from_seconds_and_nanos(253_402_300_800, 0), None);
        assert_eq!(Timestamp::from_seconds_and_nanos(i64::MAX, 0), None);
        assert_eq!(Timestamp::from_seconds_and_nanos(0, -1), None);
        assert_eq!(Timestamp::from_seconds_and_nanos(0, 1_000_000_000), None);
        assert_eq!(Timestamp::MAX.saturating_add(Duration::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::MIN.saturating_sub(Duration::MAX), Timestamp::MIN);
    }

    #[test]
    fn text_is_rfc_3339_and_not_finer_than_a_microsecond() {
        let instant = Timestamp(1_798_858_800_000_001);
        for text in [
            "2027-01-02T03:00:00.000001Z",
            "2027-01-02T03:00:00.000001000Z",
            "2027-01-02t03:00:00.000001z",
            "2027-01-02T04:30:00.000001+01:30",
            "2027-01-01T22:00:00.000001-05:00",
        ] {
            assert_eq!(text.parse(), Ok(instant), "{text}");
        }
        assert_eq!("0001-01-01T00:00:00Z".parse(), Ok(Timestamp::MIN));
        assert_eq!("9999-12-31T23:59:59.999999Z".parse(), Ok(Timestamp::MAX));
        for text in [
            "",
            "2027-01-02",
            "2027-01-02T03:00:00",
            "2027-01-02 03:00:00Z",
            "2027-01-02T03:00:00 Z",
            "2027-01-02T03:00:00+01",
            "2027-01-02T03:00:00+0100",
            "2027-01-02T03:00:00.Z",
            "2027-01-02T03:00:00.0000001Z",
            "2027-01-02T03:00:00.0000000001Z",
            "2027-02-29T03:00:00Z",
            "2027-13-02T03:00:00Z",
            "2027-01-02T24:00:00Z",
            "2027-01-02T03:00:60Z",
            "2027-01-02T03:00:00+24:00",
            "+2027-01-02T03:00:00Z",
            "0000-12-31T23:59:59Z",
            "0001-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
            "2027-01-02T03:00:0äZ",
            "now",
        ] {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
    }
}
