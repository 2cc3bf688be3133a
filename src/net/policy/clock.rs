//! Local time, and when a client trains.

use std::fmt;

use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Minutes of a day.
const DAY: u16 = 24 * 60;

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Weekday {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}

impl Weekday {
    /// All, from Monday.
    pub const ALL: [Self; 7] = [Self::Mon, Self::Tue, Self::Wed, Self::Thu, Self::Fri, Self::Sat, Self::Sun];

    /// The day before.
    #[must_use]
    pub const fn before(self) -> Self {
        Self::ALL[(self as usize + 6) % 7]
    }
}

/// A time of day, `HH:MM` from `00:00` to `24:00`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Clock(u16);

/// Text that is no time of day.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is no time of day, expected `HH:MM` from `00:00` to `24:00`")]
pub struct ClockError {
    found: String,
}

impl Clock {
    /// Minutes since midnight; `None` above 24 hours.
    #[must_use]
    pub const fn new(minute: u16) -> Option<Self> {
        if minute <= DAY { Some(Self(minute)) } else { None }
    }

    /// Minutes since midnight, at most 1440.
    #[must_use]
    pub const fn minute(self) -> u16 {
        self.0
    }
}

impl TryFrom<String> for Clock {
    type Error = ClockError;

    fn try_from(text: String) -> Result<Self, ClockError> {
        let two = |digits: &[u8]| match digits {
            [a @ b'0'..=b'9', b @ b'0'..=b'9'] => Some(u16::from(a - b'0') * 10 + u16::from(b - b'0')),
            _ => None,
        };
        let minute = match text.as_bytes() {
            [a, b, b':', c, d] => two(&[*a, *b]).zip(two(&[*c, *d]).filter(|&m| m < 60)).map(|(h, m)| 60 * h + m),
            _ => None,
        };
        let found = || ClockError { found: text.chars().take(40).collect() };
        minute.and_then(Self::new).ok_or_else(found)
    }
}

impl From<Clock> for String {
    fn from(clock: Clock) -> Self {
        clock.to_string()
    }
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

/// A moment on a wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalTime {
    /// The day.
    pub day: Weekday,
    /// The time of day.
    pub time: Clock,
}

impl LocalTime {
    /// A moment in seconds since 1970 on the clock of this machine's zone (`TZ`, or that of the system; UTC where there is none).
    #[must_use]
    pub fn at(seconds: u64) -> Self {
        Self::within(seconds, &TimeZone::system())
    }

    /// The same in a zone. Seconds beyond the year 9999 are its end.
    fn within(seconds: u64, zone: &TimeZone) -> Self {
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        let moment = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX);
        let local = zone.to_datetime(moment);
        let day = Weekday::ALL[local.weekday().to_monday_zero_offset().rem_euclid(7) as usize];
        Self {
            day,
            time: Clock(u16::from(local.hour().unsigned_abs()) * 60 + u16::from(local.minute().unsigned_abs())),
        }
    }
}

impl fmt::Display for LocalTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.day, self.time)
    }
}

/// A part of the day. One that ends before it begins goes on into the next day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Its first minute, `HH:MM`, before `24:00`.
    pub from: Clock,
    /// The first minute behind it, up to `24:00`.
    pub to: Clock,
    /// The days on which it begins. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub days: Option<Vec<Weekday>>,
}

impl Window {
    /// What is wrong with it: what would be right, and what was found.
    pub(super) fn wrong(&self) -> Option<(&'static str, String)> {
        if self.from == self.to || self.from.0 >= DAY {
            let found = format!("from {} to {}", self.from, self.to);
            return Some(("a window of at least a minute; all day is from 00:00 to 24:00", found));
        }
        let days = self.days.as_ref()?;
        let twice = days.iter().enumerate().any(|(i, day)| days[..i].contains(day));
        (days.is_empty() || twice).then(|| ("`days` absent, or each day once", format!("{days:?}")))
    }

    /// Whether a moment is inside.
    #[must_use]
    pub fn has(&self, now: LocalTime) -> bool {
        let begins = |day| self.days.as_ref().is_none_or(|days| days.contains(&day));
        if self.from < self.to {
            return begins(now.day) && self.from <= now.time && now.time < self.to;
        }
        (begins(now.day) && self.from <= now.time) || (begins(now.day.before()) && now.time < self.to)
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.from, self.to)?;
        match &self.days {
            None => Ok(()),
            Some(days) => write!(f, " on {}", days.iter().map(|d| format!("{d:?}")).collect::<Vec<_>>().join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(text: &str) -> Clock {
        Clock::try_from(text.to_owned()).unwrap()
    }

    fn moment(day: Weekday, time: &str) -> LocalTime {
        LocalTime { day, time: clock(time) }
    }

    #[test]
    fn times_of_day_are_read_strictly() {
        assert_eq!(clock("23:59").minute(), 1439);
        assert_eq!(clock("24:00").to_string(), "24:00");
        for bad in ["", "7:30", "24:01", "12:60", "+1:30", "12.30", "012:30", "１2:30"] {
            assert!(Clock::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_it_begins_on() {
        let window = Window { from: clock("22:00"), to: clock("06:00"), days: Some(vec![Weekday::Sun]) };
        assert!(window.has(moment(Weekday::Sun, "22:00")));
        assert!(window.has(moment(Weekday::Mon, "05:59")));
        assert!(!window.has(moment(Weekday::Mon, "06:00")));
        assert!(!window.has(moment(Weekday::Mon, "23:00")));
        assert!(!window.has(moment(Weekday::Sun, "05:00")));
        let day = Window { from: clock("08:00"), to: clock("18:00"), days: None };
        assert!(day.has(moment(Weekday::Sat, "08:00")) && !day.has(moment(Weekday::Sat, "18:00")));
    }

    #[test]
    fn windows_of_no_length_and_days_that_repeat_are_wrong() {
        let window = |from, to, days| Window { from: clock(from), to: clock(to), days };
        assert!(window("08:00", "08:00", None).wrong().is_some());
        assert!(window("24:00", "08:00", None).wrong().is_some());
        assert!(window("08:00", "09:00", Some(vec![])).wrong().is_some());
        assert!(window("08:00", "09:00", Some(vec![Weekday::Mon, Weekday::Mon])).wrong().is_some());
        assert!(window("00:00", "24:00", None).wrong().is_none());
    }

    #[test]
    fn seconds_become_the_clock_of_a_zone_with_its_summer_time() {
        // Central Europe by its rule, so that no data of zones are needed.
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let winter = LocalTime::within(1_763_853_000, &zone);
        assert_eq!((winter.day, winter.time.to_string().as_str()), (Weekday::Sun, "00:10"));
        let summer = LocalTime::within(1_750_000_000, &zone);
        assert_eq!((summer.day, summer.time.to_string().as_str()), (Weekday::Sun, "17:06"));
        assert_eq!(LocalTime::within(0, &TimeZone::UTC), moment(Weekday::Thu, "00:00"));
        // Nothing to compare with: it must not panic.
        let _ = LocalTime::within(u64::MAX, &zone);
        let _ = LocalTime::at(u64::MAX);
    }
}
