//! A side that refuses writes for a while: all of them, by `read_only`, or those of some accounts.

use std::time::Duration;

use crossfade_catalog::{Dialect, LockRights, Purpose, ReadOnlyRights, lock_rights, read_only_rights};
use crossfade_config::{AccountName, Fence, Settings};
use crossfade_model::Side;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::gate::FenceSeen;
use crate::side::{connect, connect_known, during, in_time};
use crate::{Change, ControlError, account};

/// Whether the fence that is configured can be put up for a change.
pub async fn fence_seen(settings: &Settings, change: Change) -> FenceSeen {
    let Some(side) = change.fences() else { return FenceSeen::FlagAlone };
    match settings.cutover.fence {
        Fence::Flag => FenceSeen::FlagAlone,
        Fence::ReadOnly => read_only_seen(settings, side).await,
        Fence::Account => match locks_on(settings, side).await {
            Ok(rights) => account::judge(settings, side, &rights),
            Err(error) => FenceSeen::Unknown(error.to_string()),
        },
    }
}

async fn locks_on(settings: &Settings, side: Side) -> Result<LockRights, ControlError> {
    let (mut conn, facts) = connect_known(settings, side).await?;
    let rights = in_time(side, lock_rights(&mut conn, facts.dialect())).await?;
    let rights = rights.map_err(|source| ControlError::Connect { side, source })?;
    let _ = conn.disconnect().await;
    Ok(rights)
}

async fn read_only_seen(settings: &Settings, side: Side) -> FenceSeen {
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
    let possible = || FenceSeen::Possible("the account may set the side read-only".to_owned());
    if !rights.may_set {
        let why = format!("{} may not set {side} read-only", rights.account);
        return FenceSeen::Impossible { why, remedy: rights.grant_to_set() };
    }
    // What must be written on the side while it refuses everybody else.
    let has_store = settings.side(side).urls().iter().any(|url| url.endpoint == settings.store_url().endpoint);
    let needed = match (has_store, settings.side(side).binlog_url.is_some()) {
        (true, _) => "the store is there, which is written all the time",
        (false, true) => "its binlog is read from a replica, whose position is told by a heartbeat",
        (false, false) => return possible(),
    };
    if rights.is_exempt {
        return possible();
    }
    let why = format!("{} may not write on {side} either while it is read-only, and {needed}", rights.account);
    FenceSeen::Impossible { why, remedy: rights.grant_to_write() }
}

/// What a side refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused<'r> {
    /// Every write but of those who may write to a read-only server.
    Writes,
    /// These accounts.
    Accounts(&'r [AccountName]),
}

impl<'r> Refused<'r> {
    /// `accounts`: as they were kept; none where all writes are refused.
    pub fn of(accounts: &'r [AccountName]) -> Refused<'r> {
        if accounts.is_empty() { Refused::Writes } else { Refused::Accounts(accounts) }
    }
}

/// Whether the side still refuses it: another pair's tool, a person, or a restart may have ended that.
pub(crate) async fn still_refuses(
    (conn, dialect): (&mut Conn, Dialect),
    side: Side,
    refused: Refused<'_>,
) -> Result<bool, ControlError> {
    match refused {
        Refused::Writes => {
            let asked = in_time(side, conn.query_first::<bool, _>("SELECT @@GLOBAL.read_only")).await?;
            Ok(asked.map_err(during(side, "tell whether it takes writes"))?.unwrap_or(false))
        }
        Refused::Accounts(accounts) => account::are_locked((conn, dialect), side, accounts).await,
    }
}

/// Held by the session that has a side refuse something, from before it looks whether that is still wanted: by this it is found,
/// and ended, whatever it is about to do. A pair's name may be as long as a lock's alone; MySQL has MD5() no more (9.6).
const GUARD: &str = "CONCAT('crossfade.refuse.', LEFT(SHA2(?, 224), 40))";
const GUARD_WITHIN_SECONDS: u64 = 2;

/// How long such a session is waited for after it was ended.
const GONE_WITHIN: Duration = Duration::from_secs(5);
const ASK_EVERY: Duration = Duration::from_millis(50);

/// From now on whoever lets the side take writes again ends this session first. What is to be refused must be looked at after this.
pub(crate) async fn guard(conn: &mut Conn, side: Side, pair: &str) -> Result<(), ControlError> {
    let question = format!("SELECT GET_LOCK({GUARD}, {GUARD_WITHIN_SECONDS})");
    let got: Result<Option<Option<i64>>, _> = in_time(side, conn.exec_first(question, (pair,))).await?;
    match got.map_err(during(side, "say who has it refuse writes"))?.flatten() {
        Some(1) => Ok(()),
        _ => Err(ControlError::Refused(format!("another session is about to change what {side} refuses"))),
    }
}

/// Has the side refuse writes. Commits that are under way end first; a transaction that has not got there by then cannot commit any
/// more. Fails after `limit` where something keeps the server from it.
pub(crate) async fn refuse_writes(conn: &mut Conn, side: Side, limit: Duration) -> Result<(), ControlError> {
    let during = || during(side, "be set read-only");
    let seconds = limit.as_secs().max(1);
    conn.query_drop(format!("SET SESSION lock_wait_timeout = {seconds}")).await.map_err(during())?;
    conn.query_drop("SET GLOBAL read_only = 1").await.map_err(during())
}

/// Lets the side take all of it again, whatever is still about to have it refused. Repeatable.
pub(crate) async fn take_writes(settings: &Settings, side: Side, refused: Refused<'_>) -> Result<(), ControlError> {
    let mut conn = connect(settings, side, Purpose::Catalog).await?;
    let none_refuses = async {
        while end_guarded(&mut conn, side, &settings.pair).await? {
            tokio::time::sleep(ASK_EVERY).await;
        }
        Ok::<(), ControlError>(())
    };
    tokio::time::timeout(GONE_WITHIN, none_refuses).await.map_err(|_| ControlError::Silent { side })??;
    match refused {
        Refused::Writes => {
            let set = in_time(side, conn.query_drop("SET GLOBAL read_only = 0")).await?;
            set.map_err(during(side, "be set writable again"))?;
        }
        Refused::Accounts(accounts) => account::unlock(&mut conn, side, accounts).await?,
    }
    let _ = conn.disconnect().await;
    Ok(())
}

/// Ends the session that has the guard; whether there was one. It has it until what it was about to do is over.
async fn end_guarded(conn: &mut Conn, side: Side, pair: &str) -> Result<bool, ControlError> {
    let question = format!("SELECT IS_USED_LOCK({GUARD})");
    let used: Result<Option<Option<u64>>, _> = in_time(side, conn.exec_first(question, (pair,))).await?;
    let Some(session) = used.map_err(during(side, "tell who has it refuse writes"))?.flatten() else {
        return Ok(false);
    };
    // One's own account's may be ended whatever its privileges (MySQL manual, "KILL Statement"). It may have ended by itself
    // meanwhile; the next look tells.
    let _ = in_time(side, conn.query_drop(format!("KILL {session}"))).await?;
    Ok(true)
}
