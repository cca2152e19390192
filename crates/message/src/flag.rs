//! The read-write flag, and the application instances that follow it.
//!
//! Each change is a compare-and-set of the flag's version, so of two who change it at once one learns that he was late. A fence
//! says that users write nowhere for a moment. It has an end by the store's clock: whoever reads the flag after that lifts it by a
//! new version, and what would have followed under the fence finds that version and does not happen.
//!
//! A group of tables has a flag and instances of its own: see [`Store::of_group`]. It is on the side that it has been moved to while
//! both sides are written; before and after that its phase is the pair's. Its version rises with each change of either. Where the
//! pair is when a group becomes known, there its users are already.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, Utc};
use crossfade_model::{Phase, Side};
use serde::Serialize;
use sqlx::Row;
use sqlx::mysql::MySqlRow;

use crate::lease::micros;
use crate::stream::utc;
use crate::{Store, StoreError};

/// What applications are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Flag {
    /// 0 before it was ever changed.
    pub version: u64,
    pub phase: Phase,
    /// Users write nowhere.
    pub fenced: bool,
}

/// An instance of an application that follows the flag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FlagInstance {
    pub instance: String,
    /// Nothing is written by an earlier version any more.
    pub version: u64,
    pub expires_at: DateTime<Utc>,
    /// By the store's clock, as all of it: until it is not waited for any more, if it is not heard again.
    pub expires_in_ms: u64,
}

const READ: &str = "read the flag";
const CHANGE: &str = "change the flag";

impl Store {
    /// Lifts a fence that is over.
    pub async fn flag(&self) -> Result<Flag, StoreError> {
        let lifted = "UPDATE flag_state SET version = version + 1, fenced_until = NULL, changed_at = UTC_TIMESTAMP(6)
             WHERE pair = ? AND fenced_until <= UTC_TIMESTAMP(6)";
        let row = self.flag_row().await?;
        let Some((flag, is_over)) = row else { return Ok(Flag { version: 0, phase: Phase::OldOnly, fenced: false }) };
        if !is_over {
            return Ok(flag);
        }
        let lifting = sqlx::query(lifted).bind(&*self.flag_key).execute(&self.pool).await;
        if lifting.map_err(StoreError::during(CHANGE))?.rows_affected() > 0 {
            let of = self.group().map_or(String::new(), |group| format!(" of {group}"));
            let text = format!("the fence{of} was over before the flag was changed; users write as before");
            self.journal("flag", &text).await?;
        }
        let row = self.flag_row().await?;
        Ok(row.map_or(flag, |(flag, _)| flag))
    }

