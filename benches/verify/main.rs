//! What the service costs, against what it is built on: the table of numbers to reach.
//!
//!     cargo bench --bench verify -- [--quick | --full] [--save] [ROWS…]
//!
//! Each round measures everything that is compared, one after the other; a row shows
//! the median of the rounds' ratios. Rows are chosen by the
//! names of their groups.
#![expect(clippy::unwrap_used, reason = "a benchmark")]

#[path = "../../tests/it/support/mod.rs"]
#[expect(dead_code, unused_imports, unused_macros, reason = "the tests use the rest of it")]
mod support;

mod constant;
mod keeper;
mod load;
mod machine;
mod pgbench;
mod picture;
mod process;
mod questions;
mod reference;
mod report;
mod rows;
mod seeds;
mod world;

use std::{env, path::Path, process::ExitCode, time::Instant};

use report::Report;
use rows::Group;
use world::World;

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// The main rows, on a small store.
    Quick,
    Usual,
    /// Also with ten million tokens.
    Full,
}

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1).peekable();
    match arguments.peek().map(String::as_str) {
        Some("reference") => return reference::serve(arguments.skip(1)),
        Some("constant") => return constant::serve(arguments.skip(1)),
        Some("keeper") => return keeper::serve(arguments.skip(1)),
        Some("pinned") => return machine::become_pinned(arguments.skip(1)),
        Some(_) | None => {}
    }
    let mut extent = Extent::Usual;
    let mut save = false;
    let mut wanted = Vec::new();
    for argument in arguments {
        match argument.as_str() {
            // What cargo says to every benchmark.
            "--bench" => {}
            "--quick" => extent = Extent::Quick,
            "--full" => extent = Extent::Full,
            "--save" => save = true,
            name if Group::ALL.iter().any(|group| group.name() == name) => {
                wanted.push(name.to_owned());
            }
            other => {
                let names = Group::ALL.map(Group::name).join(" ");
                report::say(&format!("{other} is none of --quick --full --save {names}"));
                return ExitCode::FAILURE;
            }
        }
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let world = World::new(extent);
        let mut report = Report::new(world.about());
        for group in Group::ALL {
            let is_wanted = if wanted.is_empty() {
                !(world.is_quick() && group.is_slow() || group.is_named())
            } else {
                wanted.iter().any(|word| word == group.name())
            };
            if is_wanted {
                let since = Instant::now();
                group.measure(&world, &mut report).await;
                report.took(group.name(), since.elapsed());
            }
        }
        report.close(world.quietness());
        if save {
            let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/benchmarks");
            let arguments: Vec<String> = env::args().skip(1).filter(|a| a != "--bench").collect();
            let command = format!("cargo bench --bench verify -- {}", arguments.join(" "));
            report.save(&directory, &command).unwrap();
        }
    });
    ExitCode::SUCCESS
}
