//! Cron schedules by the rules of robfig/cron v3 (JOB-020): five fields with optional seconds before them, names, lists,
//! ranges, steps, descriptors, a time zone prefix. Pure: the instant is given.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan, ZonedDateTime};
use trireme_prowjob::GoDuration;

/// Years after which a schedule counts as never due again.
const HORIZON_YEARS: i16 = 5;
/// Marks a field that was written as `*` or `?`: it leaves the other one of the two day fields alone in command.
const STAR: u64 = 1 << 63;

/// A schedule. Equal instants in, equal instants out.
#[derive(Clone, Debug)]
pub struct CronSchedule(Kind);

#[derive(Clone, Debug)]
enum Kind {
    /// `@every`: a fixed time after each run, in whole seconds.
    Every(SignedDuration),
    Fields(Fields),
}

#[derive(Clone, Debug)]
struct Fields {
    second: u64,
    minute: u64,
    hour: u64,
    day: u64,
    month: u64,
    weekday: u64,
    zone: TimeZone,
}

/// Why a text is no schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    #[error("empty spec string")]
    Empty,
    #[error("expected 5 to 6 fields, found {}: [{}]", .0.len(), .0.join(" "))]
    FieldCount(Vec<String>),
    #[error("{reason}: {text:?}")]
    Field { reason: &'static str, text: String },
    #[error("provided bad location {0:?}")]
    Location(String),
    #[error("unrecognized descriptor: {0}")]
    Descriptor(String),
    #[error("failed to parse duration {0}")]
    Duration(String),
}

struct Bounds {
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const SECONDS: Bounds = Bounds {
    min: 0,
    max: 59,
    names: &[],
};
const MINUTES: Bounds = SECONDS;
const HOURS: Bounds = Bounds {
    min: 0,
    max: 23,
    names: &[],
};
const DAYS: Bounds = Bounds {
    min: 1,
    max: 31,
    names: &[],
};
const MONTHS: Bounds = Bounds {
    min: 1,
    max: 12,
    names: &[
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
    ],
};
const WEEKDAYS: Bounds = Bounds {
    min: 0,
    max: 6,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
};

impl CronSchedule {
    /// The schedule as it is checked when a configuration is loaded.
    ///
    /// # Errors
    /// What of the text is no schedule.
    pub fn parse(text: &str) -> Result<Self, CronError> {
        if text.is_empty() {
            return Err(CronError::Empty);
        }
        let (zone, text) = match text
            .strip_prefix("TZ=")
            .or_else(|| text.strip_prefix("CRON_TZ="))
        {
            None => (TimeZone::UTC, text),
            Some(prefixed) => {
                let (name, rest) = prefixed
                    .split_once(' ')
                    .ok_or_else(|| CronError::Location(prefixed.to_owned()))?;
                let zone = match name {
                    "" | "UTC" => TimeZone::UTC,
                    name => {
                        TimeZone::get(name).map_err(|_| CronError::Location(name.to_owned()))?
                    }
                };
                (zone, rest.trim())
            }
        };
        if text.starts_with('@') {
            return descriptor(text, zone);
        }
        let mut fields: Vec<&str> = text.split_whitespace().collect();
        match fields.len() {
            5 => fields.insert(0, "0"),
            6 => {}
            _ => {
                return Err(CronError::FieldCount(
                    fields.into_iter().map(str::to_owned).collect(),
                ));
            }
        }
        Ok(Self(Kind::Fields(Fields {
            second: field(fields[0], &SECONDS)?,
            minute: field(fields[1], &MINUTES)?,
            hour: field(fields[2], &HOURS)?,
            day: field(fields[3], &DAYS)?,
            month: field(fields[4], &MONTHS)?,
            weekday: field(fields[5], &WEEKDAYS)?,
            zone,
        })))
    }

    /// The schedule as Prow's scheduler registers it: in UTC, which it asks for by a prefix of its own, so that a prefix
    /// of the user fails here.
    ///
    /// # Errors
    /// What of the text is no schedule then.
    pub fn parse_for_scheduler(text: &str) -> Result<Self, CronError> {
        Self::parse(&format!("TZ=UTC {text}"))
    }

