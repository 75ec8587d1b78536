#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(document) = trireme_config::yaml::parse(data) {
        let _ = document.root.to_json();
    }
});
