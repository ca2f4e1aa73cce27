//! The promise, checked after every step: whatever any peer was ever told that the server has is on the disk.
//!
//! Documents are driven over a store that is slow, stalls, fails and loses power. `HIGHWATER_SEED=n` runs one seed,
//! `HIGHWATER_FULL=1` runs 10,000 (with `--release`).

#[path = "../../core/tests/network/mod.rs"]
mod network;
#[path = "simulation/disk.rs"]
mod store;

use network::World;
use network::hub::DOCUMENT;
use store::StoreDisk;

const SEEDS: u64 = 200;
const SEEDS_FULL: u64 = 10_000;
/// The mistake that the simulation is there to find is found within so many seeds.
const SEEDS_TO_CATCH: u64 = 10;

fn world(seed: u64) -> World<StoreDisk> {
    World::new(seed, StoreDisk::new(DOCUMENT, seed))
}

/// Runs a schedule, with the promise checked after every step, and a power cut at the end.
fn run(world: &mut World<StoreDisk>, seed: u64) -> Result<(), String> {
    for _ in 0..40 + (seed % 5) * 40 {
        world.step()?;
        world.hub.check_promise()?;
    }
    world.settle()?;
    world.hub.check_promise()?;
    world.check_converged()?;
    let heads = world.hub.document.heads().to_vec();
    world.restart_hub()?;
    if world.hub.document.heads() != heads {
        return Err("after the last power cut the document is another".to_owned());
    }
    Ok(())
}

fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("HIGHWATER_SEED") {
        Some(seed) => seed..seed + 1,
        None if std::env::var_os("HIGHWATER_FULL").is_some() => 0..SEEDS_FULL,
        None => 0..SEEDS,
    }
}

#[test]
fn whatever_was_told_survives_a_power_cut_at_any_step() {
    let (mut restarts, mut failures) = (0, Vec::new());
    for seed in seeds() {
        let mut world = world(seed);
        if std::env::var_os("HIGHWATER_TRACE").is_some() {
            world.hub.trace = Some(String::new());
        }
        let outcome = run(&mut world, seed);
        if let Some(trace) = &world.hub.trace {
            println!("{trace}");
        }
        if let Err(failure) = outcome {
            failures.push(format!("HIGHWATER_SEED={seed}: {failure}"));
        }
        restarts += world.tally.restarts;
    }
    println!("{restarts} restarts");
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn a_server_that_speaks_before_the_commit_is_caught() {
    let caught = (0..SEEDS_TO_CATCH).find_map(|seed| {
        let mut world = world(seed);
        world.hub.acknowledges_early = true;
        run(&mut world, seed).err()
    });
    let failure = caught.expect("the mistake is found");
    assert!(failure.contains("power cut"), "{failure}");
}
