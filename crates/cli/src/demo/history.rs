//! What was there before: copied to the new side, which begins empty; and in the end both sides are compared by the product itself.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::display::{Display, grouped};
use super::stage::{Pair, Stage};

const LOOK: Duration = Duration::from_millis(250);

/// Without a terminal, a line this often is enough.
const TELL_EVERY: u32 = 16;

/// Has the forward process copy everything, and shows how far it is.
pub async fn copy(display: &Display, stage: &Stage, pair: &mut Pair, rows: u64) -> Result<()> {
    display.say("copying what old has to new, which is empty: crossfade backfill start");
    stage.crossfade(&["backfill", "start"]).await.context("`crossfade backfill start` failed")?;
    let bar = display.bar("copying", rows);
    let (mut copied, mut looks) = (0, 0);
    loop {
        let status: Value = serde_json::from_str(&stage.crossfade(&["backfill", "status", "--json"]).await?)
            .context("`crossfade backfill status` gave something else than JSON")?;
        let now = status["rows"].as_u64().unwrap_or(0);
        bar.advance(now.saturating_sub(copied));
        copied = now;
        let tables = status["tables"].as_array().map_or(&[][..], Vec::as_slice);
        if !tables.is_empty() && tables.iter().all(|table| table["state"] == "copied") {
            bar.finish();
            display.say(&format!("{} rows copied", grouped(copied)));
            return Ok(());
        }
        if let Some(ended) = pair.forward.exit_status()? {
            bail!("process {} ended by itself: {ended}", pair.forward.pid());
        }
        looks += 1;
        if looks % TELL_EVERY == 0 && !display.is_terminal() {
            let left = status["seconds_left"].as_u64().map_or(String::new(), |left| format!(", {left} s left"));
            display.say(&format!("{} of {} rows copied{left}", grouped(copied), grouped(rows)));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Compares both sides as a user would.
pub async fn verify(display: &Display, stage: &Stage) -> Result<()> {
    display.say("comparing both sides: crossfade verify");
    let found =
        stage.crossfade(&["verify", "--json"]).await.context("`crossfade verify` found differences, or failed")?;
    let found: Value = serde_json::from_str(&found).context("`crossfade verify` gave something else than JSON")?;
    let rows = found["rows_old"].as_u64().unwrap_or(0);
    display.say(&format!("{} rows compared, {} differ", grouped(rows), found["mismatches"]));
    Ok(())
}
