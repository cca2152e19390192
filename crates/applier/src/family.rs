//! Conflicts between a parent and its children: one side deletes a row while the other gives it a child.
//!
//! Before a row is deleted, rows that refer to it are looked for, whatever the foreign key would do to them, and where they
//! go with it, rows that refer to those: the row is locked first, so nobody can give it another child meanwhile. Children
//! that the deleting side knew of go with it. A child that a concurrent change wrote is a conflict. Then either the delete
//! loses and the parent returns to the side that deleted it, as a change of the opposite stream; or the children go. That
//! they do is told to the side that has given them, or where they may still arrive: the parent may be there again.
//!
//! A row that leaves its key ends there in the same sense: then the change of the key loses as a whole (see [`crate::undone`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crossfade_model::{Message, Origin, ReferentialAction, Row, RowChange, RowOp, Seen, TableLayout, Value};
use crossfade_rules::LastConcurrent;
use crossfade_rules::decide::{Loss, LossReason};
use crossfade_rules::mapping::ChildLink;
use crossfade_rules::plan::Dependence;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::error::ApplyError;
use crate::followers;
use crate::hold::Waited;
use crate::lane::Shared;
use crate::lookup::{Lookup, Subject};
use crate::session;

/// What was ruled over changes of a lane beside who wins, by message.
pub(crate) type Rulings = BTreeMap<u64, Ruling>;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ruling {
    /// The end of a row, or of its reference to one, loses: the row goes back to the side that ended it.
    Returns(Loss),
    /// A change of a row's key, or a change of a row that stands where such a one has brought it, is undone where it was
    /// made.
    Undone(Loss),
    /// A child whose parent is gone for good goes as well.
    Goes(Loss),
    /// A child whose parent is gone for good refers to nothing in these columns.
    LetsGo(Vec<usize>),
}

impl Ruling {
    /// The same over a change that may be one of a row's key: a row that cannot come stays where it was.
    pub fn over(self, moves: bool) -> Ruling {
        match self {
            Ruling::Goes(loss) if moves => Ruling::Undone(loss),
            ruling => ruling,
        }
    }

    /// The image with the key of the row that it is about, where that is one.
    pub fn row_of<'r>(&self, before: Option<&'r Row>, after: Option<&'r Row>) -> Option<&'r Row> {
        match self {
            Ruling::Undone(_) => None,
            Ruling::Returns(_) | Ruling::Goes(_) | Ruling::LetsGo(_) => after.or(before),
        }
    }
}

/// A row that is to be deleted, or to leave its key.
pub(crate) struct Ending<'a> {
    pub before: &'a Row,
    /// What it becomes under its new key.
    pub moves_to: Option<&'a Row>,
    /// What the one who ended it had seen.
    pub seen: &'a Seen,
    /// Its side had authority over the row.
    pub outranks: bool,
}

pub(crate) enum Endings {
    /// Nobody has given one of the rows a child.
    Undisputed,
    /// The opposite reader did not get there in time.
    NotCaptured,
    /// So far nobody can tell of these rows, by their place in the list.
    Undecided(Vec<usize>),
    /// Rows, by their place in the list, that got a child by a concurrent change.
    Disputed {
        losses: Vec<(usize, Loss)>,
        /// Those that got one only where the other side had authority: it goes with its parent.
        outranking: Vec<usize>,
    },
}

/// What a child lacks its parent for.
pub(crate) enum Orphan {
    NotCaptured,
    /// Not because of a concurrent change.
    Unexplained,
    Ruled(Ruling),
}

