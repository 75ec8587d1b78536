//! What the description of a status tells Tide (TIDE-061).

const BASE_SHA: [&str; 2] = [" BaseSHA:", " Basesha:"];
const SHA_DIGITS: usize = 40;
const SKIP_RETEST: &str = "[prow:skip-retest]";

/// The base commit that the result is for.
pub(crate) fn base_sha_of(description: &str) -> Option<&str> {
    BASE_SHA.into_iter().find_map(|mark| {
        let (_, sha) = description.split_once(mark)?;
        (sha.len() == SHA_DIGITS && !sha.contains(mark)).then_some(sha)
    })
}

/// Whether the result holds on any base.
pub(crate) fn skips_retest(description: &str) -> bool {
    description.contains(SKIP_RETEST)
}