    /// The flag, and whether its fence is over and not lifted.
    async fn flag_row(&self) -> Result<Option<(Flag, bool)>, StoreError> {
        let rows = sqlx::query(
            "SELECT pair, version, flag, fenced_until IS NOT NULL AS fenced,
               COALESCE(fenced_until <= UTC_TIMESTAMP(6), FALSE) AS is_over FROM flag_state WHERE pair IN (?, ?)",
        )
        .bind(&*self.pair)
        .bind(&*self.flag_key)
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::during(READ))?;
        let (mut whole, mut own) = (None, None);
        for row in &rows {
            let (key, flag, is_over) = one_flag(row)?;
            let place = if key == *self.pair { &mut whole } else { &mut own };
            *place = Some((flag, is_over));
        }
        if self.group().is_none() || (whole.is_none() && own.is_none()) {
            return Ok(whole);
        }
        let unset = Flag { version: 0, phase: Phase::OldOnly, fenced: false };
        let whole = whole.map_or(unset, |(flag, _)| flag);
        let unmoved = Flag { version: 0, phase: moved_to(whole.phase), fenced: false };
        let (own, is_over) = own.unwrap_or((unmoved, false));
        Ok(Some((flag_of_group(whole, own), is_over)))
    }

    /// Changes the flag if it still has the version `from`; `fence`: users write nowhere for so long at most. `None`: it has
    /// another version, or its fence was over, and nothing happened.
    pub async fn change_flag(
        &self,
        from: u64,
        phase: Phase,
        fence: Option<Duration>,
    ) -> Result<Option<Flag>, StoreError> {
        let during = || StoreError::during(CHANGE);
        self.begin_flag(from).await?;
        // A group's version is the sum, so that a change of the pair's flag comes before this one, too. And nobody is taken back to
        // `old_only` with a group that is on new, or may be about to go there. Both hold until this is committed: what an UPDATE of
        // several tables has read stays locked.
        let change = "UPDATE flag_state AS own
               LEFT JOIN flag_state AS whole ON whole.pair = ? AND whole.pair <> own.pair
               LEFT JOIN flag_state AS moved ON ? = 0 AND moved.pair > CONCAT(own.pair, '/') AND moved.pair < CONCAT(own.pair, '0')
                 AND (moved.flag = 2 OR moved.fenced_until IS NOT NULL)
             SET own.version = own.version + 1, own.flag = ?,
               own.fenced_until = UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND, own.changed_at = UTC_TIMESTAMP(6)
             WHERE own.pair = ? AND own.version + COALESCE(whole.version, 0) = ? AND moved.pair IS NULL
               AND (own.fenced_until IS NULL OR own.fenced_until > UTC_TIMESTAMP(6))";
        let changed = sqlx::query(change)
            .bind(&*self.pair)
            .bind(phase.flag())
            .bind(phase.flag())
            .bind(fence.map(micros))
            .bind(&*self.flag_key)
            .bind(from)
            .execute(&self.pool)
            .await
            .map_err(during())?;
        let flag = Flag { version: from + 1, phase, fenced: fence.is_some() };
        Ok((changed.rows_affected() > 0).then_some(flag))
    }

    /// Makes the row that is changed from `version` where that may not be there. Of two who make it, the second one changes nothing.
    async fn begin_flag(&self, version: u64) -> Result<(), StoreError> {
        if version > 0 && self.group().is_none() {
            return Ok(());
        }
        // A group begins where the pair is: `moved_to`.
        sqlx::query(
            "INSERT INTO flag_state (pair, version, flag, changed_at)
             SELECT one.pair, 0, IF(one.is_group, IF(COALESCE(whole.flag, 0) >= 2, 2, 1), 0), UTC_TIMESTAMP(6)
             FROM (SELECT CAST(? AS CHAR(64)) AS pair, ? AS is_group) AS one LEFT JOIN flag_state AS whole ON whole.pair = ?
             ON DUPLICATE KEY UPDATE flag_state.pair = VALUES(pair)",
        )
        .bind(&*self.flag_key)
        .bind(self.group().is_some())
        .bind(&*self.pair)
        .execute(&self.pool)
        .await
        .map_err(StoreError::during(CHANGE))?;
        Ok(())
    }

    /// Makes groups known: from then on they stay where they are when the pair's users change sides. Others of which nobody has
    /// ever heard are not known any more; those stay that are [forgotten](Store::forgotten_groups).
    pub async fn know_groups(&self, groups: &BTreeSet<&str>) -> Result<(), StoreError> {
        let known = self.groups().await?;
        for group in groups.iter().filter(|group| !known.contains(**group)) {
            self.of_group(Some(group)).begin_flag(0).await?;
        }
        let phase = moved_to(self.of_group(None).flag().await?.phase);
        for group in known.iter().filter(|group| !groups.contains(group.as_str())) {
            let store = self.of_group(Some(group));
            if !store.flag_instances().await?.is_empty() {
                continue;
            }
            // Named again, it has no version that was told before with something else.
            sqlx::query("DELETE FROM flag_state WHERE pair = ? AND version = 0 AND flag = ? AND fenced_until IS NULL")
                .bind(&*store.flag_key)
                .bind(phase.flag())
                .execute(&self.pool)
                .await
                .map_err(StoreError::during(CHANGE))?;
        }
        Ok(())
    }

    /// Groups that are known and not among these, and of which somebody may have heard: they were moved, are elsewhere than the
    /// pair, or have instances.
    pub async fn forgotten_groups(&self, groups: &BTreeSet<&str>) -> Result<Vec<String>, StoreError> {
        let whole = self.of_group(None).flag().await?;
        let mut forgotten = Vec::new();
        for group in self.groups().await?.into_iter().filter(|group| !groups.contains(group.as_str())) {
            let store = self.of_group(Some(&group));
            let flag = store.flag().await?;
            let is_as_before = flag.version == whole.version && flag.phase == whole.phase && !flag.fenced;
            if !is_as_before || !store.flag_instances().await?.is_empty() {
                forgotten.push(group);
            }
        }
        Ok(forgotten)
    }

    /// All groups that are known.
    pub async fn groups(&self) -> Result<BTreeSet<String>, StoreError> {
        let keys: Vec<String> =
            sqlx::query_scalar("SELECT pair FROM flag_state WHERE pair > CONCAT(?, '/') AND pair < CONCAT(?, '0')")
                .bind(&*self.pair)
                .bind(&*self.pair)
                .fetch_all(&self.pool)
                .await
                .map_err(StoreError::during(READ))?;
        Ok(keys.iter().filter_map(|key| key.split_once('/')).map(|(_, group)| group.to_owned()).collect())
    }

    /// Takes over a flag that the store does not know any more, since it was restored to an older state: the phase as it was told,
    /// without a fence, in the version after it. `None`: the store has a version as late; or it is a group's, whose phase is the
    /// pair's, which was not taken over.
    pub async fn adopt_flag(&self, later: &Flag) -> Result<Option<Flag>, StoreError> {
        let (whole, phase) = match self.group() {
            None => (0, later.phase),
            // The rest of it is the pair's, whose flag comes first.
            Some(_) => (self.of_group(None).flag().await?.version, moved_to(later.phase)),
        };
        let adopted = sqlx::query(
            "INSERT INTO flag_state (pair, version, flag, changed_at) VALUES (?, ?, ?, UTC_TIMESTAMP(6))
             ON DUPLICATE KEY UPDATE
               flag = IF(version < VALUES(version), VALUES(flag), flag),
               fenced_until = IF(version < VALUES(version), NULL, fenced_until),
               changed_at = IF(version < VALUES(version), VALUES(changed_at), changed_at),
               version = GREATEST(version, VALUES(version))",
        )
        .bind(&*self.flag_key)
        .bind((later.version + 1).saturating_sub(whole))
        .bind(phase.flag())
        .execute(&self.pool)
        .await
        .map_err(StoreError::during(CHANGE))?;
        let now = self.flag().await?;
        let is_later = now.version > later.version && now.phase == later.phase && !now.fenced;
        Ok((adopted.rows_affected() > 0 && is_later).then_some(now))
    }

    /// An instance tells that it writes by `version`, or a later one, and no earlier one any more; it stops by itself if it is
    /// not heard for `ttl`. Makes it known where it was not. A version that goes back is what it was told: the store may be
    /// restored.
    pub async fn acknowledge_flag(&self, instance: &str, version: u64, ttl: Duration) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO flag_instance (pair, instance, version, expires_at, registered_at)
             VALUES (?, ?, ?, UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND, UTC_TIMESTAMP(6))
             ON DUPLICATE KEY UPDATE version = VALUES(version), expires_at = VALUES(expires_at)",
        )
        .bind(&*self.flag_key)
        .bind(instance)
        .bind(version)
        .bind(micros(ttl))
        .execute(&self.pool)
        .await
        .map_err(StoreError::during("keep what an instance has acknowledged"))?;
        Ok(())
    }

    /// An instance has ended, and writes no more. Without effect where it is not known.
    pub async fn forget_instance(&self, instance: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM flag_instance WHERE pair = ? AND instance = ?")
            .bind(&*self.flag_key)
            .bind(instance)
            .execute(&self.pool)
            .await
            .map_err(StoreError::during("forget an instance"))?;
        Ok(())
    }

    /// The instances whose time is not over, by name.
    pub async fn flag_instances(&self) -> Result<Vec<FlagInstance>, StoreError> {
        let during = || StoreError::during("read who follows the flag");
        let rows = sqlx::query(
            "SELECT instance, version, expires_at,
               CAST(TIMESTAMPDIFF(MICROSECOND, UTC_TIMESTAMP(6), expires_at) DIV 1000 AS UNSIGNED) AS expires_in_ms
             FROM flag_instance WHERE pair = ? AND expires_at > UTC_TIMESTAMP(6) ORDER BY instance",
        )
        .bind(&*self.flag_key)
        .fetch_all(&self.pool)
        .await
        .map_err(during())?;
        let read = |row: &MySqlRow| -> Result<FlagInstance, sqlx::Error> {
            Ok(FlagInstance {
                instance: row.try_get("instance")?,
                version: row.try_get("version")?,
                expires_at: utc(row.try_get::<NaiveDateTime, _>("expires_at")?),
                expires_in_ms: row.try_get("expires_in_ms")?,
            })
        };
        rows.iter().map(read).collect::<Result<_, _>>().map_err(during())
    }
}

