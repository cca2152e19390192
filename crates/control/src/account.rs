//! Accounts that a side keeps out for a while.
//!
//! They are locked, and their sessions ended. Taking privileges away would not do: a session goes on with those of its schema until
//! it says `USE` again, and with global ones to its end (MySQL manual, "When Privilege Changes Take Effect"), so its end is needed
//! in any case; and what was granted stands in so many places that it might not be given back exactly. A lock changes none of it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crossfade_catalog::{Dialect, LockRights, known_accounts};
use crossfade_config::{AccountName, Settings};
use crossfade_model::Side;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};

use crate::ControlError;
use crate::gate::FenceSeen;
use crate::quiet::{ASK_EVERY, end_sessions, writing_sessions};
use crate::side::{during, in_time};
use crate::waits::Waits;

/// A session that has not yet said who it is.
const NOBODY_YET: &str = "unauthenticated user";

/// Whether all of them can be kept out, and let in again as they are.
pub(crate) fn judge(settings: &Settings, side: Side, rights: &LockRights) -> FenceSeen {
    let impossible = |why: String, remedy: String| FenceSeen::Impossible { why, remedy };
    if !rights.may_lock {
        return impossible(format!("{} may not lock accounts on {side}", rights.account), rights.grant_to_lock());
    }
    if !rights.may_end {
        let why = format!("{} may not end the sessions of others on {side}", rights.account);
        return impossible(why, rights.grant_to_end());
    }
    let Some(known) = &rights.known else {
        return impossible(format!("{} may not list the accounts of {side}", rights.account), rights.grant_to_list());
    };
    let wanted = &settings.cutover.accounts;
    for name in wanted {
        if name.user == rights.user {
            let why = format!("crossfade itself logs in on {side} as {}", rights.user);
            return impossible(why, "give the applications an account of their own, and name that".to_owned());
        }
        let found = known.iter().find(|known| known.user == name.user && known.host == name.host);
        match found {
            None => {
                let why = format!("there is no account {name} on {side}");
                return impossible(why, "name it in `[cutover] account` as the server does".to_owned());
            }
            Some(found) if found.is_role => {
                return impossible(format!("{name} is a role on {side}"), "name the accounts that have it".to_owned());
            }
            Some(found) if found.is_locked => {
                let why = format!("{name} is locked on {side} already");
                return impossible(why, format!("ALTER USER {} ACCOUNT UNLOCK there", quoted(name)));
            }
            Some(_) => {}
        }
        // A session shows its user, and not which account of that name it has.
        let twin = known.iter().find(|known| {
            known.user == name.user
                && !known.is_role
                && !wanted.iter().any(|wanted| wanted.user == known.user && wanted.host == known.host)
        });
        if let Some(twin) = twin {
            let (user, host) = (&twin.user, &twin.host);
            let why = format!("{side} has another account of that user, {user}@{host}, whose sessions look alike");
            return impossible(why, format!("name `{user}@{host}` in `[cutover] account`, too"));
        }
    }
    FenceSeen::Possible(format!("{} can be locked, and their sessions ended", listed(wanted)))
}

