//! P8: memory, and what is captured and not yet applied, stay within their bounds, whatever is written and however far behind
//! the target is.
//!
//! The short form is small, and so are its limits; the long form (`make soak SUITE=bounds`) has the sizes that are promised.

mod backlog;
mod memory;

use std::time::Duration;

use anyhow::{Context, Result};
use crossfade_servers::Flavor;
use crossfade_testkit::quiet::{Progress, Status, until};
use crossfade_tests::{Migration, on_both_brands};

const LIMIT: Duration = Duration::from_secs(90);

/// Waits for what `status` says; a limit that is not reached is an error with the ends of the logs.
async fn until_status(
    migration: &Migration,
    what: &str,
    limit: Duration,
    is_reached: impl Fn(&Status) -> bool,
) -> Result<Status> {
    until(what, limit, || async {
        let status = migration.status().read().await?;
        Ok(if is_reached(&status) { Progress::Reached(status) } else { Progress::NotYet(status.0.to_string()) })
    })
    .await
    .with_context(|| migration.log_ends())
}

on_both_brands! {
    p8_p1_two_full_backlogs_drain => backlog::two_full_backlogs_drain,
    p8_p1_reading_rests_while_the_target_is_down => backlog::reading_rests_while_the_target_is_down,
    p8_a_transaction_larger_than_memory => memory::a_transaction_larger_than_memory,
    p8_rows_that_are_large => memory::rows_that_are_large,
    p8_many_changes_not_seen => memory::many_changes_not_seen,
}

#[tokio::test]
async fn p8_a_compressed_transaction_larger_than_memory_on_mysql() -> Result<()> {
    memory::a_compressed_transaction_larger_than_memory(Flavor::MySql).await
}
