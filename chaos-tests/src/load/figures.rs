//! What a closed loop measured.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Latencies up to a minute are kept to three digits, in microseconds.
const LONGEST_US: u64 = 60_000_000;
const DIGITS: u8 = 3;

/// Counts and latencies of one client, or of all together.
#[derive(Debug)]
pub struct Figures {
    histogram: Histogram<u64>,
    pub operations: u64,
    /// With what was done while the loop warmed up or was prepared.
    pub all: u64,
    pub errors: u64,
    /// Of those that were counted or not.
    pub first_error: Option<String>,
    pub seconds: f64,
}

/// In microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Latency {
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
}

impl Latency {
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        Self {
            p50: histogram.value_at_quantile(0.5),
            p90: histogram.value_at_quantile(0.9),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
            max: histogram.max(),
        }
    }
}

impl Figures {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            histogram: Histogram::new_with_max(LONGEST_US, DIGITS)?,
            operations: 0,
            all: 0,
            errors: 0,
            first_error: None,
            seconds: 0.0,
        })
    }

    pub(super) fn count(&mut self, took: Duration) -> anyhow::Result<()> {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.histogram.record(micros.min(LONGEST_US))?;
        self.operations += 1;
        self.all += 1;
        Ok(())
    }

    pub(super) fn warm_up(&mut self) {
        self.all += 1;
    }

    pub(super) fn fail(&mut self, counted: bool, why: String) {
        self.errors += u64::from(counted);
        self.first_error.get_or_insert(why);
    }

    pub(super) fn add(&mut self, other: Self) -> anyhow::Result<()> {
        self.histogram.add(other.histogram)?;
        self.operations += other.operations;
        self.all += other.all;
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
        Ok(())
    }

    #[must_use]
    pub fn per_second(&self) -> f64 {
        self.operations as f64 / self.seconds
    }

    #[must_use]
    pub fn latency(&self) -> Latency {
        Latency::of(&self.histogram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_add_up_and_what_was_not_counted_is_not_in_the_figures() {
        let mut all = Figures::new().unwrap();
        for millis in 1..=100 {
            let mut client = Figures::new().unwrap();
            client.count(Duration::from_millis(millis)).unwrap();
            all.add(client).unwrap();
        }
        let mut failing = Figures::new().unwrap();
        failing.fail(false, "while it warmed up".to_owned());
        failing.fail(true, "later".to_owned());
        all.add(failing).unwrap();
        all.seconds = 2.0;
        assert_eq!((all.operations, all.errors), (100, 1));
        assert_eq!(all.first_error.as_deref(), Some("while it warmed up"));
        assert!((all.per_second() - 50.0).abs() < f64::EPSILON);
        let latency = all.latency();
        assert!((50_000..50_100).contains(&latency.p50), "{latency:?}");
        assert!((99_000..99_100).contains(&latency.p99), "{latency:?}");
    }

    #[test]
    fn an_answer_that_took_hours_counts_as_the_longest() {
        let mut figures = Figures::new().unwrap();
        figures.count(Duration::from_secs(7200)).unwrap();
        assert!(figures.latency().max >= LONGEST_US);
    }
}