    /// The first due instant later than the given one; none if there is none within five years.
    #[must_use]
    pub fn next_after(&self, instant: Timestamp) -> Option<Timestamp> {
        match &self.0 {
            Kind::Every(delay) => {
                let whole = Timestamp::from_second(instant.as_second()).ok()?;
                whole.checked_add(*delay).ok()
            }
            Kind::Fields(fields) => fields.next_after(instant),
        }
    }
}

impl Fields {
    /// Whether some field holds nothing, as `,` does: looking for such an instant would go through years second by second.
    fn is_never_due(&self) -> bool {
        let empty = |bits: u64| bits & !STAR == 0;
        let others = [self.second, self.minute, self.hour, self.month];
        let starred = (self.day | self.weekday) & STAR != 0;
        others.into_iter().any(empty)
            || if starred {
                empty(self.day) || empty(self.weekday)
            } else {
                empty(self.day) && empty(self.weekday)
            }
    }

    fn next_after(&self, instant: Timestamp) -> Option<Timestamp> {
        if self.is_never_due() {
            return None;
        }
        let start = Timestamp::from_second(instant.as_second().checked_add(1)?).ok()?;
        let mut t = start.to_zoned_datetime(self.zone.clone());
        let last_year = t.year().checked_add(HORIZON_YEARS)?;
        // Once some field was moved, the smaller ones start from their beginning.
        let mut moved = false;
        'wrap: loop {
            if t.year() > last_year {
                return None;
            }
            while !has(self.month, t.month()) {
                if !moved {
                    moved = true;
                    t = self.at(t.date().first_of_month().at(0, 0, 0, 0))?;
                }
                t = t.checked_add(1.month()).ok()?;
                if t.month() == 1 {
                    continue 'wrap;
                }
            }
            while !self.day_matches(&t) {
                if !moved {
                    moved = true;
                    t = self.at(t.date().at(0, 0, 0, 0))?;
                }
                t = self.at(t.date().tomorrow().ok()?.at(t.hour(), 0, 0, 0))?;
                // Where midnight does not exist, come back to the day's beginning.
                if t.hour() != 0 {
                    let hours = i64::from(t.hour());
                    let correction = if hours > 12 { 24 - hours } else { -hours };
                    t = t.checked_add(correction.hours()).ok()?;
                }
                if t.day() == 1 {
                    continue 'wrap;
                }
            }
            while !has(self.hour, t.hour()) {
                if !moved {
                    moved = true;
                    t = self.at(t.date().at(t.hour(), 0, 0, 0))?;
                }
                t = t.checked_add(1.hour()).ok()?;
                if t.hour() == 0 {
                    continue 'wrap;
                }
            }
            while !has(self.minute, t.minute()) {
                if !moved {
                    moved = true;
                    t = t.checked_sub(i64::from(t.second()).seconds()).ok()?;
                }
                t = t.checked_add(1.minute()).ok()?;
                if t.minute() == 0 {
                    continue 'wrap;
                }
            }
            while !has(self.second, t.second()) {
                moved = true;
                t = t.checked_add(1.second()).ok()?;
                if t.second() == 0 {
                    continue 'wrap;
                }
            }
            return Some(t.timestamp());
        }
    }

    fn at(&self, civil: DateTime) -> Option<ZonedDateTime> {
        self.zone
            .to_ambiguous_zoned_datetime(civil)
            .compatible()
            .ok()
    }

    /// Both day fields must match if one of them was a star, else either does.
    fn day_matches(&self, t: &ZonedDateTime) -> bool {
        let day = has(self.day, t.day());
        let weekday = has(self.weekday, t.weekday().to_sunday_zero_offset());
        if (self.day | self.weekday) & STAR != 0 {
            day && weekday
        } else {
            day || weekday
        }
    }
}

fn has(bits: u64, value: i8) -> bool {
    u32::try_from(value).is_ok_and(|value| bits & (1 << value) != 0)
}

fn descriptor(text: &str, zone: TimeZone) -> Result<CronSchedule, CronError> {
    let first = |bounds: &Bounds| 1u64 << bounds.min;
    let any = |bounds: &Bounds| range(bounds.min, bounds.max, 1) | STAR;
    let yearly = Fields {
        second: first(&SECONDS),
        minute: first(&MINUTES),
        hour: first(&HOURS),
        day: first(&DAYS),
        month: first(&MONTHS),
        weekday: any(&WEEKDAYS),
        zone,
    };
    let monthly = Fields {
        month: any(&MONTHS),
        ..yearly.clone()
    };
    let fields = match text {
        "@yearly" | "@annually" => yearly,
        "@monthly" => monthly,
        "@weekly" => Fields {
            day: any(&DAYS),
            weekday: first(&WEEKDAYS),
            ..monthly
        },
        "@daily" | "@midnight" => Fields {
            day: any(&DAYS),
            ..monthly
        },
        "@hourly" => Fields {
            day: any(&DAYS),
            hour: any(&HOURS),
            ..monthly
        },
        _ => {
            let Some(every) = text.strip_prefix("@every ") else {
                return Err(CronError::Descriptor(text.to_owned()));
            };
            let duration: GoDuration = every
                .parse()
                .map_err(|_| CronError::Duration(text.to_owned()))?;
            let seconds = (duration.as_nanos() / 1_000_000_000).max(1);
            return Ok(CronSchedule(Kind::Every(SignedDuration::from_secs(
                seconds,
            ))));
        }
    };
    Ok(CronSchedule(Kind::Fields(fields)))
}

