//! `outage`: see [`chaos_tests::sim::outage`]. Only here is what makes chance and clocks of a whole process the seed's.

use std::process::ExitCode;

use chaos_tests::sim::{generator, outage::program};
use mad_turmoil::{rand::set_rng, time::SimClocksGuard};

fn main() -> ExitCode {
    let mut clocks = None;
    program::main(|seed| {
        set_rng(generator(seed, "system"));
        clocks = Some(SimClocksGuard::init());
    })
}
