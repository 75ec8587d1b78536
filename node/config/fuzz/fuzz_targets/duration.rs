#![no_main]

use trireme_prowjob::GoDuration;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(duration) = text.parse::<GoDuration>() {
        assert_eq!(
            duration.to_string().parse::<GoDuration>().ok(),
            Some(duration)
        );
    }
});
