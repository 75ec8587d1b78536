#![no_main]

use trireme_config::GoRegex;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let (source, text) = text.split_once('\n').unwrap_or((text, "aé1 \n"));
    if let Ok(regex) = GoRegex::new(source) {
        assert_eq!(regex.find(text).is_some(), regex.is_match(text));
        // What is accepted compiles: without a program nothing would match.
        let anything = GoRegex::new(&format!("|{source}"));
        assert!(anything.is_ok_and(|anything| anything.is_match("")));
    }
});
