//! What is wrong is said at once, with the exit code that tells who can fix it; and every command explains itself.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_servers::Flavor;
use crossfade_testkit::process;
use crossfade_testkit::workload::Side;
use crossfade_tests::{Direction, Migration, Setup, binary};

use crate::{create_table, says};

const LIMIT: Duration = Duration::from_secs(30);

async fn run(words: &[&str]) -> Result<(Option<i32>, String, String)> {
    process::run_any(&binary(), words, &[], LIMIT).await
}

/// Two processes whose configurations would decide differently do not run together.
async fn different_rules_are_refused(flavor: Flavor) -> Result<()> {
    let setup = Setup::new(flavor, "rules");
    let mut migration = Migration::new(&setup).await?;
    create_table(&migration).await?;
    migration.init().await?;
    migration.start(Direction::Forward, &[])?;
    crate::until_status(&migration, "forward runs", |status| crate::state(status, "forward") == "running").await?;
    let same = std::fs::read_to_string(migration.config())?;
    let other = Setup { tables: setup.tables.clone() + "policy = \"prefer-old\"\n", ..setup };
    std::fs::write(migration.config(), migration.configuration(&other))?;
    let told = says(&migration, &["sync", "reverse"], 3, &["rules", "forward", "hint:"]).await?;
    println!("{flavor:?}: {}", told.lines().last().unwrap_or_default());
    // With the same rules it may run.
    std::fs::write(migration.config(), same)?;
    migration.start(Direction::Reverse, &[])?;
    crate::until_status(&migration, "reverse runs", |status| crate::state(status, "reverse") == "running").await?;
    migration.stop_both().await
}

/// As `crossfade status | true`, where a reader like `head` has enough before all is printed.
async fn nobody_reads_on(migration: &Migration) -> Result<()> {
    let command = format!("'{}' --config '{}' status | true", binary().display(), migration.config().display());
    let words = ["-o", "pipefail", "-c", &command].map(str::to_owned);
    let (code, _, errors) = process::run_any("bash".as_ref(), &words, &[], LIMIT).await?;
    ensure!(code == Some(0) && !errors.contains("panicked"), "{code:?} {errors}");
    Ok(())
}

/// 2 for what the caller can correct, 3 for a server that does not answer.
async fn exit_codes(flavor: Flavor) -> Result<()> {
    let setup = Setup::new(flavor, "codes");
    let migration = Migration::new(&setup).await?;
    create_table(&migration).await?;
    // Another pair has made the store, which does not know of this one.
    let other = Migration::new(&Setup::new(flavor, "codes_other")).await?;
    create_table(&other).await?;
    other.init().await?;
    says(&migration, &["status"], 0, &["crossfade init"]).await?;
    nobody_reads_on(&migration).await?;
    says(&migration, &["sync", "forward"], 3, &["error:", "hint:", "init"]).await?;
    let right = std::fs::read_to_string(migration.config())?;
    let port = "mysql://nobody@127.0.0.1:1";
    let unreachable = right.replace(&migration.url(Side::Old), port);
    std::fs::write(migration.config(), &unreachable)?;
    says(&migration, &["init"], 3, &["error:", "127.0.0.1:1"]).await?;
    says(&migration, &["check"], 3, &["127.0.0.1:1", "ERROR"]).await?;

    let wrong = format!("{right}\nlanes = 4\n[aply]\nlanes = \"many\"\n[store]\nretention = 7\n");
    std::fs::write(migration.config(), wrong)?;
    for words in
        [&["check"][..], &["init"], &["sync", "forward"], &["status"], &["messages", "list"], &["stop", "forward"]]
    {
        // All problems at once, each with its line and remedy.
        says(&migration, words, 2, &["aply", "lanes", "retention", ".toml:", "remedy:"]).await?;
    }
    std::fs::write(migration.config(), "pair = ")?;
    says(&migration, &["status"], 2, &["TOML"]).await?;
    std::fs::remove_file(migration.config())?;
    says(&migration, &["status"], 2, &["crossfade.toml"]).await?;
    [migration, other].into_iter().for_each(Migration::forget);
    Ok(())
}

#[tokio::test]
async fn wrong_on_mysql() -> Result<()> {
    tokio::try_join!(different_rules_are_refused(Flavor::MySql), exit_codes(Flavor::MySql)).map(drop)
}

#[tokio::test]
async fn wrong_on_mariadb() -> Result<()> {
    tokio::try_join!(different_rules_are_refused(Flavor::MariaDb), exit_codes(Flavor::MariaDb)).map(drop)
}

#[tokio::test]
async fn every_command_explains_itself() -> Result<()> {
    let commands: [&[&str]; 25] = [
        &[],
        &["check"],
        &["init"],
        &["sync"],
        &["status"],
        &["start"],
        &["stop"],
        &["backfill", "start"],
        &["backfill", "status"],
        &["backfill", "pause"],
        &["backfill", "resume"],
        &["backfill", "restart"],
        &["throttle", "get"],
        &["throttle", "set"],
        &["throttle", "reset"],
        &["mark", "take"],
        &["mark", "list"],
        &["messages", "list"],
        &["messages", "show"],
        &["messages", "history"],
        &["messages", "purge"],
        &["retry"],
        &["discard"],
        &["demo"],
        &["completions"],
    ];
    for command in commands {
        let words = [command, &["--help"]].concat();
        let (code, output, errors) = run(&words).await?;
        ensure!(code == Some(0) && errors.is_empty(), "`{}` ended with {code:?}: {errors}", words.join(" "));
        let examples = output.split_once("Examples:").with_context(|| format!("no examples in {output}"))?.1;
        let command = ["crossfade"].iter().chain(command.iter()).copied().collect::<Vec<_>>().join(" ");
        ensure!(examples.contains(&command), "no example of `{command}`: {examples}");
    }
    for (words, told) in [
        (&["synk"][..], "sync"),
        (&["sync", "sideways"], "forward"),
        (&["messages", "show", "17"], "forward/old:17"),
        (&["messages", "list", "--status", "odd"], "conflict_lost"),
        (&["--log", "loud=loud=loud", "check"], "--log"),
        (&[], "Usage"),
    ] {
        let (code, output, errors) = run(words).await?;
        ensure!(code == Some(2), "`{}` ended with {code:?}: {output}{errors}", words.join(" "));
        ensure!(errors.contains(told) && output.is_empty(), "`{}`: {output}{errors}", words.join(" "));
    }
    Ok(())
}

#[tokio::test]
async fn completions_are_printed_for_every_shell() -> Result<()> {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, output, _) = run(&["completions", shell]).await?;
        ensure!(code == Some(0), "{shell} ended with {code:?}");
        for word in ["crossfade", "sync", "until-caught-up", "history"] {
            ensure!(output.contains(word), "the completions of {shell} do not know `{word}`");
        }
    }
    let (code, output, _) = run(&["--version"]).await?;
    ensure!(code == Some(0) && output.starts_with("crossfade "), "{output}");
    Ok(())
}
