//! The whole configuration.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use crossfade_model::{FamilyPolicy, MergeRule, Side, TableName};
use toml::de::DeTable;

use crate::cutover::{self, CutoverSettings};
use crate::entity::{self, EntitySettings};
use crate::problem::Collector;
use crate::reader::{Section, Source, Text};
use crate::table::{self, Policy, SelectedTable, TablePattern, TableSettings};
use crate::throttle::{self, ThrottleSettings};
use crate::{Problems, ServerUrl};

const PAIR_NAME_MAX_CHARS: usize = 32;
/// With the pair's name and what stands between them, a flag's name.
const GROUP_NAME_MAX_CHARS: usize = 31;

/// Nobody but this machine is told anything, unless somebody wishes it.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8420);

/// Everything that the configuration file says, with defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The migration's name: lower-case letters, digits, `_` and `-`, at most 32.
    pub pair: String,
    pub old: SideSettings,
    pub new: SideSettings,
    pub store: StoreSettings,
    /// In the file's order; never empty.
    pub tables: Vec<TableSettings>,
    pub conflict: ConflictSettings,
    pub apply: ApplySettings,
    pub backfill: BackfillSettings,
    pub verify: VerifySettings,
    pub throttle: ThrottleSettings,
    pub cutover: CutoverSettings,
    /// `None`: nothing moves but all together.
    pub entity: Option<EntitySettings>,
    pub memory: MemorySettings,
    pub http: HttpSettings,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConflictSettings {
    /// The side that wins where nothing else decides.
    pub prefer: Side,
    /// Between a parent and its children.
    pub fk_conflict: FamilyPolicy,
    /// A version of a row may cross back and forth this often, within the window, before both directions stop.
    pub max_crossings: u32,
    pub crossing_window: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SideSettings {
    /// `url`, or the first of `urls`.
    pub url: ServerUrl,
    /// The rest of `urls`: servers with the same data, of which one at a time is written to.
    pub others: Vec<ServerUrl>,
    /// Where to read the binlog, if not at the others.
    pub binlog_url: Option<ServerUrl>,
}

impl SideSettings {
    /// The server whose binlog is read first.
    pub fn binlog_url(&self) -> &ServerUrl {
        self.binlog_url.as_ref().unwrap_or(&self.url)
    }

    /// The servers of which one is written to, in the order of the file.
    pub fn urls(&self) -> Vec<ServerUrl> {
        std::iter::once(&self.url).chain(&self.others).cloned().collect()
    }

    /// The servers whose binlog can be read, the preferred one first.
    pub fn binlog_urls(&self) -> Vec<ServerUrl> {
        self.binlog_url.clone().map_or_else(|| self.urls(), |url| vec![url])
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSettings {
    /// `None`: the schema `crossfade` on the new side.
    pub url: Option<ServerUrl>,
    /// How long settled messages are kept.
    pub retention: Duration,
    /// So much of a stream may be captured and not applied, as the store keeps it, before its reader rests.
    pub max_backlog_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplySettings {
    pub lanes: u16,
    /// Most changes in one batch.
    pub batch_rows: u32,
    /// Most bytes of row images in one batch.
    pub batch_bytes: u64,
    /// How often a process proves that its tag arrives where the opposite process reads.
    pub canary_every: Duration,
    /// Most messages that may be set aside at a time before the direction stops.
    pub max_parked: u32,
    /// Most rows, as parts of a million, that the target may refuse among the last 10,000 messages before it stops.
    pub max_parked_ppm: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackfillSettings {
    /// Chunks that are read, wait and are written at a time, of all tables together.
    pub workers: u16,
    /// How long it is to take to read and write a chunk.
    pub chunk_time: Duration,
    /// Most bytes of rows in a chunk.
    pub chunk_bytes: u64,
    /// A replica of the old side that chunks are read from; `None` for the old side itself.
    pub from: Option<ServerUrl>,
}

/// Comparing both sides again and again, in the background of the forward process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifySettings {
    /// Whether it does, where nobody has wished anything since.
    pub continuous: bool,
    /// Whether it does once when all that was to be copied is copied.
    pub after_backfill: bool,
    /// Between the end of a round over all tables and the next one.
    pub pause: Duration,
    /// The time that a chunk is to take on the slower side.
    pub chunk_time: Duration,
    /// Of the time the share in which chunks are read, as parts of a million; more than 0.
    pub share_ppm: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemorySettings {
    /// Most memory that one sync process may use for changes under way.
    pub limit_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpSettings {
    /// Where `serve` answers.
    pub listen: SocketAddr,
}

impl Settings {
    /// Reads a file and fills variables from the process environment.
    ///
    /// # Errors
    ///
    /// All problems of the file, together.
    pub fn load(path: &Path) -> Result<Settings, Problems> {
        match std::fs::read_to_string(path) {
            Ok(text) => Settings::parse(path, &text, &|name| std::env::var(name).ok()),
            Err(error) => {
                let mut collector = Collector::new(path, "");
                collector.add_for_file(
                    format!("the configuration cannot be read: {error}"),
                    "name it with `--config`; README.md shows the least that works",
                );
                collector.finish(None)
            }
        }
    }

    /// Reads a configuration's text. `file` is only named in problems.
    ///
    /// # Errors
    ///
    /// All problems of the text, together.
    pub fn parse(file: &Path, text: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<Settings, Problems> {
        let mut collector = Collector::new(file, text);
        let (document, syntax_errors) = DeTable::parse_recoverable(text);
        if !syntax_errors.is_empty() {
            let mut last_line = 0;
            for error in &syntax_errors {
                let line = error.span().map_or(1, |span| collector.line_of(span.start));
                // What follows on the line is most often the same mistake.
                if line == last_line {
                    continue;
                }
                last_line = line;
                collector.add(line, format!("not TOML: {}", error.message()), "correct the line; see https://toml.io");
            }
            return collector.finish(None);
        }
        let source = Source { collector: RefCell::new(collector), environment };
        let settings = read(&source, document.get_ref());
        source.collector.into_inner().finish(settings)
    }

    pub fn side(&self, side: Side) -> &SideSettings {
        match side {
            Side::Old => &self.old,
            Side::New => &self.new,
        }
    }

    /// Where the store is.
    pub fn store_url(&self) -> &ServerUrl {
        self.store.url.as_ref().unwrap_or(&self.new.url)
    }

    /// The groups of tables that change sides by themselves, by name.
    pub fn groups(&self) -> BTreeSet<&str> {
        self.tables.iter().filter(|table| !table.skip).filter_map(|table| table.group.as_deref()).collect()
    }

    /// What to look for on the old side.
    pub fn old_patterns(&self) -> Vec<TablePattern> {
        self.tables.iter().map(|entry| entry.old.clone()).collect()
    }

    /// The tables of a side that are left out in so many words, as far as no entry for one table takes them.
    pub fn left_out(&self, side: Side) -> Vec<TablePattern> {
        let skipped = self.tables.iter().filter(|entry| entry.skip);
        skipped.map(|entry| if side == Side::Old { entry.old.clone() } else { entry.new.clone() }).collect()
    }

    /// The synced tables among those that the old side has, ordered by the old name. A table that an entry names
    /// exactly is selected even if it is not in `existing`.
    pub fn select(&self, existing: &[TableName]) -> Vec<SelectedTable<'_>> {
        table::select(&self.tables, existing)
    }
}

fn read(source: &Source, document: &DeTable) -> Option<Settings> {
    let mut root = Section::root(source, document);
    let pair = root.require_text("pair", "\"users\"").and_then(|text| pair_name(&root, text));
    let old = side(&mut root, "old", "[old]");
    let new = side(&mut root, "new", "[new]");
    let store = store(&mut root);
    let conflict = conflict(&mut root);
    let apply = apply(&mut root);
    let backfill = backfill(&mut root);
    let verify = verify(&mut root);
    let throttle = throttle::read(&mut root);
    let cutover = cutover::read(&mut root);
    let memory = memory(&mut root, &apply);
    let http = http(&mut root);
    let tables = tables(&mut root, conflict.prefer);
    let entity = entity::read(&mut root, &tables);
    refuse_groups_of_entities(&root, &tables, entity.as_ref());
    root.finish();
    Some(Settings {
        pair: pair?,
        old: old?,
        new: new?,
        store,
        tables,
        conflict,
        apply,
        backfill,
        verify,
        throttle,
        cutover,
        entity,
        memory,
        http,
    })
}

fn pair_name(root: &Section, text: Text) -> Option<String> {
    plain_name(root, "pair", text, PAIR_NAME_MAX_CHARS)
}

/// A name that stands in a key of the store.
fn plain_name(section: &Section, key: &str, text: Text, max_chars: usize) -> Option<String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    let length = text.value.chars().count();
    if (1..=max_chars).contains(&length) && text.value.chars().all(allowed) {
        return Some(text.value);
    }
    section.problem(
        text.line,
        format!("`{key} = \"{}\"` is not a name", text.written),
        format!("use 1 to {max_chars} of a-z, 0-9, `_` and `-`"),
    );
    None
}

fn side(root: &mut Section, key: &'static str, name: &'static str) -> Option<SideSettings> {
    let Some(mut section) = root.section(key, name) else {
        if !root.has(key) {
            root.problem(1, format!("section `{name}` is missing"), format!("add `{name}` with a `url` below it"));
        }
        return None;
    };
    let is_one = !section.has("urls");
    let url = if is_one { section.require_url("url") } else { section.url("url") };
    let binlog_url = section.url("binlog_url");
    let urls = side_urls(&mut section);
    if !is_one && section.has("binlog_url") {
        section.problem(
            section.line_of("binlog_url"),
            "`binlog_url` stands beside `urls`: one server's binlog cannot stand for several",
            "leave it out: the binlog is read from the first of `urls` that is there, so name that replica first",
        );
    }
    section.finish();
    let mut others = if is_one { vec![url?] } else { urls? };
    let url = others.remove(0);
    Some(SideSettings { url, others, binlog_url })
}

/// `urls`, which takes the place of `url`; never empty.
fn side_urls(section: &mut Section) -> Option<Vec<ServerUrl>> {
    let urls = section.urls("urls");
    if section.has("url") && section.has("urls") {
        let remedy = "leave `url` out, and name that server in `urls` too";
        section.problem(section.line_of("url"), "`url` and `urls` are both given", remedy);
    }
    let urls = urls?;
    let twice =
        urls.iter().enumerate().find(|(at, url)| urls[..*at].iter().any(|other| other.endpoint == url.endpoint));
    if let Some((_, url)) = twice {
        let message = format!("`urls` names {} twice", url.address());
        section.problem(section.line_of("urls"), message, "name each server once");
    }
    Some(urls)
}

fn store(root: &mut Section) -> StoreSettings {
    let mut section = root.section_or_empty("store", "[store]");
    let store = StoreSettings {
        url: section.url("url"),
        retention: section.duration("retention", Duration::from_secs(60), "7d"),
        max_backlog_bytes: section.size("max_backlog", 64 << 10, "16GiB"),
    };
    section.finish();
    store
}

fn conflict(root: &mut Section) -> ConflictSettings {
    let mut section = root.section_or_empty("conflict", "[conflict]");
    let prefer = section.one_of("prefer", "a side", &[("new", Side::New), ("old", Side::Old)]);
    let policies = [FamilyPolicy::ParentReturns, FamilyPolicy::ChildGoes].map(|policy| (policy.as_str(), policy));
    let fk_conflict = section.one_of("fk_conflict", "known", &policies);
    let max_crossings = section.number("max_crossings", 2..=1_000, 6);
    let crossing_window = section.duration("crossing_window", Duration::from_secs(1), "60s");
    section.finish();
    ConflictSettings { prefer, fk_conflict, max_crossings, crossing_window }
}

fn apply(root: &mut Section) -> ApplySettings {
    let mut section = root.section_or_empty("apply", "[apply]");
    let apply = ApplySettings {
        lanes: section.number("lanes", 1..=64, 4) as u16,
        batch_rows: section.number("batch_rows", 1..=100_000, 8_000),
        batch_bytes: section.size("batch_bytes", 1 << 10, "16MiB"),
        canary_every: section.duration("canary_every", Duration::from_secs(1), "1m"),
        max_parked: section.number("max_parked", 1..=10_000, 1_000),
        max_parked_ppm: section.share("max_parked_share", "1%"),
    };
    section.finish();
    apply
}

fn backfill(root: &mut Section) -> BackfillSettings {
    let mut section = root.section_or_empty("backfill", "[backfill]");
    let backfill = BackfillSettings {
        workers: section.number("workers", 1..=64, 4) as u16,
        chunk_time: section.duration("chunk_time", Duration::from_millis(10), "500ms"),
        chunk_bytes: section.size("chunk_bytes", 64 << 10, "2MiB"),
        from: section.url("from"),
    };
    section.finish();
    backfill
}

fn verify(root: &mut Section) -> VerifySettings {
    let mut section = root.section_or_empty("verify", "[verify]");
    let verify = VerifySettings {
        continuous: section.boolean("continuous", false),
        after_backfill: section.boolean("after_backfill", true),
        pause: section.duration("pause", Duration::from_secs(1), "1h"),
        chunk_time: section.duration("chunk_time", Duration::from_millis(10), "200ms"),
        share_ppm: section.share("share", "25%"),
    };
    if verify.share_ppm == 0 {
        section.problem(
            section.line,
            "`share` of `[verify]` is nothing, so nothing would ever be compared",
            "write more than 0%, or `continuous = false`",
        );
    }
    section.finish();
    verify
}

fn memory(root: &mut Section, apply: &ApplySettings) -> MemorySettings {
    let mut section = root.section_or_empty("memory", "[memory]");
    let memory = MemorySettings { limit_bytes: section.size("limit", 64 << 20, "512MiB") };
    if apply.batch_bytes > memory.limit_bytes / 4 {
        section.problem(
            section.line,
            "`batch_bytes` is more than a quarter of the memory limit",
            "raise `limit` in `[memory]`, or lower `batch_bytes` in `[apply]`",
        );
    }
    section.finish();
    memory
}

fn http(root: &mut Section) -> HttpSettings {
    let mut section = root.section_or_empty("http", "[http]");
    let http = HttpSettings { listen: section.socket("listen", DEFAULT_LISTEN) };
    section.finish();
    http
}

fn tables(root: &mut Section, prefer: Side) -> Vec<TableSettings> {
    let sections = root.require_sections("table", "[[table]]", "name = \"schema.table\"");
    let mut tables: Vec<TableSettings> = Vec::new();
    for mut section in sections {
        let entry = table_entry(&mut section, prefer);
        if let Some(entry) = entry {
            let taken = tables.iter().find(|other| other.old == entry.old || other.new == entry.new);
            if let Some(other) = taken {
                let name = if other.old == entry.old { &entry.old } else { &entry.new };
                section.problem(
                    section.line,
                    format!("`{name}` is named a second time"),
                    format!("remove this `[[table]]`, or the one of line {}", other.line),
                );
            }
            tables.push(entry);
        }
        section.finish();
    }
    tables
}

fn table_entry(section: &mut Section, prefer: Side) -> Option<TableSettings> {
    let names = table_names(section);
    let clock = section.text("clock", "\"updated_at\"");
    let default = if clock.is_some() { Policy::Newest } else { Policy::prefer(prefer) };
    let policy = policy(section, default, clock.is_some());
    let columns = columns(section);
    let one_way = section.boolean("one_way", false);
    let skip = section.boolean("skip", false);
    let merge = merge(section, one_way);
    let group = section.text("group", "\"billing\"");
    let group = group.and_then(|text| plain_name(section, "group", text, GROUP_NAME_MAX_CHARS));
    let clock = clock.map(|text| text.value);
    let (old, new) = names?;
    Some(TableSettings { old, new, clock, policy, columns, one_way, merge, skip, group, line: section.line })
}

/// Each would say who has authority over the same rows.
fn refuse_groups_of_entities(root: &Section, tables: &[TableSettings], entity: Option<&EntitySettings>) {
    let grouped = tables.iter().find(|table| table.group.is_some());
    if let Some((table, _)) = grouped.zip(entity) {
        root.problem(
            table.line,
            "`group` stands beside `[entity]`: users change sides by groups of tables, or one by one",
            "remove every `group`, or `[entity]`",
        );
    }
}

fn policy(section: &mut Section, default: Policy, has_clock: bool) -> Policy {
    let Some(text) = section.text("policy", "\"newest\"") else { return default };
    let Some(policy) = Policy::parse(&text.value) else {
        let message = format!("`policy = \"{}\"` is not a policy", text.written);
        section.problem(text.line, message, "use `newest`, `version`, `prefer-old` or `prefer-new`");
        return default;
    };
    if policy.needs_clock() && !has_clock {
        section.problem(
            text.line,
            format!("policy `{policy}` needs a clock"),
            "add `clock = \"<column>\"`, or use `prefer-old` or `prefer-new`",
        );
    }
    policy
}

/// Either `name`, or `old` and `new`.
fn table_names(section: &mut Section) -> Option<(TablePattern, TablePattern)> {
    let mut pattern = |key: &'static str| {
        let text = section.text(key, "\"app.users\"")?;
        let parsed = TablePattern::parse(&text.value);
        let parsed = parsed.map_err(|message| {
            section.problem(
                text.line,
                format!("`{key} = \"{}\"` {message}", text.written),
                "write `schema.table`, or `schema.*` for all tables; odd names go into back-quotes",
            );
        });
        Some((parsed.ok(), text.line))
    };
    let (name, old, new) = (pattern("name"), pattern("old"), pattern("new"));
    match (name, old, new) {
        (Some((name, _)), None, None) => name.map(|name| (name.clone(), name)),
        (None, Some((old, _)), Some((new, line))) => {
            let (old, new) = (old?, new?);
            let same_tables = old.table == new.table && old.is_pattern == new.is_pattern;
            if (old.is_pattern || new.is_pattern) && !same_tables {
                section.problem(
                    line,
                    "with a `*`, `old` and `new` must have the same table part",
                    "write `old = \"a.*\"` and `new = \"b.*\"`, or one `[[table]]` for each table",
                );
                return None;
            }
            Some((old, new))
        }
        _ => {
            section.problem(
                section.line,
                "`[[table]]` needs either `name`, or both `old` and `new`",
                "write `name = \"app.users\"`, or `old = \"app.users\"` and `new = \"crm.users\"`",
            );
            None
        }
    }
}

fn columns(section: &mut Section) -> BTreeMap<String, String> {
    let mut columns: BTreeMap<String, String> = BTreeMap::new();
    for (old, new, line) in section.texts("columns", "{ old_name = \"new_name\" }") {
        let same = |known: &String, name: &str| known.eq_ignore_ascii_case(name);
        if old.is_empty() || new.is_empty() {
            section.problem(line, "`columns` has an empty name", "name a column on both sides");
        } else if columns.iter().any(|(known_old, known_new)| same(known_old, &old) || same(known_new, &new)) {
            section.problem(line, format!("`columns` names `{old}` or `{new}` twice"), "name each column once");
        } else {
            columns.insert(old, new);
        }
    }
    columns
}

/// `merge = "columns"` with its rules.
fn merge(section: &mut Section, one_way: bool) -> Option<BTreeMap<String, MergeRule>> {
    let merge = section.text("merge", "\"columns\"");
    let rules = merge_rules(section);
    let Some(merge) = merge else {
        if section.has("merge_rules") {
            let line = section.line_of("merge_rules");
            section.problem(line, "`merge_rules` says how columns are merged, and they are not", MERGE_REMEDY);
        }
        return None;
    };
    if merge.value != "columns" {
        section.problem(merge.line, format!("`merge = \"{}\"` is not known", merge.written), MERGE_REMEDY);
    } else if one_way {
        let message = "`merge` has nothing to merge where changes go one way only";
        section.problem(merge.line, message, "remove `merge`, or `one_way = true`");
    }
    Some(rules)
}

const MERGE_REMEDY: &str =
    "write `merge = \"columns\"`, or leave it out: then one of two concurrent changes wins as a whole";

fn merge_rules(section: &mut Section) -> BTreeMap<String, MergeRule> {
    let mut rules: BTreeMap<String, MergeRule> = BTreeMap::new();
    for (column, word, line) in section.texts("merge_rules", "{ balance = \"sum-delta\" }") {
        let known = MergeRule::ALL.into_iter().find(|rule| rule.as_str() == word);
        if column.is_empty() {
            section.problem(line, "`merge_rules` has an empty name", "name a column of the old side");
        } else if rules.keys().any(|known| known.eq_ignore_ascii_case(&column)) {
            section.problem(line, format!("`merge_rules` names `{column}` twice"), "name each column once");
        } else if let Some(rule) = known {
            rules.insert(column, rule);
        } else {
            let words: Vec<String> = MergeRule::ALL.map(|rule| format!("`{}`", rule.as_str())).into();
            let message = format!("`{column} = \"{word}\"` is no rule for merging a column");
            section.problem(line, message, format!("use {}", words.join(" or ")));
        }
    }
    rules
}