/// Looks for children of rows that are to be deleted, or that move, which stay locked. Without `hold_limit` nobody is waited
/// for.
pub(crate) async fn judge_endings(
    shared: &Shared,
    conn: &mut Conn,
    table: usize,
    endings: &[Ending<'_>],
    moves: bool,
    hold_limit: Option<Duration>,
) -> Result<Endings, ApplyError> {
    if shared.children[table].is_empty() || endings.is_empty() {
        return Ok(Endings::Undisputed);
    }
    let target = &shared.tables[table];
    let keys: Vec<Vec<&Value>> = endings.iter().map(|ending| target.key_of(ending.before)).collect();
    target.lock_and_tell(conn, &keys).await?;
    let befores: Vec<&Row> = endings.iter().map(|ending| ending.before).collect();
    let children = hanging_on(shared, conn, table, &befores, moves).await?;
    if children.is_empty() {
        return Ok(Endings::Undisputed);
    }
    let Some(hold_limit) = hold_limit else {
        let mut undecided: Vec<usize> = children.iter().map(|(parent, ..)| *parent).collect();
        undecided.sort_unstable();
        undecided.dedup();
        return Ok(Endings::Undecided(undecided));
    };
    if !shared.hold.captured_under_locks(conn, hold_limit).await?.is_enough() {
        return Ok(Endings::NotCaptured);
    }
    let mut lookup = session::while_alive(conn, shared.lookup.lock()).await?;
    lookup.refresh().await?;
    let mut losses: Vec<(usize, Loss)> = Vec::new();
    let mut outranking = BTreeSet::new();
    for (parent, child_table, child) in &children {
        if losses.iter().any(|(known, _)| known == parent) {
            continue;
        }
        let given = given(shared, &mut lookup, conn, (*child_table, child), endings[*parent].seen).await?;
        let Some(given) = given else { continue };
        // A child hangs on the entity of its parent.
        if endings[*parent].outranks && shared.entities.tables.table(*child_table).is_some() {
            outranking.insert(*parent);
        } else {
            losses.push((*parent, lost_to(given.seq, LossReason::ChildGiven)));
        }
    }
    outranking.retain(|parent| losses.iter().all(|(known, _)| known != parent));
    if losses.is_empty() && outranking.is_empty() {
        return Ok(Endings::Undisputed);
    }
    Ok(Endings::Disputed { losses, outranking: outranking.into_iter().collect() })
}

fn lost_to(winner: u64, reason: LossReason) -> Loss {
    Loss { winner, reason }
}

/// Rows of the child table that refer to one of these parents, locked.
pub(crate) async fn children_by(
    shared: &Shared,
    conn: &mut Conn,
    link: &ChildLink,
    parents: &[&Row],
) -> Result<Vec<Row>, mysql_async::Error> {
    let referred: Vec<Vec<&Value>> = parents
        .iter()
        .map(|parent| link.referred.iter().map(|column| &parent[*column]).collect::<Vec<_>>())
        .filter(|values| values.iter().all(|value| !value.is_null()))
        .collect();
    shared.tables[link.child].lock_where(conn, &link.columns, &referred).await
}

/// Whether some row refers to this one, which need not be there itself. What is found is locked.
pub(crate) async fn has_children(
    shared: &Shared,
    conn: &mut Conn,
    table: usize,
    parent: &Row,
) -> Result<bool, mysql_async::Error> {
    for link in &shared.children[table] {
        if !children_by(shared, conn, link, &[parent]).await?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The last change by which users of the target have written a row concurrently.
pub(crate) async fn given(
    shared: &Shared,
    lookup: &mut Lookup,
    conn: &mut Conn,
    (table, row): (usize, &Row),
    seen: &Seen,
) -> Result<Option<LastConcurrent>, ApplyError> {
    let (mapping, target) = (&shared.mappings[table], &shared.tables[table]);
    let key = target.key_of(row);
    let subject = Subject { mapping, key: &key, seen };
    Ok(lookup.last_concurrent(&subject, target, conn).await?.filter(|given| given.op != RowOp::Delete))
}

/// Rows that refer to one of these parents, each with its parent's place in the list; and those that refer to what is
/// deleted with a parent.
async fn hanging_on(
    shared: &Shared,
    conn: &mut Conn,
    table: usize,
    parents: &[&Row],
    moves: bool,
) -> Result<Vec<(usize, usize, Row)>, ApplyError> {
    let (mut found, mut known) = (Vec::new(), BTreeSet::new());
    let rows: Vec<(usize, Row)> = parents.iter().map(|row| (*row).clone()).enumerate().collect();
    let mut generation = BTreeMap::from([(table, rows)]);
    while !generation.is_empty() {
        let mut next: BTreeMap<usize, Vec<(usize, Row)>> = BTreeMap::new();
        for (table, rows) in &generation {
            let parents: Vec<&Row> = rows.iter().map(|(_, row)| row).collect();
            for link in &shared.children[*table] {
                for child in children_by(shared, conn, link, &parents).await? {
                    let Some(parent) = parent_of(shared, *table, link, &parents, &child) else { continue };
                    let place = rows[parent].0;
                    let goes_along = !moves && link.on_delete == ReferentialAction::Cascade;
                    if goes_along && known.insert((place, link.child, shared.exact_key(link.child, &child))) {
                        next.entry(link.child).or_default().push((place, child.clone()));
                    }
                    found.push((place, link.child, child));
                }
            }
        }
        generation = next;
    }
    Ok(found)
}

/// Which of the parents a child refers to, as the planner compares values.
fn parent_of(shared: &Shared, table: usize, link: &ChildLink, parents: &[&Row], child: &Row) -> Option<usize> {
    let wanted = shared.planner.dependence(link.child, Some(child), None);
    parents.iter().position(|parent| {
        let given_up = shared.planner.dependence(table, Some(parent), None);
        given_up.given_up().iter().any(|token| wanted.parents().contains(token))
    })
}

/// A child was refused since its parent is not there: has somebody deleted that concurrently?
pub(crate) async fn judge_orphan(
    shared: &Shared,
    conn: &mut Conn,
    table: usize,
    (after, seen): (&Row, &Seen),
    hold_limit: Duration,
) -> Result<Orphan, ApplyError> {
    for (parent, link) in links_of(shared, table) {
        let (mapping, target) = (&shared.mappings[parent], &shared.tables[parent]);
        let values: Vec<&Value> = link.columns.iter().map(|column| &after[*column]).collect();
        // Only by its row key is a deleted parent found in the opposite stream.
        if values.iter().any(|value| value.is_null()) || link.referred != mapping.row_key {
            continue;
        }
        if !target.lock_where(conn, &link.referred, std::slice::from_ref(&values)).await?.is_empty() {
            continue;
        }
        if !shared.hold.captured_under_locks(conn, hold_limit).await?.is_enough() {
            return Ok(Orphan::NotCaptured);
        }
        let mut lookup = session::while_alive(conn, shared.lookup.lock()).await?;
        lookup.refresh().await?;
        let subject = Subject { mapping, key: &values, seen };
        if let Some(ended) = lookup.last_concurrent(&subject, target, conn).await?
            && ended.op == RowOp::Delete
        {
            return Ok(Orphan::Ruled(match link.on_delete {
                ReferentialAction::SetNull => Ruling::LetsGo(link.columns.clone()),
                _ => Ruling::Goes(lost_to(ended.seq, LossReason::ParentEnded)),
            }));
        }
    }
    Ok(Orphan::Unexplained)
}

fn links_of(shared: &Shared, child: usize) -> impl Iterator<Item = (usize, &ChildLink)> {
    let of_parent = shared.children.iter().enumerate();
    of_parent.flat_map(move |(parent, links)| {
        links.iter().filter(move |link| link.child == child).map(move |link| (parent, link))
    })
}

/// Deletes what hangs on a row that is to be deleted, or to leave its key, the youngest generation first, and lets go what
/// merely refers to nothing from then on. The side that ended the row is told of what it had not seen, and of what hangs on
/// that: it may have got these rows since, and their parent again.
///
/// Where the row moves, what that side knew has followed it there, perhaps without a word in the binlog, and follows it here.
pub(crate) async fn end_children(
    shared: &Shared,
    conn: &mut Conn,
    table: usize,
    ending: &Ending<'_>,
) -> Result<(), ApplyError> {
    let moves = ending.moves_to.is_some();
    let mut there = match ending.moves_to {
        Some(after) => followers::that_left_their_keys(shared, conn, table, (ending.before, after)).await?,
        None => BTreeMap::new(),
    };
    let (mut family, mut let_go) = (Vec::new(), Vec::new());
    let mut known = BTreeSet::from([(table, shared.exact_key(table, ending.before))]);
    let mut generation = vec![(table, ending.before.clone(), false)];
    let mut is_first = true;
    while !generation.is_empty() {
        let mut next = Vec::new();
        for (parent_table, row, is_news) in &generation {
            for link in &shared.children[*parent_table] {
                for child in children_by(shared, conn, link, &[row]).await? {
                    let mut lookup = session::while_alive(conn, shared.lookup.lock()).await?;
                    let is_news = *is_news
                        || given(shared, &mut lookup, conn, (link.child, &child), ending.seen).await?.is_some();
                    drop(lookup);
                    let follows = moves && is_first && link.on_update != ReferentialAction::Restrict;
                    if follows && !is_news {
                        continue;
                    }
                    if link.on_delete == ReferentialAction::SetNull {
                        let_go.push((link, child, is_news));
                    } else if known.insert((link.child, shared.exact_key(link.child, &child))) {
                        next.push((link.child, child, is_news));
                    }
                }
            }
        }
        family.extend(next.iter().cloned());
        (generation, is_first) = (next, false);
    }
    let mut told = Vec::new();
    for (link, child, is_news) in let_go {
        let target = &shared.tables[link.child];
        let nothing = link.columns.iter().map(|column| (*column, Value::Null)).collect();
        target.change(conn, &target.key_of(&child), &nothing).await?;
        let mut after = child.clone();
        link.columns.iter().for_each(|column| after[*column] = Value::Null);
        if is_news {
            told.push(change(&shared.layouts[link.child], RowOp::Update, Some(child), Some(after)));
        }
    }
    for (table, row, is_news) in family.into_iter().rev() {
        let target = &shared.tables[table];
        target.delete(conn, &[target.key_of(&row)]).await?;
        if is_news {
            let followed = there.remove(&(table, shared.exact_key(table, &row)));
            let ends = [Some(row), followed].into_iter().flatten();
            told.extend(ends.map(|row| change(&shared.layouts[table], RowOp::Delete, Some(row), None)));
        }
    }
    send_back(shared, conn, &numbered(told, Origin::Ruled)).await
}

/// Deletes a row whose parent is gone, and what hangs on it, and tells so the side that has given it that parent: the parent
/// may come back, or may not be gone there. `false`: the row was not there, and nothing keeps others from inserting it.
pub(crate) async fn end_orphan(shared: &Shared, conn: &mut Conn, table: usize, row: &Row) -> Result<bool, ApplyError> {
    let goes = |link: &ChildLink| link.on_delete != ReferentialAction::SetNull;
    let mut family = vec![(table, row.clone())];
    family.extend(descendants(shared, conn, table, &[row], goes).await?);
    let (mut told, mut was_there) = (Vec::new(), true);
    for (table, row) in family.into_iter().rev() {
        let target = &shared.tables[table];
        // The row itself is the last one.
        was_there = target.delete(conn, &[target.key_of(&row)]).await?;
        told.push(change(&shared.layouts[table], RowOp::Delete, Some(row), None));
    }
    send_back(shared, conn, &numbered(told, Origin::Ruled)).await?;
    Ok(was_there)
}

/// A row that is to return.
pub(crate) struct Returning<'a> {
    pub key: Vec<&'a Value>,
    /// What the one who ended it had seen.
    pub seen: &'a Seen,
    /// Without it nobody is waited for.
    pub hold_limit: Option<Duration>,
}

/// Sends a row back to the side that ended it, and with it all that would have cascaded from its end, parents first. `false`:
/// it was not there, and nothing keeps others from inserting it; `None`: the opposite reader did not get there in time.
///
/// A row of which that side had seen everything is only given back. In any other is something that it has not seen, which counts
/// as what it is.
pub(crate) async fn return_rows(
    shared: &Shared,
    conn: &mut Conn,
    table: usize,
    returning: Returning<'_>,
) -> Result<Option<bool>, ApplyError> {
    let target = &shared.tables[table];
    let rows = target.lock_where(conn, target.key(), std::slice::from_ref(&returning.key)).await?;
    if rows.is_empty() {
        return Ok(Some(false));
    }
    let mut family = cascading(shared, conn, table, &rows).await?;
    family.splice(0..0, rows.into_iter().map(|row| (table, row)));
    let family = family.into_iter().map(GivenBack::whole).collect();
    Ok(give_back(shared, conn, family, (returning.seen, returning.hold_limit)).await?.then_some(true))
}

/// Sends back what would have cascaded from a row's end, but not the row. `false`: the opposite reader did not get there in time.
pub(crate) async fn return_children(
    shared: &Shared,
    conn: &mut Conn,
    table: usize,
    returning: Returning<'_>,
) -> Result<bool, ApplyError> {
    let target = &shared.tables[table];
    let rows = target.lock_where(conn, target.key(), std::slice::from_ref(&returning.key)).await?;
    let children: Vec<GivenBack> =
        cascading(shared, conn, table, &rows).await?.into_iter().map(GivenBack::whole).collect();
    Ok(children.is_empty() || give_back(shared, conn, children, (returning.seen, returning.hold_limit)).await?)
}

/// A row as it is here, which goes back to the side that has lost it or has it otherwise.
pub(crate) struct GivenBack {
    pub table: usize,
    pub row: Row,
    /// As it is on that side.
    pub there: Option<Row>,
}

impl GivenBack {
    pub fn whole((table, row): (usize, Row)) -> GivenBack {
        GivenBack { table, row, there: None }
    }
}

pub(crate) async fn cascading(
    shared: &Shared,
    conn: &mut Conn,
    table: usize,
    rows: &[Row],
) -> Result<Vec<(usize, Row)>, ApplyError> {
    let parents: Vec<&Row> = rows.iter().collect();
    descendants(shared, conn, table, &parents, |link| link.on_delete != ReferentialAction::Restrict).await
}

/// `false`: the opposite reader did not get there in time.
pub(crate) async fn give_back(
    shared: &Shared,
    conn: &mut Conn,
    rows: Vec<GivenBack>,
    (seen, hold_limit): (&Seen, Option<Duration>),
) -> Result<bool, ApplyError> {
    let is_known = match hold_limit {
        Some(limit) => match shared.hold.captured_under_locks(conn, limit).await? {
            Waited::TooLong => return Ok(false),
            waited => waited == Waited::Captured,
        },
        None => false,
    };
    let mut lookup = session::while_alive(conn, shared.lookup.lock()).await?;
    lookup.refresh().await?;
    let (mut returned, mut origins) = (Vec::new(), Vec::new());
    for GivenBack { table, row, there } in rows {
        let (mapping, target) = (&shared.mappings[table], &shared.tables[table]);
        let key = target.key_of(&row);
        let subject = Subject { mapping, key: &key, seen };
        let unseen = lookup.last_concurrent(&subject, target, conn).await?;
        let is_given_back = is_known && unseen.is_none_or(|last| last.returned);
        origins.push(if is_given_back { Origin::Returned } else { Origin::Ruled });
        let op = if there.is_some() { RowOp::Update } else { RowOp::Insert };
        returned.push(change(&shared.layouts[table], op, there, Some(row)));
    }
    drop(lookup);
    let mut messages = numbered(returned, Origin::Returned);
    messages.iter_mut().zip(origins).for_each(|(message, origin)| message.origin = origin);
    send_back(shared, conn, &messages).await?;
    Ok(true)
}

/// Has changes captured by the opposite stream, at the place of this transaction in the target's binlog.
pub(crate) async fn send_back(shared: &Shared, conn: &mut Conn, messages: &[Message]) -> Result<(), ApplyError> {
    if messages.is_empty() {
        return Ok(());
    }
    shared.hold.note_sent_back();
    let opposite = crate::opposite_stream(&shared.owner.stream);
    let token = rand::random::<u64>() >> 1;
    shared.store.keep_returned(&opposite, token, messages).await?;
    conn.exec_drop(
        "DELETE FROM crossfade.returned WHERE pair = ? AND written_at < UTC_TIMESTAMP(6) - INTERVAL 1 DAY",
        (&shared.owner.pair,),
    )
    .await?;
    conn.exec_drop(
        "INSERT INTO crossfade.returned (pair, stream, token, written_at) VALUES (?, ?, ?, UTC_TIMESTAMP(6))",
        (&shared.owner.pair, opposite.as_str(), token),
    )
    .await?;
    Ok(())
}

/// Whether there is a mark of something that went back lately.
pub(crate) async fn has_sent_back(shared: &Shared, conn: &mut Conn) -> Result<bool, ApplyError> {
    let opposite = crate::opposite_stream(&shared.owner.stream);
    let question = "SELECT 1 FROM crossfade.returned WHERE pair = ? AND stream = ? LIMIT 1";
    let mark: Option<u8> = conn.exec_first(question, (&shared.owner.pair, opposite.as_str())).await?;
    Ok(mark.is_some())
}

/// Rows that refer to these rows, and rows that refer to those, as far as `follows`; each generation after its parents.
pub(crate) async fn descendants(
    shared: &Shared,
    conn: &mut Conn,
    table: usize,
    parents: &[&Row],
    follows: impl Fn(&ChildLink) -> bool,
) -> Result<Vec<(usize, Row)>, ApplyError> {
    let mut found: Vec<(usize, Row)> = Vec::new();
    let mut known: BTreeSet<(usize, u64)> = BTreeSet::new();
    let mut generation: Vec<(usize, Row)> = parents.iter().map(|row| (table, (*row).clone())).collect();
    for (table, row) in &generation {
        known.insert((*table, shared.exact_key(*table, row)));
    }
    while !generation.is_empty() {
        let mut next = Vec::new();
        for (parent_table, row) in &generation {
            for link in shared.children[*parent_table].iter().filter(|link| follows(link)) {
                for child in children_by(shared, conn, link, &[row]).await? {
                    if known.insert((link.child, shared.exact_key(link.child, &child))) {
                        next.push((link.child, child));
                    }
                }
            }
        }
        found.extend(next.iter().cloned());
        generation = next;
    }
    Ok(found)
}

/// What goes when a row is deleted.
pub(crate) async fn going_along(
    shared: &Shared,
    conn: &mut Conn,
    table: usize,
    row: &Row,
) -> Result<Vec<(usize, Row)>, ApplyError> {
    descendants(shared, conn, table, &[row], |link| link.on_delete == ReferentialAction::Cascade).await
}

/// What the ends of these rows tie to others.
pub(crate) fn dependence_of(shared: &Shared, ended: &[(usize, Row)]) -> Dependence {
    let of_row = |(table, row): &(usize, Row)| shared.planner.dependence(*table, Some(row), None);
    ended.iter().map(of_row).fold(Dependence::default(), |all, one| all.and(&one))
}

pub(crate) fn change(layout: &Arc<TableLayout>, op: RowOp, before: Option<Row>, after: Option<Row>) -> RowChange {
    RowChange { layout: layout.clone(), op, before, after, event_index: 0 }
}

/// Only the changes themselves and their origin count; the rest is filled in where they are captured.
pub(crate) fn numbered(changes: Vec<RowChange>, origin: Origin) -> Vec<Message> {
    let message = |(change, seq)| Message {
        seq,
        change,
        origin,
        seen: Arc::default(),
        committed_at_micros: 0,
        source_position: "".into(),
        effective: None,
    };
    changes.into_iter().zip(1..).map(message).collect()
}
