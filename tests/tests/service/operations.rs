//! What runs the pair: the units of systemd are understood by it, and the script starts, keeps and ends what it should.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_testkit::process;
use crossfade_testkit::quiet::{Progress, until};
use crossfade_tests::lines::KILLED;
use crossfade_tests::{Flavor, Migration, Setup, binary, on_both_brands};

use crate::stage::LIMIT;

const PARTS: [&str; 3] = ["forward", "reverse", "serve"];

const TABLE: &str = "CREATE TABLE {schema}.t (id INT PRIMARY KEY, v INT, \
     updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6))";

fn config(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config").join(file)
}

/// Of a program that may not be on this machine; `None` where it is not.
async fn ran(program: &str, arguments: &[String]) -> Result<Option<(Option<i32>, String)>> {
    if std::process::Command::new(program).arg("--version").output().is_err() {
        println!("skipped: there is no {program} on this machine");
        return Ok(None);
    }
    let (code, output, errors) = process::run_any(Path::new(program), arguments, &[], LIMIT).await?;
    Ok(Some((code, format!("{output}{errors}"))))
}

#[tokio::test]
async fn systemd_understands_the_units() -> Result<()> {
    let folder = std::env::temp_dir().join(format!("crossfade-units-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    for part in PARTS {
        let name = format!("crossfade-{part}.service");
        let unit = std::fs::read_to_string(config(&format!("systemd/{name}")))?;
        for line in ["Restart=on-failure", "RestartPreventExitStatus=1 2 130", "KillMode=mixed", "NoNewPrivileges=yes"]
        {
            ensure!(unit.lines().any(|other| other == line), "{name} has no `{line}`");
        }
        // Who hides processes from each other has the living taken for dead.
        let hides =
            |line: &str| ["ProtectProc=", "ProcSubset=", "PrivatePIDs="].iter().any(|key| line.starts_with(key));
        ensure!(!unit.lines().any(hides), "{name} hides processes");
        // The program is elsewhere here, and systemd looks for it.
        let here = unit.replace("/usr/local/bin/crossfade", &binary().canonicalize()?.to_string_lossy());
        let words = if part == "serve" { "serve".to_owned() } else { format!("sync {part}") };
        ensure!(here.lines().any(|line| line.starts_with("ExecStart=/") && line.ends_with(&words)), "{name}");
        let file = folder.join(&name);
        std::fs::write(&file, here)?;
        let file = file.to_string_lossy().into_owned();
        let Some((code, said)) = ran("systemd-analyze", &["verify".to_owned(), file.clone()]).await? else { break };
        ensure!(code == Some(0) && !said.contains(&name), "{name}: {code:?} {said}");
        // 10 is a unit with no protection at all; `OK` begins below 5, and `SAFE` at 0.
        let asked = ["security", "--offline=yes", "--threshold=25", &file].map(str::to_owned);
        if let Some((code, said)) = ran("systemd-analyze", &asked).await? {
            ensure!(code == Some(0), "{name} is exposed: {said}");
        }
    }
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

#[tokio::test]
async fn the_script_is_one_that_shells_understand() -> Result<()> {
    let script = config("scripts/crossfade-pair").to_string_lossy().into_owned();
    let (code, said) = ran("bash", &["-n".to_owned(), script.clone()]).await?.context("crossfade-pair needs bash")?;
    ensure!(code == Some(0), "{said}");
    if let Some((code, said)) = ran("shellcheck", &[script]).await? {
        ensure!(code == Some(0), "{said}");
    }
    Ok(())
}

/// `crossfade-pair` for a migration.
struct Script<'m> {
    migration: &'m Migration,
    run: PathBuf,
}

impl Script<'_> {
    async fn run(&self, word: &str) -> Result<(Option<i32>, String)> {
        let (program, config_file) = (binary(), self.migration.config());
        let environment = [
            ("CROSSFADE", program.to_string_lossy()),
            ("CROSSFADE_CONFIG", config_file.to_string_lossy()),
            ("CROSSFADE_RUN", self.run.to_string_lossy()),
        ];
        let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, &**value)).collect();
        let script = config("scripts/crossfade-pair");
        let (code, output, errors) = process::run_any(&script, &[word], &environment, LIMIT).await?;
        Ok((code, format!("{output}{errors}")))
    }

    fn pid(&self, file: &str) -> Result<u32> {
        let path = self.run.join(file);
        let text = std::fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
        Ok(text.trim().parse()?)
    }

    /// Waits until another process than this one runs a part.
    async fn until_another(&self, part: &str, before: u32) -> Result<u32> {
        until("another process", LIMIT, || async {
            let now = self.pid(&format!("{part}.pid"))?;
            Ok(if now != before { Progress::Reached(now) } else { Progress::NotYet(now.to_string()) })
        })
        .await
    }

    fn log(&self, part: &str) -> String {
        std::fs::read_to_string(self.run.join(format!("{part}.log"))).unwrap_or_default()
    }
}

