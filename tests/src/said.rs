//! What commands say.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::Migration;

/// Runs a command that gives JSON, whatever its exit code.
pub async fn json(migration: &Migration, words: &[&str]) -> Result<(Option<i32>, Value)> {
    let (code, output, errors) = migration.crossfade_any(words).await?;
    let value = serde_json::from_str(&output).with_context(|| format!("no JSON: {output}{errors}"))?;
    Ok((code, value))
}

/// That a command ends with this code and says all of these on either output.
pub async fn says(migration: &Migration, words: &[&str], code: i32, told: &[&str]) -> Result<String> {
    let (found, output, errors) = migration.crossfade_any(words).await?;
    let all = format!("{output}{errors}");
    ensure!(found == Some(code), "`{}` ended with {found:?}, not {code}:\n{all}", words.join(" "));
    for text in told {
        ensure!(all.contains(text), "`{}` does not say `{text}`:\n{all}", words.join(" "));
    }
    Ok(all)
}
