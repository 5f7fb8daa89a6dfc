use std::time::Duration;

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
}