pub(crate) fn listed(accounts: &[AccountName]) -> String {
    accounts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Keeps them from logging in. Their sessions are not touched. Repeatable.
pub(crate) async fn lock(conn: &mut Conn, side: Side, accounts: &[AccountName]) -> Result<(), ControlError> {
    for account in accounts {
        let statement = format!("ALTER USER {} ACCOUNT LOCK", quoted(account));
        in_time(side, conn.query_drop(statement)).await?.map_err(during(side, "lock an account"))?;
    }
    Ok(())
}

/// Lets them log in again. Repeatable; of one that somebody has dropped meanwhile there is nothing to unlock.
pub(crate) async fn unlock(conn: &mut Conn, side: Side, accounts: &[AccountName]) -> Result<(), ControlError> {
    let mut ended = Ok(());
    for account in accounts {
        let statement = format!("ALTER USER IF EXISTS {} ACCOUNT UNLOCK", quoted(account));
        let unlocked = in_time(side, conn.query_drop(statement)).await?.map_err(during(side, "unlock an account"));
        // The others are not kept out for this one.
        ended = ended.and(unlocked);
    }
    ended
}

/// Whether all of them are still locked.
pub(crate) async fn are_locked(
    (conn, dialect): (&mut Conn, Dialect),
    side: Side,
    accounts: &[AccountName],
) -> Result<bool, ControlError> {
    let known = in_time(side, known_accounts(conn, dialect)).await?;
    let known = known.map_err(|source| ControlError::Connect { side, source })?.unwrap_or_default();
    Ok(accounts.iter().all(|account| {
        known.iter().any(|known| known.user == account.user && known.host == account.host && known.is_locked)
    }))
}

/// Ends the sessions of accounts that are locked: each when it has nothing under way, and those that write and do not commit so
/// long after the `fence`, if so wished. `conn` was opened after the accounts were locked: every later session was refused.
pub(crate) async fn until_gone(
    conn: &mut Conn,
    side: Side,
    accounts: &[AccountName],
    (fence, end_after): (Instant, Option<Duration>),
    waits: &Waits,
) -> Result<(), ControlError> {
    let own = u64::from(conn.id());
    let theirs = |session: &Session| accounts.iter().any(|account| account.user == session.user);
    loop {
        let mut left = sessions(conn, side).await?;
        left.retain(|session| session.id < own && (theirs(session) || session.user == NOBODY_YET));
        if left.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = left.iter().map(|session| session.id.to_string()).collect();
        waits.note(format!("sessions {} of {} on {side} had not ended", names.join(", "), listed(accounts)));
        let is_late = end_after.is_some_and(|after| fence.elapsed() >= after);
        // Asked behind the sessions: one that was idle then, and has begun to write since, is left alone.
        let writing = if is_late { BTreeSet::new() } else { writing_sessions(conn, side, waits).await? };
        let ends = |session: &&Session| is_late || (session.is_idle && !writing.contains(&session.id));
        let ended: Vec<u64> = left.iter().filter(|one| theirs(one)).filter(ends).map(|one| one.id).collect();
        end_sessions(conn, side, ended.into_iter()).await?;
        // A session that is ended is listed for a moment yet.
        tokio::time::sleep(ASK_EVERY).await;
    }
}

struct Session {
    id: u64,
    user: String,
    /// It waits for its next statement.
    is_idle: bool,
}

async fn sessions(conn: &mut Conn, side: Side) -> Result<Vec<Session>, ControlError> {
    let rows: Result<Vec<Row>, _> = in_time(side, conn.query("SHOW PROCESSLIST")).await?;
    let text = |row: &Row, column: &str| row.get_opt::<String, _>(column).and_then(Result::ok).unwrap_or_default();
    let session = |row: &Row| {
        Some(Session { id: row.get("Id")?, user: text(row, "User"), is_idle: text(row, "Command") == "Sleep" })
    };
    Ok(rows.map_err(during(side, "list its sessions"))?.iter().filter_map(session).collect())
}

/// As a statement names it. Names hold what they like, and no session of ours has NO_BACKSLASH_ESCAPES.
fn quoted(account: &AccountName) -> String {
    let quote = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"));
    format!("{}@{}", quote(&account.user), quote(&account.host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_named_whatever_its_name_holds() {
        let account = AccountName { user: "a'\\b".to_owned(), host: "10.%".to_owned() };
        assert_eq!(quoted(&account), "'a''\\\\b'@'10.%'");
        let parsed = AccountName::parse("app@ion@%").unwrap();
        assert_eq!((parsed.user.as_str(), parsed.host.as_str()), ("app@ion", "%"));
        assert_eq!(AccountName::parse("app").unwrap().to_string(), "app@%");
    }
}
