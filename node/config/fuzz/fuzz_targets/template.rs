#![no_main]

use trireme_config::{Template, TemplatePull};
use trireme_prowjob::ProwJob;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(template) = Template::parse(text) {
        let _ = template.for_job(&ProwJob::default());
        let _ = template.for_pull(&TemplatePull::default());
    }
});
