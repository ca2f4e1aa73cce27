//! Running the load generator, which is `highwater bench`.

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::Plan;
use crate::run::{command, output, release_binary};

/// No single case takes longer than this, in seconds.
const CASE_SECONDS_MAX: u64 = 5 * 60;

/// What a case found out.
#[derive(Debug, Clone, Default)]
pub(super) struct Numbers(Value);

impl Numbers {
    /// A number, if it was measured.
    pub(super) fn get(&self, key: &str) -> Option<f64> {
        self.0[key].as_f64()
    }
}

/// Runs a case of the load generator to its end.
pub(super) fn run(plan: &Plan, arguments: &[String]) -> Result<Numbers> {
    let seconds = plan.left()?.as_secs().clamp(1, CASE_SECONDS_MAX).to_string();
    let mut bench = command(release_binary(), &["bench", "--json", "--timeout", &seconds]);
    bench.args(arguments);
    println!("  {}", arguments.join(" "));
    let printed = output(&mut bench)?;
    Ok(Numbers(serde_json::from_str(&printed).context("the load generator printed no JSON")?))
}

/// Arguments, from words and numbers.
pub(super) fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
