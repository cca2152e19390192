//! `crossfade retry` and `crossfade discard`: what becomes of messages that were set aside.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal, Write};
use std::sync::Arc;

use crossfade_config::Settings;
use crossfade_message::{FailureFilter, NewRequest, RequestEnd, RequestKind, Status, Store};
use crossfade_model::{Message, MessageId};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::asking::{Answer, ask};
use super::edit::edited;
use super::messages::{counted, table_name};
use super::show::{paint_all, print};
use super::{add_row, new_table, open_known_store, print_json, print_table};
use crate::args::{DiscardArgs, RetryArgs, Selection};
use crate::failure::{Failure, Kind};
use crate::output::out;
use crate::pair::Pair;
use crate::sync::runner;

/// Of so many discarded messages it is told whether the sides now differ in their rows.
const COMPARED: usize = 50;

/// How a message stands afterwards.
#[derive(Serialize)]
struct ResultLine {
    id: String,
    /// `None` where nobody has carried the request out.
    result: Option<Status>,
    error_code: Option<String>,
    text: Option<String>,
    /// Of a discarded message: the sides now differ in its row.
    #[serde(skip_serializing_if = "Option::is_none")]
    sides_differ: Option<bool>,
    #[serde(skip)]
    is_done: bool,
}

#[derive(Serialize)]
struct Results {
    results: Vec<ResultLine>,
    /// How many did not end as they were asked to.
    unfinished: usize,
}

pub async fn retry(settings: Arc<Settings>, args: &RetryArgs, stop: CancellationToken) -> anyhow::Result<u8> {
    let store = open_known_store(&settings).await?;
    let ids = match &args.edit {
        Some(id) => select(&store, &Selection { ids: vec![id.clone()], table: None, error: None, all: false }).await?,
        None => select(&store, &args.selection).await?,
    };
    let pair = Pair::read_as_is(settings).await?;
    refuse_strange(&pair, &args.selection, &ids)?;
    let mut requests: Vec<NewRequest> = ids
        .iter()
        .map(|id| NewRequest { id: id.clone(), kind: RequestKind::Retry, reason: None, edited: None })
        .collect();
    if let (Some(id), Some(request)) = (&args.edit, requests.first_mut()) {
        request.kind = RequestKind::Edit;
        request.edited = Some(edited(&pair, &store, id, &args.set, args.set_json.as_deref()).await?);
    }
    if args.dry_run {
        let proposed = requests.first().and_then(|request| request.edited.as_ref());
        return foresee(&store, &pair, (&ids, proposed), args.output.json).await;
    }
    let answers = ask(&pair, &store, &requests, &stop).await?;
    let lines: Vec<ResultLine> = answers.into_iter().map(|answer| ResultLine::of(answer, still_waits)).collect();
    let is_edited = lines.first().is_some_and(|line| line.result == Some(Status::Applied) && line.is_done);
    if let Some(id) = args.edit.as_ref().filter(|_| is_edited) {
        tell_way_back(&store, id).await?;
    }
    tell(lines, args.output.json)
}

pub async fn discard(settings: Arc<Settings>, args: &DiscardArgs, stop: CancellationToken) -> anyhow::Result<u8> {
    if args.reason.trim().is_empty() {
        let hint = "say in a few words why the change is given up";
        return Err(Failure::new(Kind::Usage, "`--reason` is empty", hint).into());
    }
    let store = open_known_store(&settings).await?;
    let ids = select(&store, &args.selection).await?;
    if args.selection.ids.is_empty() && !ids.is_empty() && !args.yes {
        confirm(ids.len())?;
    }
    let pair = Pair::read_as_is(settings).await?;
    refuse_strange(&pair, &args.selection, &ids)?;
    let request = |id: &MessageId| NewRequest {
        id: id.clone(),
        kind: RequestKind::Discard,
        reason: Some(args.reason.clone()),
        edited: None,
    };
    let requests: Vec<NewRequest> = ids.iter().map(request).collect();
    let answers = ask(&pair, &store, &requests, &stop).await?;
    let is_lost = |end: &RequestEnd| end.status != Status::Discarded;
    let mut lines: Vec<ResultLine> = answers.into_iter().map(|answer| ResultLine::of(answer, is_lost)).collect();
    let done: Vec<MessageId> =
        ids.iter().zip(&lines).filter(|(_, line)| line.is_done).map(|(id, _)| id.clone()).take(COMPARED).collect();
    let portraits = paint_all(&store, Ok(&pair), &done, None).await?;
    let differ: BTreeMap<String, bool> = portraits
        .into_iter()
        .filter(|portrait| portrait.rows.is_some())
        .map(|portrait| (portrait.listed.id.clone(), portrait.columns.iter().any(|line| line.differs)))
        .collect();
    for line in &mut lines {
        line.sides_differ = differ.get(&line.id).copied();
        if line.sides_differ == Some(true) {
            line.text = Some("the sides differ in its row, until somebody changes it on either side".to_owned());
        }
    }
    tell(lines, args.output.json)
}

/// Whether a message is still set aside.
fn still_waits(end: &RequestEnd) -> bool {
    matches!(end.status, Status::Failed | Status::Held)
}