/// A row of the table: its key, and whether its fence is over.
fn one_flag(row: &MySqlRow) -> Result<(String, Flag, bool), StoreError> {
    let read = |row: &MySqlRow| -> Result<(String, u64, u8, i64, i64), sqlx::Error> {
        let (fenced, is_over) = (row.try_get("fenced")?, row.try_get("is_over")?);
        Ok((row.try_get("pair")?, row.try_get("version")?, row.try_get("flag")?, fenced, is_over))
    };
    let (key, version, value, fenced, is_over) = read(row).map_err(StoreError::during(READ))?;
    let unknown = || StoreError::Unreadable { what: "flag", reason: format!("{value} is none of its values") };
    let phase = Phase::from_flag(value).ok_or_else(unknown)?;
    Ok((key, Flag { version, phase, fenced: fenced != 0 }, is_over != 0))
}

/// What applications of a group are told: by the pair's flag, and where the group has been moved to.
fn flag_of_group(whole: Flag, own: Flag) -> Flag {
    let phase = match whole.phase {
        Phase::OldOnly | Phase::NewOnly => whole.phase,
        Phase::WriteBoth | Phase::ReadNew => own.phase,
    };
    Flag { version: whole.version + own.version, phase, fenced: own.fenced }
}

/// Where a group has been moved to that has this phase.
fn moved_to(phase: Phase) -> Phase {
    if phase.writes_to() == Side::New { Phase::ReadNew } else { Phase::WriteBoth }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHASES: [Phase; 4] = [Phase::OldOnly, Phase::WriteBoth, Phase::ReadNew, Phase::NewOnly];

    fn flag(version: u64, phase: Phase) -> Flag {
        Flag { version, phase, fenced: false }
    }

    #[test]
    fn a_group_is_where_it_was_moved_to_while_both_sides_are_written() {
        for own in [Phase::WriteBoth, Phase::ReadNew] {
            let told = PHASES.map(|whole| flag_of_group(flag(5, whole), flag(2, own)).phase);
            assert_eq!(told, [Phase::OldOnly, own, own, Phase::NewOnly]);
        }
        // Taken over from what was told, it is told the same.
        for whole in PHASES {
            for own in [Phase::WriteBoth, Phase::ReadNew] {
                let told = flag_of_group(flag(5, whole), flag(2, own));
                assert_eq!(flag_of_group(flag(5, whole), flag(3, moved_to(told.phase))).phase, told.phase);
            }
        }
    }

    #[test]
    fn a_change_of_either_is_a_later_version_and_a_fence_is_the_groups_own() {
        let before = flag_of_group(flag(5, Phase::WriteBoth), flag(2, Phase::WriteBoth));
        let fenced = Flag { fenced: true, ..flag(6, Phase::WriteBoth) };
        let of_pair = flag_of_group(fenced, flag(2, Phase::WriteBoth));
        assert_eq!(of_pair, Flag { version: before.version + 1, ..before });
        let own = flag_of_group(flag(5, Phase::WriteBoth), Flag { fenced: true, ..flag(3, Phase::WriteBoth) });
        assert!(own.version == before.version + 1 && own.fenced);
    }
}
