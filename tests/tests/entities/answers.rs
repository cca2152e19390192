//! What is answered about an entity, step by step.

use std::time::Duration;

use anyhow::{Result, ensure};
use crossfade_tests::{Flavor, Served, on_both_brands};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::stage::{LIMIT, entity, setup, staged};

/// Code and body.
async fn ask(served: &Served, path: &str) -> Result<(u16, Value)> {
    let address = &served.address;
    let mut connection = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((code, serde_json::from_str(body).unwrap_or_default()))
}

async fn each_step_is_told(flavor: Flavor) -> Result<()> {
    let mut migration = staged(&setup(flavor, "answers", "fence_timeout = \"20s\""), 3).await?;
    let served = Served::start(&migration).await?;
    let one = async |served: &Served| -> Result<(String, u64, bool, u64)> {
        let (code, told) = ask(served, "/v1/entities/1").await?;
        ensure!(code == 200 && told["pair"] == migration.pair.as_str() && told["entity"] == "1", "{told:#}");
        let number = |field: &str| told[field].as_u64().unwrap_or(u64::MAX);
        let side = told["side"].as_str().unwrap_or_default().to_owned();
        Ok((side, number("version"), told["fenced"] == true, number("valid_for_ms")))
    };
    let unknown = one(&served).await?;
    ensure!(unknown == ("old".to_owned(), 0, false, 400), "one that nobody knows is where all are: {unknown:?}");
    let steps = [
        ("entity-copying", ("old", false, 400)),
        ("entity-verified", ("old", false, 40)),
        ("entity-fenced", ("old", true, 0)),
        ("entity-decided", ("new", true, 0)),
        ("entity-lifted", ("new", false, 400)),
    ];
    // There, frozen at one point, and back again.
    for (point, wanted) in &steps {
        let freeze = format!("{point}:1:stop");
        let mut tool = migration.tool(point, &["entity", "move", "1"], &[("CROSSFADE_FAILPOINT", &freeze)])?;
        tool.until_frozen(LIMIT).await?;
        let told = one(&served).await?;
        let (version, is_fenced) = (told.1, told.2);
        ensure!((&*told.0, told.2, told.3) == *wanted, "at {point}: {told:?}, not {wanted:?}");
        let path = format!("/v1/entities/1?after={version}&wait=30s");
        let waiting = ask(&served, &path);
        let resuming = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            tool.resume()?;
            let status = tool.wait(LIMIT).await?;
            ensure!(status.success(), "{status}\n{}", tool.log_end());
            Ok(())
        };
        if is_fenced {
            let (told, resumed) = tokio::join!(waiting, resuming);
            resumed?;
            let (code, told) = told?;
            ensure!(code == 200 && told["version"].as_u64() > Some(version), "{code} {told:#}");
        } else {
            resuming.await?;
        }
        ensure!(one(&served).await?.0 == "new");
        entity(&migration, &["return", "1"], 0).await?;
        ensure!(one(&served).await?.0 == "old");
    }
    let (code, told) = ask(&served, "/v1/entities/1?wait=5").await?;
    ensure!(code == 400 && told["error"].as_str().is_some_and(|error| error.contains("`wait`")), "{code} {told:#}");
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.stop_both().await
}

on_both_brands! {
    p9_each_step_is_told => each_step_is_told,
}
