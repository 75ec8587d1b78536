#![no_main]

use trireme_config::CronSchedule;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let from = jiff::Timestamp::UNIX_EPOCH;
    for schedule in [
        CronSchedule::parse(text),
        CronSchedule::parse_for_scheduler(text),
    ] {
        if let Some(next) = schedule.ok().and_then(|schedule| schedule.next_after(from)) {
            assert!(next > from);
        }
    }
});
