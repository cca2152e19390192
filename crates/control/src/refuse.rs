//! A side that refuses writes for a while: `read_only`.

use std::time::Duration;

use crossfade_catalog::{Purpose, ReadOnlyRights, read_only_rights};
use crossfade_config::{Fence, Settings};
use crossfade_model::Side;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};

use crate::gate::FenceSeen;
use crate::side::{connect, connect_known, during, in_time};
use crate::{Change, ControlError};

/// Whether the fence that is configured can be put up for a change.
pub async fn fence_seen(settings: &Settings, change: Change) -> FenceSeen {
    let Some(side) = change.fences().filter(|_| settings.cutover.fence == Fence::ReadOnly) else {
        return FenceSeen::FlagAlone;
    };
    let impossible = |why: &str, remedy: &str| FenceSeen::Impossible { why: why.to_owned(), remedy: remedy.to_owned() };
    if settings.side(side).urls().len() > 1 {
        let why =
            format!("the {side} side has several servers, and `read_only` is how the one that takes writes is known");
        return impossible(&why, "set `fence = \"flag\"` in `[cutover]`");
    }
    match rights_on(settings, side).await {
        Ok((true, _)) => impossible(
            &format!("the {side} side is read-only already"),
            &format!("SET GLOBAL read_only = 0 there: users write to {side} as long as the phase says so"),
        ),
        Ok((false, rights)) => judge(settings, side, &rights),
        Err(error) => FenceSeen::Unknown(error.to_string()),
    }
}

async fn rights_on(settings: &Settings, side: Side) -> Result<(bool, ReadOnlyRights), ControlError> {
    let (mut conn, facts) = connect_known(settings, side).await?;
    let rights = in_time(side, read_only_rights(&mut conn, facts.dialect())).await?;
    let rights = rights.map_err(|source| ControlError::Connect { side, source })?;
    let _ = conn.disconnect().await;
    Ok((facts.read_only, rights))
}

fn judge(settings: &Settings, side: Side, rights: &ReadOnlyRights) -> FenceSeen {
    if !rights.may_set {
        let why = format!("{} may not set {side} read-only", rights.account);
        return FenceSeen::Impossible { why, remedy: rights.grant_to_set() };
    }
    // What must be written on the side while it refuses everybody else.
    let has_store = settings.side(side).urls().iter().any(|url| url.endpoint == settings.store_url().endpoint);
    let needed = match (has_store, settings.side(side).binlog_url.is_some()) {
        (true, _) => "the store is there, which is written all the time",
        (false, true) => "its binlog is read from a replica, whose position is told by a heartbeat",
        (false, false) => return FenceSeen::Possible,
    };
    if rights.is_exempt {
        return FenceSeen::Possible;
    }
    let why = format!("{} may not write on {side} either while it is read-only, and {needed}", rights.account);
    FenceSeen::Impossible { why, remedy: rights.grant_to_write() }
}

/// Whether the side still refuses writes: another pair's tool, a person, or a restart may have let it take them again.
pub(crate) async fn still_refuses(conn: &mut Conn, side: Side) -> Result<bool, ControlError> {
    let asked = in_time(side, conn.query_first::<bool, _>("SELECT @@GLOBAL.read_only")).await?;
    Ok(asked.map_err(during(side, "tell whether it takes writes"))?.unwrap_or(false))
}

/// A statement of this text may be under way in the session of a tool that has died.
const SET: &str = "SET GLOBAL read_only = 1 /* crossfade */";

/// How long such a session is waited for after it was ended.
const GONE_WITHIN: Duration = Duration::from_secs(5);
const ASK_EVERY: Duration = Duration::from_millis(50);

/// Has the side refuse writes. Commits that are under way end first; a transaction that has not got there by then cannot commit any
/// more. Fails after `limit` where something keeps the server from it.
pub(crate) async fn refuse_writes(conn: &mut Conn, side: Side, limit: Duration) -> Result<(), ControlError> {
    let during = || during(side, "be set read-only");
    let seconds = limit.as_secs().max(1);
    conn.query_drop(format!("SET SESSION lock_wait_timeout = {seconds}")).await.map_err(during())?;
    conn.query_drop(SET).await.map_err(during())
}

/// Lets the side take writes again, whatever is still about to make it refuse them. Repeatable.
pub async fn take_writes(settings: &Settings, side: Side) -> Result<(), ControlError> {
    let mut conn = connect(settings, side, Purpose::Catalog).await?;
    let none_sets = async {
        while end_setting(&mut conn, side).await? {
            tokio::time::sleep(ASK_EVERY).await;
        }
        Ok::<(), ControlError>(())
    };
    tokio::time::timeout(GONE_WITHIN, none_sets).await.map_err(|_| ControlError::Silent { side })??;
    let set = in_time(side, conn.query_drop("SET GLOBAL read_only = 0")).await?;
    set.map_err(during(side, "be set writable again"))?;
    let _ = conn.disconnect().await;
    Ok(())
}

/// Ends sessions that are about to set the side read-only; whether there were any.
async fn end_setting(conn: &mut Conn, side: Side) -> Result<bool, ControlError> {
    // Sessions of one's own account are listed, and may be ended, whatever its privileges (MySQL manual, "KILL Statement").
    let rows: Result<Vec<Row>, _> = in_time(side, conn.query("SHOW FULL PROCESSLIST")).await?;
    let rows = rows.map_err(during(side, "list its sessions"))?;
    let sets = |row: &Row| row.get_opt::<String, _>("Info").and_then(Result::ok).is_some_and(|text| text == SET);
    let sessions: Vec<u64> = rows.iter().filter(|row| sets(row)).filter_map(|row| row.get(0)).collect();
    for session in &sessions {
        // It may have ended by itself meanwhile; the next look tells.
        let _ = in_time(side, conn.query_drop(format!("KILL {session}"))).await?;
    }
    Ok(!sessions.is_empty())
}
