//! What both processes of a pair derive from the configuration and from the two sides' table definitions.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context;
use crossfade_binlog::SyncedTables;
use crossfade_catalog::{Purpose, ServerFacts, Servers, SupportLevel, entity_rules, table_rule, table_shapes};
use crossfade_config::{Settings, TablePattern};
use crossfade_control::gate::group::Crossing;
use crossfade_model::{Direction, Side, StreamId, TableName, TableShape};
use crossfade_rules::authority::{EntityProblem, hash_with};
use crossfade_rules::mapping::rules_hash;
use crossfade_rules::{EntityTables, MappingProblem, TableMapping, TableRule};
use mysql_async::Conn;

use crate::failure::{Failure, Kind};

/// How a table's mapping is made of its definitions.
type Build = fn(Direction, &TableRule, &TableShape, &TableShape) -> Result<TableMapping, Vec<MappingProblem>>;

/// Both sides as they are now, and how they map.
pub struct Pair {
    pub settings: Arc<Settings>,
    pub old: SideView,
    pub new: SideView,
    pub rules: Vec<TableRule>,
    /// Both processes must have the same.
    pub rules_hash: u64,
    forward: Vec<TableMapping>,
    reverse: Vec<TableMapping>,
    forward_entities: Arc<EntityTables>,
    reverse_entities: Arc<EntityTables>,
}

/// One side's server and its synced tables.
pub struct SideView {
    pub facts: ServerFacts,
    pub shapes: BTreeMap<TableName, Arc<TableShape>>,
}

impl Pair {
    /// Connects to both sides and reads their definitions.
    pub async fn read(settings: Arc<Settings>) -> anyhow::Result<Pair> {
        Pair::read_by(settings, TableMapping::build).await
    }

    /// A synced table, by either side's name.
    pub fn synced(&self, name: &TableName) -> Option<&TableMapping> {
        self.mappings(Direction::Forward).iter().find(|mapping| mapping.source == *name || mapping.target == *name)
    }

    /// The group of each synced table, by its name on a side.
    pub fn groups(&self, side: Side) -> BTreeMap<TableName, Option<String>> {
        let existing: Vec<TableName> = self.old.shapes.keys().cloned().collect();
        let selected = self.settings.select(&existing);
        let named = selected.into_iter().map(|table| {
            let name = if side == Side::Old { table.old } else { table.new };
            (name, table.settings.group.clone())
        });
        named.collect()
    }

    /// References between synced tables that are not in the same group.
    pub fn crossings(&self) -> Vec<Crossing> {
        let mut crossings = Vec::new();
        for side in [Side::Old, Side::New] {
            let groups = self.groups(side);
            for (child, child_group) in &groups {
                let keys = self.side(side).shapes.get(child).map(|shape| shape.foreign_keys.as_slice());
                for key in keys.unwrap_or_default() {
                    let Some(parent_group) = groups.get(&key.parent).filter(|group| *group != child_group) else {
                        continue;
                    };
                    let (child_group, parent_group) = (child_group.clone(), parent_group.clone());
                    let crossing =
                        Crossing { child: child.clone(), parent: key.parent.clone(), child_group, parent_group };
                    if !crossings.contains(&crossing) {
                        crossings.push(crossing);
                    }
                }
            }
        }
        crossings
    }

    /// Somebody has named another.
    pub fn not_synced(&self, name: &TableName) -> Failure {
        let names: Vec<String> =
            self.mappings(Direction::Forward).iter().map(|mapping| mapping.source.to_string()).collect();
        Failure::new(Kind::Usage, format!("{name} is not synced"), format!("synced tables: {}", names.join(", ")))
    }

    /// As [`Pair::read`], also where a column has become too short on one side: for mending what was refused for that.
    pub async fn read_as_is(settings: Arc<Settings>) -> anyhow::Result<Pair> {
        Pair::read_by(settings, TableMapping::build_as_is).await
    }

    async fn read_by(settings: Arc<Settings>, build: Build) -> anyhow::Result<Pair> {
        let old_patterns = settings.old_patterns();
        let (old, new) = tokio::try_join!(SideView::read(&settings, Side::Old, &old_patterns), async {
            let new_patterns: Vec<TablePattern> = settings.tables.iter().map(|entry| entry.new.clone()).collect();
            SideView::read(&settings, Side::New, &new_patterns).await
        },)?;
        refuse_mixed(&old.facts, &new.facts)?;
        let rules = rules(&settings, &old);
        let (forward, reverse) = mappings(&rules, &old, &new, build)?;
        let entity_rules = entity_rules(&settings);
        let entities = |mappings: &[TableMapping]| EntityTables::build(&entity_rules, mappings).map_err(not_found);
        let (forward_entities, reverse_entities) = (entities(&forward)?.into(), entities(&reverse)?.into());
        let rules_hash = rules_hash(&rules, settings.conflict.prefer, settings.conflict.fk_conflict);
        let rules_hash = hash_with(rules_hash, &entity_rules);
        Ok(Pair { settings, old, new, rules, rules_hash, forward, reverse, forward_entities, reverse_entities })
    }

    pub fn side(&self, side: Side) -> &SideView {
        match side {
            Side::Old => &self.old,
            Side::New => &self.new,
        }
    }

    pub fn mappings(&self, direction: Direction) -> &[TableMapping] {
        match direction {
            Direction::Forward => &self.forward,
            Direction::Reverse => &self.reverse,
        }
    }