fn field(text: &str, bounds: &Bounds) -> Result<u64, CronError> {
    text.split(',')
        .filter(|part| !part.is_empty())
        .try_fold(0, |bits, part| Ok(bits | part_of_field(part, bounds)?))
}

fn part_of_field(text: &str, bounds: &Bounds) -> Result<u64, CronError> {
    let refused = |reason| CronError::Field {
        reason,
        text: text.to_owned(),
    };
    let (limits, step) = match text.split_once('/') {
        None => (text, None),
        Some((_, step)) if step.contains('/') => return Err(refused("too many slashes")),
        Some((limits, step)) => (
            limits,
            Some(number(step).ok_or_else(|| refused("failed to parse int"))?),
        ),
    };
    let value = |text: &str| {
        let name = bounds
            .names
            .iter()
            .position(|name| name.eq_ignore_ascii_case(text));
        let value = match name {
            Some(at) => u32::try_from(at).ok().map(|at| at + bounds.min),
            None => number(text),
        };
        value.ok_or_else(|| refused("failed to parse int"))
    };
    let (low, high) = match limits.split_once('-') {
        None => (limits, None),
        Some((low, high)) => (low, Some(high)),
    };
    let (start, mut end, mut star) = if matches!(low, "*" | "?") {
        (bounds.min, bounds.max, STAR)
    } else {
        let start = value(low)?;
        match high {
            None => (start, start, 0),
            Some(high) if high.contains('-') => return Err(refused("too many hyphens")),
            Some(high) => (start, value(high)?, 0),
        }
    };
    if let Some(step) = step {
        // `N/step` stands for `N-max/step`.
        if high.is_none() {
            end = bounds.max;
        }
        if step > 1 {
            star = 0;
        }
    }
    let step = step.unwrap_or(1);
    if start < bounds.min {
        return Err(refused("beginning of range below minimum"));
    }
    if end > bounds.max {
        return Err(refused("end of range above maximum"));
    }
    if start > end {
        return Err(refused("beginning of range beyond end of range"));
    }
    if step == 0 {
        return Err(refused("step of range should be a positive number"));
    }
    Ok(range(start, end, step) | star)
}

/// Go's `Atoi` takes a plus sign; negative numbers are refused.
fn number(text: &str) -> Option<u32> {
    let digits = text.strip_prefix('+').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // Far above every bound, but a number.
    digits
        .parse::<u64>()
        .ok()
        .map(|n| u32::try_from(n).unwrap_or(u32::MAX))
}

fn range(start: u32, end: u32, step: u32) -> u64 {
    (start..=end)
        .step_by(step as usize)
        .fold(0, |bits, value| bits | 1 << value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// JOB-020: a step over a star restricts the day of the month.
    #[test]
    fn job_020_days_combine() {
        let next = |text: &str| {
            let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
            CronSchedule::parse(text)
                .unwrap()
                .next_after(start)
                .map(|t| t.to_string())
        };
        assert_eq!(next("0 0 */2 * 1").as_deref(), Some("2026-01-03T00:00:00Z"));
        assert_eq!(next("0 0 * * 1").as_deref(), Some("2026-01-05T00:00:00Z"));
        assert_eq!(next("0 0 30 2 *"), None);
        assert_eq!(next("0 0 , * *"), None);
        assert_eq!(next("0 0 , * 1").as_deref(), Some("2026-01-05T00:00:00Z"));
        assert_eq!(next("0 0 3 * ,").as_deref(), Some("2026-01-03T00:00:00Z"));
        assert_eq!(next("@every 90s").as_deref(), Some("2026-01-01T00:01:30Z"));
        assert!(CronSchedule::parse_for_scheduler("TZ=Europe/Berlin 0 0 * * *").is_err());
        assert!(CronSchedule::parse("0 22, 10 * * *").is_ok());
    }
}