async fn the_script_keeps_the_pair(flavor: Flavor) -> Result<()> {
    let settings = "[http]\nlisten = \"127.0.0.1:0\"\n".to_owned();
    let migration = Migration::new(&Setup { settings, ..Setup::new(flavor, "script") }).await?;
    migration.on_both(&[TABLE]).await?;
    migration.init().await?;
    let script = Script { migration: &migration, run: migration.folder.join("run") };
    let ended = keeps(&script).await;
    // Whatever has come of it, nothing is left running.
    let (code, said) = script.run("stop").await?;
    ended?;
    ensure!(code == Some(0), "{code:?} {said}");
    for part in PARTS {
        ensure!(said.contains(&format!("{part} does not run")), "{said}");
        ensure!(script.pid(&format!("{part}.pid")).is_err(), "{part} has a process");
        ensure!(script.log(part).contains(&format!("{part} has ended with 0")), "{}", script.log(part));
    }
    migration.expect_lines(KILLED);
    migration.forget();
    Ok(())
}

async fn keeps(script: &Script<'_>) -> Result<()> {
    let migration = script.migration;
    let (code, said) = script.run("start").await?;
    ensure!(code == Some(0), "{code:?} {said}");
    migration.status().until_running(LIMIT).await?;
    let (code, said) = script.run("status").await?;
    ensure!(code == Some(0) && PARTS.iter().all(|part| said.contains(&format!("{part} runs"))), "{code:?} {said}");
    let (_, said) = script.run("start").await?;
    ensure!(PARTS.iter().all(|part| said.contains(&format!("{part} runs already"))), "{said}");
    migration.on(&migration.old, &["INSERT INTO {schema}.t (id, v) VALUES (1, 1)"]).await?;
    migration.until_quiet_and_equal(LIMIT).await?;

    // A process that is killed is started again, and goes on where it was.
    let before = script.pid("forward.pid")?;
    kill9(before).await?;
    script.until_another("forward", before).await?;
    migration.on(&migration.old, &["UPDATE {schema}.t SET v = 2"]).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    ensure!(script.log("forward").contains("forward has ended with 137"), "{}", script.log("forward"));

    // What the configuration lacks is for a person: it is not tried again and again.
    let good = std::fs::read(migration.config())?;
    let (keeper, before) = (script.pid("reverse.keeper")?, script.pid("reverse.pid")?);
    std::fs::write(migration.config(), "pair = \"script\"\nunknown = true\n")?;
    kill9(before).await?;
    until("a keeper that gives up", LIMIT, || async {
        let log = script.log("reverse");
        let gave_up = log.contains("reverse has ended with 2") && is_gone(keeper);
        Ok(if gave_up { Progress::Reached(()) } else { Progress::NotYet(log) })
    })
    .await?;
    std::fs::write(migration.config(), good)?;
    let (_, said) = script.run("status").await?;
    ensure!(said.contains("reverse does not run; its log ends: ") && said.contains("forward runs"), "{said}");
    let (code, said) = script.run("start").await?;
    ensure!(code == Some(0) && said.contains("reverse is started") && said.contains("forward runs already"), "{said}");
    migration.status().until_running(LIMIT).await?;

    // A keeper that is killed leaves its process running, which nobody takes for another one.
    let (keeper, kept) = (script.pid("serve.keeper")?, script.pid("serve.pid")?);
    kill9(keeper).await?;
    let (_, said) = script.run("start").await?;
    ensure!(said.contains("serve runs already") && script.pid("serve.pid")? == kept, "{said}");
    let (code, said) = script.run("stop").await?;
    ensure!(code == Some(0) && is_gone(kept), "{code:?} {said}");

    // And all of it once more.
    let (code, said) = script.run("start").await?;
    ensure!(code == Some(0), "{code:?} {said}");
    migration.on(&migration.new, &["UPDATE {schema}.t SET v = 3"]).await?;
    migration.status().until_running(LIMIT).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    Ok(())
}

/// Of a process that the script has started.
async fn kill9(pid: u32) -> Result<()> {
    let (code, output, errors) = process::run_any(Path::new("kill"), &["-9", &pid.to_string()], &[], LIMIT).await?;
    ensure!(code == Some(0), "{output}{errors}");
    until("the end of a process", Duration::from_secs(10), || async {
        Ok(if is_gone(pid) { Progress::Reached(()) } else { Progress::NotYet(pid.to_string()) })
    })
    .await
}

/// One whose parent has not asked for its exit code yet is gone, too.
fn is_gone(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
}

on_both_brands! {
    the_script_keeps_the_pair_running => the_script_keeps_the_pair,
}
