//! The document engine against stock `automerge` peers, over random schedules.
//!
//! `HIGHWATER_SEED=n` runs one seed, and with `HIGHWATER_TRACE=1` shows what happens in it; `HIGHWATER_FULL=1` runs 10,000 seeds (with `--release`).

mod network;

use std::panic::{AssertUnwindSafe, catch_unwind};

use network::disk::SlowDisk;
use network::{Tally, World};

fn steps(seed: u64) -> usize {
    30 + (seed % 7) as usize * 30
}

/// Runs a seed; the error says what went wrong.
fn run(seed: u64) -> Result<(Tally, (usize, usize)), String> {
    let mut world = World::new(seed, SlowDisk::default());
    let shows = std::env::var_os("HIGHWATER_TRACE").is_some();
    world.hub.trace = shows.then(String::new);
    let outcome = catch_unwind(AssertUnwindSafe(|| world.run(steps(seed))));
    if let Some(trace) = &world.hub.trace {
        println!("{trace}");
    }
    match outcome {
        Ok(Ok(())) => Ok((world.tally, world.hub.brought)),
        Ok(Err(failure)) => Err(format!("HIGHWATER_SEED={seed}: {failure}; {:?}", world.tally)),
        Err(_) => Err(format!("HIGHWATER_SEED={seed} panicked")),
    }
}

fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("HIGHWATER_SEED") {
        Some(seed) => seed..seed + 1,
        None if std::env::var_os("HIGHWATER_FULL").is_some() => 0..10_000,
        None => 0..300,
    }
}

/// Found by long searches: two changes with one number, of which one waits when the document is compacted; a peer that waits for the rest of a document of which it has the head,
/// or that can never take it.
#[test]
fn schedules_that_failed_once_do_not_fail_again() {
    for seed in [600, 6_368, 7_228, 9_770] {
        assert_eq!(run(seed).err(), None);
    }
}

#[test]
fn random_schedules_converge() {
    let (mut failures, mut compactions, mut evictions) = (Vec::new(), 0, 0);
    let (mut snapshots, mut changes) = (0, 0);
    for seed in seeds() {
        match run(seed) {
            Err(failure) => failures.push(failure),
            Ok((tally, brought)) => {
                compactions += tally.compactions;
                evictions += tally.evictions;
                snapshots += brought.0;
                changes += brought.1;
            }
        }
    }
    println!(
        "{compactions} compactions, {evictions} evictions; {snapshots} times a snapshot was brought, {changes} times changes from one"
    );
    let is_one = std::env::var_os("HIGHWATER_SEED").is_some();
    assert!(
        is_one || (compactions > 0 && evictions > 0 && snapshots > 0 && changes > 0),
        "the schedules compact and bring"
    );
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let trace = |seed| {
        let mut world = World::new(seed, SlowDisk::default());
        world.hub.trace = Some(String::new());
        world.run(steps(seed)).expect("a schedule that converges");
        world.hub.trace
    };
    for seed in 0..10 {
        assert!(trace(seed) == trace(seed), "seed {seed}");
    }
}
