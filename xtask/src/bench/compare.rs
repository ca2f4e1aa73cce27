//! The comparison with other servers.

use anyhow::Result;

use super::load::{self, Numbers, words};
use super::peers::{Peer, Running};
use super::table::{Table, bytes, with_unit};
use super::{Plan, Scratch};

/// One case, run against every server.
struct Case {
    /// With its size for us, and for the others, which take longer for each.
    arguments: fn(&Plan, bool) -> Vec<String>,
    /// Whether only we are asked: the others would take too long.
    only_ours: bool,
    rows: &'static [Row],
}

/// One row of the table.
struct Row {
    label: &'static str,
    key: &'static str,
    unit: Unit,
    target: &'static str,
}

#[derive(Clone, Copy)]
enum Unit {
    Plain(&'static str),
    Millis,
    Bytes,
}

impl Row {
    const fn new(label: &'static str, key: &'static str, unit: Unit, target: &'static str) -> Self {
        Self { label, key, unit, target }
    }

    fn cell(&self, numbers: &Numbers) -> String {
        let value = numbers.get(self.key);
        match self.unit {
            Unit::Plain(unit) => with_unit(value, unit),
            // Measured in microseconds.
            Unit::Millis => with_unit(value.map(|micros| micros / 1e3), "ms"),
            Unit::Bytes => bytes(value),
        }
    }
}

const US: Unit = Unit::Plain("us");
const CPU_PER_EDIT: &str = "server_cpu_us_per_edit";

const CASES: [Case; 8] = [
    Case {
        arguments: |plan, ours| edits("64", "1", "0", &plan.size(if ours { 1000 } else { 30 }, 10)),
        only_ours: false,
        rows: &[
            Row::new("`edits --clients 64`: edits a second", "rate_per_s", Unit::Plain(""), "25,000"),
            Row::new("… server CPU per edit", CPU_PER_EDIT, US, "30 us"),
            Row::new("… p50", "latency_p50_us", Unit::Millis, ""),
        ],
    },
    Case {
        arguments: |plan, ours| edits("64", "8", "0", &plan.size(if ours { 1000 } else { 30 }, 10)),
        only_ours: false,
        rows: &[
            Row::new("`edits --clients 64 --in-flight 8`: edits a second", "rate_per_s", Unit::Plain(""), ""),
            Row::new("… server CPU per edit", CPU_PER_EDIT, US, ""),
        ],
    },
    Case {
        arguments: |plan, ours| edits("1", "1", "0", &plan.size(if ours { 2000 } else { 200 }, 20)),
        only_ours: false,
        rows: &[
            Row::new("`edits --clients 1`: p50 on an empty history", "latency_p50_us", US, ""),
            Row::new("… server CPU per edit", CPU_PER_EDIT, US, ""),
        ],
    },
    Case {
        arguments: |plan, ours| {
            edits("1", "1", &plan.size(20_000, 500), &plan.size(if ours { 2000 } else { 100 }, 20))
        },
        only_ours: false,
        rows: &[
            Row::new("… p50 at 20,000 changes", "latency_p50_us", US, "1.3 times that of an empty one"),
            Row::new("… server CPU per edit at 20,000", CPU_PER_EDIT, US, ""),
        ],
    },
    Case {
        arguments: |plan, _| edits("1", "1", &plan.size(200_000, 1000), &plan.size(2000, 20)),
        only_ours: true,
        rows: &[
            Row::new("… p50 at 200,000 changes", "latency_p50_us", US, "1.3 times that of an empty one"),
            Row::new("… server CPU per edit at 200,000", CPU_PER_EDIT, US, ""),
        ],
    },
    Case {
        arguments: |plan, ours| {
            let mut arguments = words(["fanout", "--readers"]);
            arguments.extend([plan.size(50, 5), "--edits".into(), plan.size(if ours { 200 } else { 20 }, 5)]);
            arguments
        },
        only_ours: false,
        rows: &[
            Row::new(
                "`fanout --readers 50`: server CPU per delivery",
                "server_cpu_us_per_delivery",
                US,
                "12 us",
            ),
            Row::new("… p50 of a delivery", "latency_p50_us", Unit::Millis, ""),
        ],
    },
    Case {
        arguments: |plan, ours| {
            let mut arguments = words(["cold", "--history"]);
            let clients = plan.size(if ours { 20 } else { 10 }, 3);
            arguments.extend([plan.size(20_000, 500), "--clients".into(), clients]);
            arguments
        },
        only_ours: false,
        rows: &[
            Row::new(
                "`cold --history 20000`: server CPU per fetch",
                "server_cpu_us_per_fetch",
                Unit::Millis,
                "2 ms",
            ),
            Row::new("… bytes per fetch", "bytes", Unit::Bytes, ""),
            Row::new("… p50", "latency_p50_us", Unit::Millis, "2 ms"),
        ],
    },
    Case {
        arguments: |plan, _| {
            let mut arguments = words(["idle", "--connections"]);
            arguments.push(plan.size(1000, 50));
            arguments
        },
        only_ours: false,
        rows: &[Row::new(
            "`idle --connections 1000`: memory per connection with its document",
            "memory_per_connection_kb",
            Unit::Plain("kB"),
            "16 kB",
        )],
    },
];

fn edits(clients: &str, in_flight: &str, history: &str, edits: &str) -> Vec<String> {
    words(["edits", "--clients", clients, "--in-flight", in_flight, "--history", history, "--edits", edits])
}

/// Measures all servers, each case on a fresh one, and returns the table.
pub(super) fn measure(plan: &Plan, scratch: &Scratch, peers: &[Peer]) -> Result<String> {
    let mut found = vec![];
    for peer in peers {
        println!("\n{}", peer.name);
        plan.left()?;
        found.push(CASES.iter().map(|case| run(plan, scratch, peer, case)).collect::<Vec<_>>());
    }
    Ok(table(peers, &found))
}

/// What became of a case.
enum Outcome {
    Found(Numbers),
    NotRun,
    Failed,
}

/// A case that a server does not stand is told in the table, and the others go on.
fn run(plan: &Plan, scratch: &Scratch, peer: &Peer, case: &Case) -> Outcome {
    if case.only_ours && !peer.ours {
        return Outcome::NotRun;
    }
    match one(plan, scratch, peer, case) {
        Ok(numbers) => Outcome::Found(numbers),
        Err(error) => {
            println!("  failed: {error:#}");
            Outcome::Failed
        }
    }
}

fn one(plan: &Plan, scratch: &Scratch, peer: &Peer, case: &Case) -> Result<Numbers> {
    let server = Running::start(peer, &scratch.fresh("peer")?)?;
    let mut arguments = words(["--url", &server.url, "--pid", &server.pid().to_string()]);
    arguments.extend((case.arguments)(plan, peer.ours));
    load::run(plan, &arguments)
}

fn table(peers: &[Peer], found: &[Vec<Outcome>]) -> String {
    let mut columns = vec!["case"];
    columns.extend(peers.iter().map(|peer| peer.name));
    columns.push("target");
    let mut table = Table::new(&columns);
    for (place, case) in CASES.iter().enumerate() {
        for row in case.rows {
            let mut cells = vec![row.label.to_owned()];
            for outcomes in found {
                cells.push(match &outcomes[place] {
                    Outcome::Found(numbers) => row.cell(numbers),
                    Outcome::NotRun => "not run".to_owned(),
                    Outcome::Failed => "failed".to_owned(),
                });
            }
            cells.push(row.target.to_owned());
            table.row(&cells);
        }
    }
    table.into_text()
}
