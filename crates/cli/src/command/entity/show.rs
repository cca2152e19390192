//! `crossfade entity show`.

use std::sync::Arc;

use crossfade_catalog::Purpose;
use crossfade_config::{EntitySettings, Settings};
use crossfade_message::EntityEvent;
use crossfade_model::Side;
use crossfade_verify::PickedCount;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::ShowArgs;
use super::late::{LateLine, late};
use super::list::EntityLine;
use super::rows::Rows;
use super::sight::Eyes;
use crate::command::{add_row, new_table, open_known_store, print_json, print_table};
use crate::failure::{Failure, Kind};
use crate::output::out;
use crate::pair::{Pair, connect_side};
use crate::sync::throttle;

#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    line: EntityLine,
    history: Vec<EventLine>,
    /// Its rows as they are now, those of either side.
    tables: Vec<PickedCount>,
    /// What users wrote where the other side had authority.
    late: Vec<LateLine>,
}

#[derive(Debug, Serialize)]
struct EventLine {
    state: &'static str,
    side: Option<Side>,
    version: u64,
    run: Option<u64>,
    batch: Option<u64>,
    reason: Option<String>,
    at: String,
}

impl From<EntityEvent> for EventLine {
    fn from(event: EntityEvent) -> EventLine {
        EventLine {
            state: event.state.as_str(),
            side: event.side,
            version: event.version,
            run: event.run,
            batch: event.batch,
            reason: event.reason,
            at: event.at.to_rfc3339(),
        }
    }
}

pub async fn run(
    settings: &Arc<Settings>,
    entity: &EntitySettings,
    args: &ShowArgs,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let store = open_known_store(settings).await?;
    let rest = store.rest_side().await?;
    let name = &entity.name;
    let known = store.entity(&args.id).await?.ok_or_else(|| {
        let message = format!("nothing is known of {name} {}; it is on {rest}, as all that are not known", args.id);
        Failure::new(Kind::Finding, message, "`crossfade entity add` makes it known")
    })?;
    let pair = Pair::read(settings.clone()).await?;
    let (throttle, _following_limits) = throttle::watch(settings, &store, &stop).await;
    let report = Eyes::new(&pair, entity, &store, throttle).compared(std::slice::from_ref(&args.id)).await?;
    let rows = Rows::new(&pair, entity);
    let mut conns = [
        connect_side(settings, Side::Old, Purpose::Catalog).await?,
        connect_side(settings, Side::New, Purpose::Catalog).await?,
    ];
    let shown = Shown {
        line: EntityLine::of(known, rest),
        history: store.entity_events(&args.id).await?.into_iter().map(EventLine::from).collect(),
        tables: report.tables,
        late: late(&store, &rows, &mut conns, &args.id).await?,
    };
    if args.output.json {
        return print_json(&shown);
    }
    print(name, &shown);
    Ok(())
}

fn print(name: &str, shown: &Shown) {
    let line = &shown.line;
    let fenced = if line.fenced { "; nobody writes it for the moment" } else { "" };
    out!("{name} {}: {}, users read and write it on {}{fenced}", line.entity, line.state, line.side);
    if let Some(reason) = &line.reason {
        out!("the last of {} attempts was undone: {reason}", line.attempts);
    }
    let mut table = new_table(&["since", "state", "side", "version", "run", "batch", "reason"]);
    let number = |number: Option<u64>| number.map_or("-".to_owned(), |number| number.to_string());
    for event in &shown.history {
        let side = event.side.map_or("-".to_owned(), |side| side.to_string());
        let reason = event.reason.clone().unwrap_or_default();
        let (run, batch) = (number(event.run), number(event.batch));
        add_row(&mut table, [&*event.at, event.state, &side, &event.version.to_string(), &run, &batch, &reason]);
    }
    print_table(&table);
    let mut table = new_table(&["table", "rows old", "rows new", "different", "unconfirmed"]);
    for count in &shown.tables {
        let numbers = [count.rows_old, count.rows_new, count.different, count.unconfirmed].map(|n| n.to_string());
        add_row(&mut table, std::iter::once(count.table.clone()).chain(numbers));
    }
    print_table(&table);
    if shown.late.is_empty() {
        return;
    }
    let mut table = new_table(&["written late", "message", "table", "change", "reason"]);
    for late in &shown.late {
        add_row(&mut table, [&*late.committed_at, &late.id, &late.table, late.op, &late.reason]);
    }
    print_table(&table);
}
