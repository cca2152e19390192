//! Where the rows of a table map go.

use std::sync::Arc;

use crossfade_model::{TableName, TableShape};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::decode::{DecodeError, Flavor, TableMap};
use crate::error::StopReason;
use crate::{Notice, SyncedTables};

pub(crate) const CROSSFADE: &str = "crossfade";
const CHECKPOINT: &str = "checkpoint";
const HEARTBEAT: &str = "heartbeat";
const RETURNED: &str = "returned";
const AUTHORITY: &str = "authority";
/// Table maps kept for comparison. A server gives a table a new id when it is opened again.
const CACHED_MAPS: usize = 4096;

/// What is done with the rows of a table.
#[derive(Debug, Clone)]
pub(crate) enum Route {
    Synced(Arc<TableMap>),
    /// This or another pair's `crossfade.checkpoint`, `crossfade.heartbeat`, `crossfade.returned`, `crossfade.authority`.
    Checkpoint(Arc<TableMap>),
    Heartbeat(Arc<TableMap>),
    Returned(Arc<TableMap>),
    Authority(Arc<TableMap>),
    /// Another table of schema `crossfade`.
    Crossfade,
    Other,
}

/// A table map event with what follows from it. Shared, since the map stands before every rows event.
#[derive(Debug)]
pub(crate) struct Routed {
    pub route: Route,
    /// The event's body, which is compared with that of the next map of the same id.
    pub body: Vec<u8>,
}

#[derive(Debug)]
pub(crate) enum RouteError {
    Decode(DecodeError),
    Stop(StopReason),
}

/// The table maps in force, by table id.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    maps: FxHashMap<u64, Arc<Routed>>,
    /// Unmapped columns that were reported.
    reported: FxHashSet<(TableName, Vec<String>)>,
    /// Definitions of crossfade's own tables, for binlogs without column names.
    pub own_shapes: Vec<Arc<TableShape>>,
}

impl Routes {
    pub fn get(&self, table_id: u64) -> Option<Arc<Routed>> {
        self.maps.get(&table_id).cloned()
    }

    /// Forgets all maps; the next rows come with maps of their own.
    pub fn clear(&mut self) {
        self.maps.clear();
    }

    /// Takes a table map event. Gives its route, and a notice if the table has columns that nobody was told of.
    pub fn learn(
        &mut self,
        body: &[u8],
        flavor: Flavor,
        folds_names: bool,
        tables: &SyncedTables,
    ) -> Result<(Arc<Routed>, Option<Notice>), RouteError> {
        let (table_id, schema, table) = TableMap::peek(body).map_err(RouteError::Decode)?;
        if let Some(known) = self.maps.get(&table_id)
            && known.body == body
        {
            return Ok((known.clone(), None));
        }
        let (route, notice) = self.route(body, (schema, table), flavor, folds_names, tables)?;
        if self.maps.len() >= CACHED_MAPS {
            self.maps.clear();
        }
        let routed = Arc::new(Routed { route, body: body.to_vec() });
        self.maps.insert(table_id, routed.clone());
        Ok((routed, notice))
    }

    fn route(
        &mut self,
        body: &[u8],
        (schema, table): (&str, &str),
        flavor: Flavor,
        folds_names: bool,
        tables: &SyncedTables,
    ) -> Result<(Route, Option<Notice>), RouteError> {
        if let Some((name, synced)) = tables.find(schema, table, folds_names) {
            let map = TableMap::parse(body, flavor, Some(&synced.shape)).map_err(RouteError::Decode)?;
            let columns = || map.layout.columns.iter().map(|column| &**column);
            let lost = synced.missing_columns(columns());
            if !lost.is_empty() {
                return Err(RouteError::Stop(StopReason::ColumnsLost { table: name.clone(), columns: lost }));
            }
            // What is computed has nothing to carry.
            let carried = columns().enumerate().filter(|(place, _)| !map.is_computed(*place)).map(|(_, column)| column);
            let unmapped = synced.unmapped_columns(carried);
            let notice = self.unmapped(name, unmapped);
            return Ok((Route::Synced(Arc::new(map)), notice));
        }
        let own = |map: TableMap| Arc::new(map);
        let route = match (schema, table) {
            (CROSSFADE, CHECKPOINT) => Route::Checkpoint(own(self.parse_own(body, flavor, CHECKPOINT)?)),
            (CROSSFADE, HEARTBEAT) => Route::Heartbeat(own(self.parse_own(body, flavor, HEARTBEAT)?)),
            (CROSSFADE, RETURNED) => Route::Returned(own(self.parse_own(body, flavor, RETURNED)?)),
            (CROSSFADE, AUTHORITY) => Route::Authority(own(self.parse_own(body, flavor, AUTHORITY)?)),
            (CROSSFADE, _) => Route::Crossfade,
            _ => Route::Other,
        };
        Ok((route, None))
    }

    fn parse_own(&self, body: &[u8], flavor: Flavor, table: &str) -> Result<TableMap, RouteError> {
        let shape = self.own_shapes.iter().find(|shape| &*shape.name.table == table);
        TableMap::parse(body, flavor, shape.map(Arc::as_ref)).map_err(RouteError::Decode)
    }

    /// A notice, the first time that these columns of a table are met.
    pub fn unmapped(&mut self, table: &TableName, columns: Vec<String>) -> Option<Notice> {
        if columns.is_empty() || !self.reported.insert((table.clone(), columns.clone())) {
            return None;
        }
        Some(Notice::UnmappedColumns { table: table.clone(), columns })
    }
}

/// The names of crossfade's own tables that are read.
pub(crate) fn own_tables() -> [TableName; 4] {
    [CHECKPOINT, HEARTBEAT, RETURNED, AUTHORITY].map(|table| TableName::new(CROSSFADE, table))
}
