//! What goes wrong around the processes, on real servers, while users write on both sides. After each fault all comes to rest,
//! and the testkit judges: the sides are equal row by row, and the message table holds every change of a user once and
//! nothing else.
//!
//! One pair of processes lives through one fault after the other; old, new and the store are servers of their own, each behind
//! a proxy. `make soak SUITE=faults` repeats each fault, and adds those that take long; `CROSSFADE_FAULTS=Commits,Locks` tries
//! those alone.

mod clock;
mod disk;
mod fault;
mod hostile;
mod inject;
mod judge;
mod secrets;
mod stand;

use anyhow::{Context, Result};
use crossfade_servers::Flavor;
use crossfade_tests::{is_soak, rounds};

use fault::Fault;
use stand::Stand;

async fn every_fault_is_survived(flavor: Flavor) -> Result<()> {
    let mut stand = Stand::start(flavor).await?;
    println!(
        "| server | fault | must hold | changes by users | echoes recognised | lost | doubled | echoed | measured |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let wanted = std::env::var("CROSSFADE_FAULTS").ok();
    let is_wanted = |fault: &Fault| match &wanted {
        Some(names) => names.split(',').any(|name| format!("{fault:?}").starts_with(name)),
        None => is_soak() || fault.is_quick(),
    };
    for fault in Fault::ALL.into_iter().filter(is_wanted) {
        for round in 1..=rounds(1, 5) {
            let line =
                stand.suffer(fault).await.with_context(|| format!("{flavor}: {}, round {round}", fault.injected()))?;
            println!("{line}");
        }
    }
    stand.stop().await
}

#[tokio::test]
async fn p2_every_fault_is_survived_on_mysql() -> Result<()> {
    every_fault_is_survived(Flavor::MySql).await
}

#[tokio::test]
async fn p2_every_fault_is_survived_on_mariadb() -> Result<()> {
    every_fault_is_survived(Flavor::MariaDb).await
}