    /// How entities are found among a direction's mappings.
    pub fn entities(&self, direction: Direction) -> &Arc<EntityTables> {
        match direction {
            Direction::Forward => &self.forward_entities,
            Direction::Reverse => &self.reverse_entities,
        }
    }

    /// The target's definitions, one for each of a direction's mappings.
    pub fn target_shapes(&self, direction: Direction) -> Vec<Arc<TableShape>> {
        let shapes = &self.side(direction.target()).shapes;
        self.mappings(direction).iter().filter_map(|mapping| shapes.get(&mapping.target).cloned()).collect()
    }

    /// What a direction's reader must look at.
    pub fn synced_tables(&self, direction: Direction) -> SyncedTables {
        let mut tables = SyncedTables::new();
        for mapping in self.mappings(direction) {
            if let Some(shape) = self.side(direction.source()).shapes.get(&mapping.source) {
                let mapped = mapping.columns.iter().map(|column| column.source.clone()).collect();
                tables.insert(shape.clone(), mapped);
            }
        }
        tables
    }
}

/// The stream of a direction. A side is one node here, named after the side.
pub fn stream_of(direction: Direction) -> StreamId {
    StreamId::new(direction, direction.source().as_str())
}

impl SideView {
    async fn read(settings: &Settings, side: Side, patterns: &[TablePattern]) -> anyhow::Result<SideView> {
        let (mut conn, facts) = open_side(settings, side).await?;
        let shapes = table_shapes(&mut conn, patterns).await.with_context(|| format!("cannot read the {side} side"))?;
        Ok(SideView { facts, shapes: shapes.into_iter().map(|shape| (shape.name.clone(), Arc::new(shape))).collect() })
    }
}

/// Opens a connection to the server of a side that takes writes, naming the side in the error.
pub async fn connect_side(settings: &Settings, side: Side, purpose: Purpose) -> anyhow::Result<Conn> {
    let servers = Servers::new(settings.side(side).urls());
    servers.connect(purpose).await.with_context(|| format!("the {side} side cannot be reached"))
}

/// Opens a connection for questions to a side, and refuses servers that are too old.
pub async fn open_side(settings: &Settings, side: Side) -> anyhow::Result<(Conn, ServerFacts)> {
    let mut conn = connect_side(settings, side, Purpose::Catalog).await?;
    let facts = ServerFacts::read(&mut conn).await.with_context(|| format!("cannot read the {side} side"))?;
    if facts.support_level() == SupportLevel::Refused {
        let version = format!("{} {}", facts.flavor(), facts.version.text);
        let message = format!("the {side} side is {version}, which crossfade does not work with");
        return Err(Failure::new(Kind::Usage, message, crossfade_catalog::SUPPORTED_VERSIONS).into());
    }
    Ok((conn, facts))
}

pub fn refuse_mixed(old: &ServerFacts, new: &ServerFacts) -> anyhow::Result<()> {
    if old.flavor() == new.flavor() {
        return Ok(());
    }
    Err(Failure::new(
        Kind::Usage,
        format!("the old side is {}, the new side {}: a mixed pair is refused", old.flavor(), new.flavor()),
        "use two servers of one brand; types, JSON and GTIDs differ between them",
    )
    .into())
}

fn not_found(problems: Vec<EntityProblem>) -> Failure {
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    Failure::new(
        Kind::Finding,
        format!("entities cannot be found by `[entity]`:\n  {}", problems.join("\n  ")),
        "run `crossfade check`: it shows each with its remedy",
    )
}

fn rules(settings: &Settings, old: &SideView) -> Vec<TableRule> {
    let existing: Vec<TableName> = old.shapes.keys().cloned().collect();
    settings.select(&existing).iter().map(table_rule).collect()
}

fn mappings(
    rules: &[TableRule],
    old: &SideView,
    new: &SideView,
    build: Build,
) -> anyhow::Result<(Vec<TableMapping>, Vec<TableMapping>)> {
    let (mut forward, mut reverse, mut problems) = (Vec::new(), Vec::new(), Vec::new());
    for rule in rules {
        let (Some(old_shape), Some(new_shape)) = (old.shapes.get(&rule.old), new.shapes.get(&rule.new)) else {
            for (side, shapes, name) in [(Side::Old, &old.shapes, &rule.old), (Side::New, &new.shapes, &rule.new)] {
                if !shapes.contains_key(name) {
                    problems.push(format!("table {name} does not exist on the {side} side"));
                }
            }
            continue;
        };
        let mut take = |direction, source: &TableShape, target: &TableShape, into: &mut Vec<TableMapping>| match build(
            direction, rule, source, target,
        ) {
            Ok(mapping) => into.push(mapping),
            Err(found) => problems.extend(found.iter().map(ToString::to_string)),
        };
        take(Direction::Forward, old_shape, new_shape, &mut forward);
        if !rule.one_way {
            take(Direction::Reverse, new_shape, old_shape, &mut reverse);
        }
    }
    if problems.is_empty() {
        return Ok((forward, reverse));
    }
    problems.sort();
    problems.dedup();
    Err(Failure::new(
        Kind::Finding,
        format!("the tables do not map:\n  {}", problems.join("\n  ")),
        "run `crossfade check`: it shows each with its remedy",
    )
    .into())
}