impl ResultLine {
    fn of((id, end): Answer, is_unfinished: impl Fn(&RequestEnd) -> bool) -> ResultLine {
        let is_done = end.as_ref().is_some_and(|end| !end.came_too_late && !is_unfinished(end));
        let opposite = id.stream.direction().opposite();
        let (result, error_code, text) = match end {
            Some(RequestEnd { status: Status::Held, text, .. }) => {
                let why = text.unwrap_or_default();
                (Some(Status::Held), None, Some(format!("{why}: run `crossfade sync {opposite}`")))
            }
            Some(end) => (Some(end.status), end.error_code, end.text),
            None => (None, None, Some("not carried out".to_owned())),
        };
        ResultLine { id: id.to_string(), result, error_code, text, sides_differ: None, is_done }
    }
}

fn tell(results: Vec<ResultLine>, json: bool) -> anyhow::Result<u8> {
    let unfinished = results.iter().filter(|line| !line.is_done).count();
    let code = u8::from(unfinished > 0);
    if json {
        print_json(&Results { results, unfinished })?;
        return Ok(code);
    }
    if results.is_empty() {
        eprintln!(
            "nothing is set aside as failed that matches; what is held is named by `--id`: `crossfade messages list --status held`"
        );
        return Ok(code);
    }
    let mut table = new_table(&["message", "result", "error", "why"]);
    for line in &results {
        add_row(
            &mut table,
            [
                line.id.clone(),
                line.result.map_or("-", Status::as_str).to_owned(),
                line.error_code.clone().unwrap_or_else(|| "-".to_owned()),
                line.text.clone().unwrap_or_default(),
            ],
        );
    }
    print_table(&table);
    eprintln!("{}, {unfinished} not done", counted(results.len()));
    if results.iter().any(|line| line.result == Some(Status::Failed)) {
        eprintln!(
            "`crossfade messages show <message>` tells what is in the way; mend that and try again, or `crossfade retry --edit`, or \
             `crossfade discard`"
        );
    }
    Ok(code)
}

/// `--dry-run`: what is known beforehand.
async fn foresee(
    store: &Store,
    pair: &Pair,
    (ids, proposed): (&[MessageId], Option<&Message>),
    json: bool,
) -> anyhow::Result<u8> {
    let portraits = paint_all(store, Ok(pair), ids, proposed).await?;
    if json {
        print_json(&portraits)?;
        return Ok(0);
    }
    for portrait in &portraits {
        print(portrait, false);
        out!("");
    }
    eprintln!("{} would be tried; nothing was changed", counted(portraits.len()));
    Ok(0)
}

/// The messages that are meant, in order.
///
/// # Errors
///
/// One that is named does not exist, or its turn has not come.
async fn select(store: &Store, selection: &Selection) -> anyhow::Result<Vec<MessageId>> {
    if selection.ids.is_empty() {
        let table = selection.table.as_deref().map(table_name).transpose()?;
        let filter = FailureFilter { table, error_code: selection.error.clone(), ..FailureFilter::default() };
        let mut failures = store.list_failures(&filter, u32::MAX as usize).await?;
        failures.sort_by(|a, b| (&a.stream, a.seq).cmp(&(&b.stream, b.seq)));
        return Ok(failures.iter().map(|failure| failure.id.parse()).collect::<Result<_, _>>()?);
    }
    let ids: BTreeSet<MessageId> = selection.ids.iter().cloned().collect();
    let mut problems = Vec::new();
    for id in &ids {
        match store.show_message(id).await? {
            Some(message) if message.status == Status::Pending => {
                problems.push(format!(
                    "{id} has not been tried yet: it is its turn when those before it have been applied"
                ));
            }
            // One that ended a moment ago, by itself, is as good as done.
            Some(_) => {}
            None => problems.push(format!("there is no message {id}")),
        }
    }
    if problems.is_empty() {
        return Ok(ids.into_iter().collect());
    }
    let hint = "`crossfade messages list --status failed` and `--status held` show what is set aside";
    Err(Failure::new(Kind::Finding, problems.join("\n  "), hint).into())
}

/// Where nothing matches, the table's name may be a wrong one. One that is not synced any more may still have messages.
fn refuse_strange(pair: &Pair, selection: &Selection, ids: &[MessageId]) -> anyhow::Result<()> {
    let Some(table) = selection.table.as_deref().map(table_name).transpose()? else { return Ok(()) };
    if ids.is_empty() && pair.synced(&table).is_none() { Err(pair.not_synced(&table).into()) } else { Ok(()) }
}

/// Asks a person before many messages are given up.
fn confirm(messages: usize) -> anyhow::Result<()> {
    let refused = |message: String, hint: &str| Err(Failure::new(Kind::Usage, message, hint).into());
    if !std::io::stdin().is_terminal() {
        return refused(format!("this would discard {}", counted(messages)), "add --yes if that is what you want");
    }
    eprint!("discard {}, never to be applied? [y/N] ", counted(messages));
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => refused("nothing was discarded".to_owned(), ""),
    }
}

/// What goes back to the side where the change was made needs the other direction.
async fn tell_way_back(store: &Store, id: &MessageId) -> anyhow::Result<()> {
    let back = id.stream.direction().opposite();
    let runs = runner(store, back).await?.is_some();
    if store.wish(back).await?.is_none_or(|wish| !wish.declared) {
        eprintln!("{back} is declared off: what goes back to {} waits until it is started", back.target());
    } else if !runs {
        eprintln!("{back} does not run: what goes back to {} waits for its process", back.target());
    }
    Ok(())
}
