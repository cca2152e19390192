//! The command line.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use crossfade_model::MessageId;

/// Keeps an old and a new MySQL database in step, in both directions at once, until nobody needs the old one.
#[derive(Debug, Parser)]
#[command(name = "crossfade", version, propagate_version = true, after_help = MAIN_EXAMPLES)]
pub struct Cli {
    /// The configuration file
    #[arg(
        long,
        global = true,
        default_value = "crossfade.toml",
        env = "CROSSFADE_CONFIG",
        value_name = "FILE",
        help_heading = EVERYWHERE
    )]
    pub config: PathBuf,

    /// How much to log to standard error: error, warn, info, debug, trace, or a filter such as crossfade_binlog=debug
    #[arg(
        long,
        global = true,
        default_value = "info",
        env = "CROSSFADE_LOG",
        value_name = "LEVEL",
        help_heading = EVERYWHERE
    )]
    pub log: String,

    /// Log lines as JSON
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub log_json: bool,

    #[command(subcommand)]
    pub command: Command,
}

/// The heading of the options that every command takes.
const EVERYWHERE: &str = "Options of every command";

const MAIN_EXAMPLES: &str = "\
Examples:
  crossfade check             is everything ready? with a remedy for each finding
  crossfade schema copy       create on new the tables that only old has
  crossfade init              create the schemas `crossfade`, take the start mark
  crossfade sync forward      carry changes from old to new
  crossfade sync reverse      carry changes from new to old
  crossfade status --watch    see where both directions stand
  crossfade verify            compare both sides, row by row where they differ
  crossfade cutover           users change to new; `rollback` leads back
  crossfade finish            nobody needs old any more

Exit codes: 0 fine, 1 the command's own finding, 2 usage or configuration, 3 connection or internal error, 130 forced.";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check every precondition on both sides and the store
    #[command(
        after_help = CHECK_EXAMPLES
    )]
    Check(CheckArgs),
    /// Compare the definitions of both sides, and create on the new side the tables that it lacks
    #[command(subcommand)]
    Schema(SchemaCommand),
    /// Create or migrate the crossfade schemas and take the start mark; repeatable
    #[command(after_help = INIT_EXAMPLES)]
    Init(InitArgs),
    /// Run one direction: capture what users write to its source, apply it to the other side
    #[command(after_help = SYNC_EXAMPLES)]
    Sync(SyncArgs),
    /// Show where both directions stand, and what each waits for
    #[command(after_help = STATUS_EXAMPLES)]
    Status(StatusArgs),
    /// End what `stop` began: the direction captures and applies again, as soon as its process runs
    #[command(after_help = "Examples:\n  crossfade start reverse")]
    Start(DirectionArgs),
    /// Let a direction rest: its process goes on capturing and applies nothing until `start`
    #[command(after_help = "Examples:\n  crossfade stop forward\n  crossfade stop reverse --capture")]
    Stop(StopArgs),
    /// Copy the rows that were there before the migration began; the forward process does it, beside all changes
    #[command(subcommand)]
    Backfill(BackfillCommand),
    /// Show and set from where on copying, comparing and applying wait for the databases
    #[command(subcommand)]
    Throttle(ThrottleCommand),
    /// Show and set the read-write flag, which tells applications the side to read and to write
    #[command(subcommand)]
    Flag(FlagCommand),
    /// Take and list marks: positions of both sides that belong together
    #[command(subcommand)]
    Mark(MarkCommand),
    /// Look at the message table, where every captured change is kept
    #[command(subcommand)]
    Messages(MessagesCommand),
    /// Try changes again that were set aside, also with corrected values
    #[command(after_help = RETRY_EXAMPLES)]
    Retry(RetryArgs),
    /// Give changes up that were set aside, so that nothing waits for them any more
    #[command(after_help = DISCARD_EXAMPLES)]
    Discard(DiscardArgs),
    /// Answer over HTTP: /healthz, /readyz, /metrics, /v1/status, the flag that applications follow, /v1/flag, and the side of each entity
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(ServeArgs),
    /// Compare both sides while they are written: every row, or those that you ask for
    #[command(after_help = VERIFY_EXAMPLES, args_conflicts_with_subcommands = true)]
    Verify(VerifyArgs),
    /// Let users change to the new side: bring over everything that they wrote on old, then change the flag
    #[command(after_help = crate::command::switch::CUTOVER_EXAMPLES)]
    Cutover(crate::command::switch::SwitchArgs),
    /// Let users go back to the old side, with everything that they wrote on new
    #[command(after_help = crate::command::switch::ROLLBACK_EXAMPLES)]
    Rollback(crate::command::switch::SwitchArgs),
    /// Move users, or whatever else hangs together, to the new side one by one or in groups, and back
    #[command(subcommand)]
    Entity(crate::command::entity::EntityCommand),
    /// End the migration on the new side: compare for the last time, end both directions, write a report
    #[command(after_help = crate::command::end::FINISH_EXAMPLES)]
    Finish(crate::command::end::FinishArgs),
    /// Leave the migration before users have changed sides: old is as it was before
    #[command(after_help = crate::command::end::ABORT_EXAMPLES)]
    Abort(crate::command::end::AbortArgs),
    /// Run a whole migration on two private servers, from an empty new side to comparing
    #[command(after_help = "Examples:\n  crossfade demo\n  crossfade demo --flavor mariadb --users 100000 --keep")]
    Demo(crate::demo::DemoArgs),
    /// Print shell completions
    #[command(after_help = "Examples:\n  crossfade completions bash > /etc/bash_completion.d/crossfade")]
    Completions { shell: clap_complete::Shell },
}

#[derive(Debug, Subcommand)]
pub enum SchemaCommand {
    /// Show how the sides differ: tables through the mapping, views, routines, triggers, events, accounts; exit code 1 if they do
    #[command(after_help = SCHEMA_DIFF_EXAMPLES)]
    Diff(SchemaDiffArgs),
    /// Create the tables that the new side lacks, after showing the statements; changes and drops nothing that is there
    #[command(after_help = SCHEMA_COPY_EXAMPLES)]
    Copy(SchemaCopyArgs),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SchemaPart {
    Tables,
    Views,
    Routines,
    Triggers,
    Events,
    Accounts,
}

#[derive(Debug, Args)]
pub struct SchemaDiffArgs {
    /// Only this, or several with commas between them
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    pub only: Vec<SchemaPart>,
    /// Only this table, as either side names it: schema.table; may be given several times
    #[arg(long = "table", value_name = "TABLE", conflicts_with = "only")]
    pub tables: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

const SCHEMA_DIFF_EXAMPLES: &str = "\
Examples:
  crossfade schema diff
  crossfade schema diff --only tables,triggers
  crossfade schema diff --table app.users
  crossfade schema diff --json | jq '.differences[] | select(.only_on == \"old\")'

Tables, columns and parents that the new side calls otherwise are no difference, nor are the next AUTO_INCREMENT value and the width at
which integers are shown. Accounts count that may do something with these schemas, or with all; passwords are neither
read nor compared. What the account may not see is told with the GRANT that it lacks, and makes the exit code 1, too.";

#[derive(Debug, Args)]
pub struct SchemaCopyArgs {
    /// Only this table, as either side names it: schema.table; may be given several times
    #[arg(long = "table", value_name = "TABLE")]
    pub tables: Vec<String>,
    /// Show the statements, and create nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Create without asking
    #[arg(long, conflicts_with = "dry_run")]
    pub yes: bool,
    /// Print JSON: the statements, what was there already, what stands in the way
    #[arg(long)]
    pub json: bool,
}

const SCHEMA_COPY_EXAMPLES: &str = "\
Examples:
  crossfade schema copy --dry-run               look first
  crossfade schema copy                         show, ask, create
  crossfade schema copy --yes --table app.tags  one that is added to a running migration

A table that is there, empty and alike, stays; one that has rows or differs is named, and nothing is created. The mapping's
names count. Run it again after a crash: it goes on with what is missing. Views, routines, triggers, events and accounts
are not copied: `crossfade schema diff` shows them.";

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Also see what the new side takes: write synthetic rows there as applying would, as fast as it goes, and compare that with
    /// what the old side writes meanwhile
    #[arg(long)]
    pub probe_load: bool,
    /// For how many seconds
    #[arg(long, value_name = "N", default_value_t = 5, requires = "probe_load", value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

const CHECK_EXAMPLES: &str = "\
Examples:
  crossfade check
  crossfade check --json | jq '.findings[] | select(.severity == \"error\")'
  crossfade check --probe-load --seconds 20       at the busiest hour of the old side
  crossfade check --probe-load --json | jq .probe_load.headroom

The load puts the new side under full load for that time, with `lanes` of `[apply]`. Its rows are in schema `crossfade`, nothing of
them crosses, and their tables are dropped afterwards; where it was killed, by the next one.";

#[derive(Debug, Args)]
pub struct InitArgs {
    /// The new side was restored from a backup or a replica of the old one: begin where that was taken, not now
    #[arg(long, value_name = "POSITION")]
    pub seeded_at: Option<String>,
    #[command(flatten)]
    pub output: JsonOutput,
}

const INIT_EXAMPLES: &str = "\
Examples:
  crossfade init
  crossfade --config /etc/crossfade/users.toml init
  crossfade init --seeded-at 3e11fa47-71ca-11e1-9e33-c80aa9429562:1-2041     MySQL: the backup's gtid_executed
  crossfade init --seeded-at 0-1-2041                                        MariaDB: its gtid_binlog_pos

A position is a GTID set of MySQL, GTIDs of MariaDB, or `file:offset` on MariaDB and on MySQL without GTIDs. Verify afterwards.";

#[derive(Debug, Subcommand)]
pub enum FlagCommand {
    /// Show the flag, and the instances of applications that follow it, with the version that each has acknowledged
    #[command(after_help = FLAG_GET_EXAMPLES)]
    Get(crate::command::flag::FlagGetArgs),
    /// Open two-way writing (`write_both`), or end it again (`old_only`); what moves users is `cutover` and `rollback`
    #[command(after_help = crate::command::flag::SET_EXAMPLES)]
    Set(crate::command::flag::FlagSetArgs),
}

const FLAG_GET_EXAMPLES: &str = "\
Examples:
  crossfade flag get
  crossfade flag get --group billing                  of the tables of a group
  crossfade flag get --json | jq -r .phase
  crossfade flag get --json | jq '.version as $v | .instances[] | select(.version < $v)'     who is behind

An instance writes by the version that it has acknowledged, or a later one, and by no earlier one any more. One that is not heard for
so long as it is known has stopped writing by itself, and is not waited for.";

#[derive(Debug, Subcommand)]
pub enum MarkCommand {
    /// Take a mark of now; everything that either side had committed is before it
    #[command(
        after_help = "Examples:\n  crossfade mark take before-release-12\n  crossfade mark take --note 'before the index build'"
    )]
    Take(MarkTakeArgs),
    /// List all marks, the oldest first; `init` takes one, and the copying of history when it ends
    #[command(
        after_help = "Examples:\n  crossfade mark list\n  crossfade mark list --json | jq -r '.[-1].old_position'"
    )]
    List(JsonOutput),
}

#[derive(Debug, Args)]
pub struct MarkTakeArgs {
    /// Its name; without one it is named after the time
    pub name: Option<String>,
    /// What it is for, for people
    #[arg(long)]
    pub note: Option<String>,
    #[command(flatten)]
    pub output: JsonOutput,
}

#[derive(Debug, Clone, Copy, Args)]
pub struct JsonOutput {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DirectionName {
    /// Old to new
    Forward,
    /// New to old
    Reverse,
}

impl From<DirectionName> for crossfade_model::Direction {
    fn from(name: DirectionName) -> Self {
        match name {
            DirectionName::Forward => crossfade_model::Direction::Forward,
            DirectionName::Reverse => crossfade_model::Direction::Reverse,
        }
    }
}

#[derive(Debug, Args)]
pub struct DirectionArgs {
    pub direction: DirectionName,
}

#[derive(Debug, Args)]
pub struct SyncArgs {
    pub direction: DirectionName,
    /// End once everything that the source has now is applied, with 0, or set aside in part, with 1
    #[arg(long)]
    pub until_caught_up: bool,
    /// First read the source again from this mark on: what is not in the message table is captured, and nothing twice
    #[arg(long, value_name = "MARK")]
    pub from_mark: Option<String>,
}

const SYNC_EXAMPLES: &str = "\
Examples:
  crossfade sync forward
  crossfade sync reverse --until-caught-up
  crossfade sync forward --from-mark start       `crossfade mark list` shows the marks

--from-mark reads the source's binlog again from the mark up to where the direction was, before it goes on there. A change that is in
the message table is known by its place in the binlog and stays as it is; one that is not (of a table that was added to the
configuration since, say) is captured now, and judged as any other. What was applied is not applied again. It is refused where the
source has purged what followed the mark, or the message table what was captured since, and where the direction has not read as far.
It may be repeated.";

#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Where to answer, instead of `[http] listen`; port 0 takes any that is free
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<std::net::SocketAddr>,
}

#[derive(Debug, Args)]
pub struct StopArgs {
    pub direction: DirectionName,
    /// End capture too, and declare the direction off: nothing waits for it any more, so nobody may write on its source
    /// until it is started again
    #[arg(long)]
    pub capture: bool,
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Show it again every second until interrupted
    #[arg(long)]
    pub watch: bool,
    /// First wait, at most this long, until everything committed on either side by now has crossed; exit code 1 if that
    /// takes longer, and at once where a direction has stopped with an error or rests
    #[arg(long, value_name = "DURATION", conflicts_with = "watch")]
    pub wait: Option<humantime::Duration>,
}

#[derive(Debug, Subcommand)]
pub enum BackfillCommand {
    /// Have tables copied, all or some; those that are copied already stay as they are
    #[command(
        after_help = "Examples:\n  crossfade backfill start\n  crossfade backfill start --table app.users --table app.orders\n  crossfade backfill start --defer-secondary-indexes     before `crossfade sync forward` first runs: tables are empty then"
    )]
    Start(BackfillStartArgs),
    /// Show how far the copying of each table is; exit code 1 where something needs a person
    #[command(after_help = BACKFILL_STATUS_EXAMPLES)]
    Status(BackfillStatusArgs),
    /// Let the copying rest; changes are carried all the same
    #[command(after_help = "Examples:\n  crossfade backfill pause")]
    Pause,
    /// Let the copying go on, also of tables that an error has stopped
    #[command(after_help = "Examples:\n  crossfade backfill resume")]
    Resume,
    /// Delete a table's rows on the new side and copy it from its beginning; only while nobody writes there
    #[command(after_help = "Examples:\n  crossfade backfill restart --table app.users")]
    Restart(BackfillRestartArgs),
}

#[derive(Debug, Subcommand)]
pub enum ThrottleCommand {
    /// Show the limits, and what waits for which reason
    #[command(after_help = "Examples:\n  crossfade throttle get\n  crossfade throttle get --json | jq '.waits'")]
    Get(JsonOutput),
    /// Set limits for running processes; they count until they are reset
    #[command(after_help = THROTTLE_SET_EXAMPLES)]
    Set(ThrottleSetArgs),
    /// Let the limits of the configuration count again
    #[command(after_help = "Examples:\n  crossfade throttle reset")]
    Reset,
}

#[derive(Debug, Args)]
pub struct ThrottleSetArgs {
    /// A limit by its name in `[throttle]`, and its value; `off` for none
    #[arg(required = true, value_name = "NAME=VALUE")]
    pub limits: Vec<String>,
}

const THROTTLE_SET_EXAMPLES: &str = "\
Examples:
  crossfade throttle set threads_running=40
  crossfade throttle set rows_per_second=5000 latency=80ms
  crossfade throttle set rows_per_second=off

Limits:
  threads_running   on either side, as the server counts them; crossfade's own are among them
  replica_lag       of any of the `replicas` in `[throttle]`
  latency           of a small commit on either side
  probe_limit       of the number that the `probe` in `[throttle]` tells
  rows_per_second   that are copied or compared";

#[derive(Debug, Args)]
pub struct BackfillStartArgs {
    /// Only this table, as either side names it: schema.table; may be given several times
    #[arg(long = "table", value_name = "TABLE")]
    pub tables: Vec<String>,
    /// Drop non-unique secondary indexes of these tables on the new side, where they must be empty, and build them when the rows are
    /// copied. Those that a foreign key needs stay
    #[arg(long)]
    pub defer_secondary_indexes: bool,
}

#[derive(Debug, Args)]
pub struct BackfillRestartArgs {
    /// This table, as either side names it: schema.table; may be given several times
    #[arg(long = "table", value_name = "TABLE", required = true)]
    pub tables: Vec<String>,
}

#[derive(Debug, Args)]
pub struct BackfillStatusArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Show it again every second until all is copied or stopped
    #[arg(long)]
    pub watch: bool,
}

const BACKFILL_STATUS_EXAMPLES: &str = "\
Examples:
  crossfade backfill status
  crossfade backfill status --watch
  crossfade backfill status --json | jq '.tables[] | select(.refused > 0) | .refused_rows'

Columns:
  state       waiting (for its parents, or its turn), clearing, copying, copied, stopped; why: below. Indexing: copied, and
              indexes that were deferred are being built
  rows, of    read so far, and what the table had when its copying began
  rows/s      of late; `left` follows from it
  replaced    were older on the new side
  same        were there already
  kept        differ, and are as new or newer on the new side, or nothing tells: they stay as they are there
  changed     were changed while their chunk was read, so that a message brings them, or by users of the new side
  refused     by the new side; they are read and tried again every now and then";

#[derive(Debug, Subcommand)]
pub enum MessagesCommand {
    /// List messages, the newest first
    #[command(after_help = LIST_EXAMPLES)]
    List(ListArgs),
    /// Show one message: its images, its row as it is now on both sides, and what would become of it
    #[command(after_help = SHOW_EXAMPLES)]
    Show(ShowArgs),
    /// Tell the life of one row on both sides, in one order: what had seen another change stands after it
    #[command(after_help = HISTORY_EXAMPLES)]
    History(HistoryArgs),
    /// Drop days older than the retention; never an unsettled message
    #[command(after_help = "Examples:\n  crossfade messages purge\n  crossfade messages purge --older-than 30d")]
    Purge(PurgeArgs),
}

const SERVE_EXAMPLES: &str = "\
Examples:
  crossfade serve
  crossfade serve --listen 0.0.0.0:8420
  curl -f 'http://127.0.0.1:8420/readyz?direction=forward'
  curl 'http://127.0.0.1:8420/v1/flag?after=7&wait=30s'

Paths:
  /healthz      200 while this command runs; it says nothing of the pair
  /readyz       200 while every direction runs that is not declared off, else 503; as JSON, with state and reason of each
                stream. `?direction=forward` asks for one direction
  /metrics      OpenMetrics, for Prometheus
  /v1/status    as `crossfade status --json`
  /v1/flag      the read-write flag; with `?after=7&wait=30s` as soon as its version is another one than 7, or 304
  /v1/flag/instances
                the instances of applications that follow it; each registers, acknowledges and leaves by PUT and DELETE
                of /v1/flag/instances/<name>: docs/flag.md
  /v1/entities/<id>
                the side of an entity, with `[entity]`, and for how long that may be used: docs/entities.md

Whoever can connect can read them, and register instances: there are no passwords. They hold numbers, and names of tables and
processes. A cutover waits for each instance that is registered.";

const STATUS_EXAMPLES: &str = "\
Examples:
  crossfade status
  crossfade status --watch
  crossfade status --wait 60s
  crossfade status --json | jq '.streams[].lag_seconds'

Columns:
  stream      the direction, and the side whose binlog it reads
  state       running, catching-up, held, retrying, starting, paused, stopped, off; why, and who stands by: below
  lag         how long changes have been waiting to be applied; - while no process runs
  behind      messages that are captured and not yet applied
  captured    row changes since `init`
  applied     of these, what has reached the other side or has lost a conflict there
  echoes      rows that crossfade itself had written, recognised in the binlog and not sent back
  won, lost   changes that did not know of another one of the same row, and how that ended
  failed      changes that the target refused, and what depends on them: set aside until they are mended
  slowest     the longest time from a change's commit on its source to its commit on the other side

Below, for each direction that runs: whether the other one is known to recognise what it writes, which is proved at its start
and every minute; and how changes of each table ended that met another one which they did not know of: `stale` ones had lost,
and been overtaken by a later change of their own side anyway.

--json tells more: by what changes were judged (judged_by_sight, judged_by_look_up, judged_by_waiting), and how long each wait
for the other direction's reader took (waits).";

const LIST_EXAMPLES: &str = "\
Examples:
  crossfade messages list --limit 20
  crossfade messages list --table app.users --status pending
  crossfade messages list --conflicts --since 1h
  crossfade messages list --status failed                     what was set aside, and why
  crossfade messages list --status failed --error 1062 --json | jq -r '.[].id'

Statuses:
  pending         captured, not yet applied
  applied         has taken effect on the other side
  held            waits until the other direction has been read further
  failed          refused by the target, or depends on one that is; set aside until it is mended
  conflict_lost   a change of the same row that it did not know of has won, or it was made where the other side had authority
  stale           the same, and a later change of its own side stands in for it anyway
  superseded      a later change of the same row stood in for it
  discarded       given up by a person";

#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only this stream, for example forward/old
    #[arg(long, value_name = "STREAM")]
    pub stream: Option<crossfade_model::StreamId>,
    /// Only this table, as the source names it: schema.table; odd names stand in back-quotes
    #[arg(long, value_name = "TABLE")]
    pub table: Option<String>,
    /// Only messages with this status
    #[arg(long, value_name = "STATUS", value_parser = ["pending", "applied", "held", "stale", "conflict_lost", "superseded", "failed", "discarded"])]
    pub status: Option<String>,
    /// Only what lost against a concurrent change (conflict_lost and stale), each with both clocks, its winner and why
    #[arg(long)]
    pub conflicts: bool,
    /// Only failed messages with this error, as the list shows it: the server's number, or a word such as `behind`
    #[arg(long, value_name = "CODE")]
    pub error: Option<String>,
    /// Only messages committed within this time, for example 90s, 10m, 2h, 3d; failed ones that were set aside within it
    #[arg(long, value_name = "DURATION")]
    pub since: Option<humantime::Duration>,
    /// At most this many
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub limit: u32,
    #[command(flatten)]
    pub output: JsonOutput,
}

#[derive(Debug, Args)]
pub struct ShowArgs {
    /// <stream>:<seq>, for example forward/old:17
    pub id: MessageId,
    #[command(flatten)]
    pub output: JsonOutput,
}

const SHOW_EXAMPLES: &str = "\
Examples:
  crossfade messages show forward/old:17
  crossfade messages show forward/old:17 --json | jq '.columns[] | select(.differs)'

The table has one line for each column: the images of the message, and the row as it is now on both sides, found by the key
that the message leaves it with. `differs` marks columns in which the two sides differ now.

For a message that was set aside, `on retry` says what would become of it, judged as the applier judges. What only the
other direction can tell, because it has not yet read all that users wrote, is said to be open.";

const RETRY_EXAMPLES: &str = "\
Examples:
  crossfade retry --id forward/old:17 --dry-run         the row on both sides, and what would become of the change
  crossfade retry --id forward/old:17 --id forward/old:21
  crossfade retry --table app.users --error 1062
  crossfade retry --all --json | jq '.results[] | select(.result == \"failed\")'
  crossfade retry --edit forward/old:17 --set email=ada@example.com --set 'note=NULL'
  echo '{\"avatar\": {\"$base64\": \"3q2+7w==\"}}' | crossfade retry --edit forward/old:17 --set-json -

A change is tried together with all that it waits behind. While the direction's process runs, it does the work, and this
command waits for it; otherwise this command does it. Interrupted, it takes back what nobody has begun; killed, it
leaves its requests, and the process carries them out.

Values of --set are parsed by the column's type: NULL, text as it is, numbers, 2026-01-31 or '2026-01-31 12:00:00.5' (UTC),
bytes as 0x and hexadecimal digits, JSON as its text. The message stays as it was captured; what you correct goes back
to the side where the change was made, so both sides have the corrected row. Key columns cannot be corrected.

Results: applied; conflict_lost and stale (a change by users of the other side is newer); failed, with the error;
held (the other direction must read further first). Exit code 1 if a change is still set aside, or had ended before its
correction came; else 0.";

const DISCARD_EXAMPLES: &str = "\
Examples:
  crossfade discard --id forward/old:17 --reason 'duplicate account, merged by hand'
  crossfade discard --table app.sessions --error 1452 --yes --reason 'sessions of deleted users'
  crossfade messages list --status discarded

A discarded change has no effect, and nothing waits for it any more. If the sides differ in its row they stay so until
somebody changes the row on either side: that change overrides the discarded one everywhere. The journal keeps who gave up
what, and why.";

/// Which messages a command is about.
#[derive(Debug, Args)]
pub struct Selection {
    /// This message; may be given several times
    #[arg(long = "id", value_name = "ID", conflicts_with_all = ["table", "error", "all"])]
    pub ids: Vec<MessageId>,
    /// All failed messages of this table, as the source names it: schema.table
    #[arg(long, value_name = "TABLE", conflicts_with = "all")]
    pub table: Option<String>,
    /// All failed messages with this error, as `messages list --status failed` shows it
    #[arg(long, value_name = "CODE", conflicts_with = "all")]
    pub error: Option<String>,
    /// All failed messages of both directions
    #[arg(long)]
    pub all: bool,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").args(["ids", "table", "error", "all", "edit"]).multiple(true).required(true))]
pub struct RetryArgs {
    #[command(flatten)]
    pub selection: Selection,
    /// Try this message with other values; its captured image stays as it is
    #[arg(long, value_name = "ID", conflicts_with_all = ["ids", "table", "error", "all"])]
    pub edit: Option<MessageId>,
    /// A column's value, parsed by the column's type; may be given several times
    #[arg(long = "set", value_name = "COLUMN=VALUE", requires = "edit")]
    pub set: Vec<String>,
    /// A file with a JSON object of columns and values, as `messages show --json` has them; - for standard input
    #[arg(long, value_name = "FILE", requires = "edit")]
    pub set_json: Option<PathBuf>,
    /// Only show the row on both sides, and what would become of each change
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub output: JsonOutput,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").args(["ids", "table", "error", "all"]).multiple(true).required(true))]
pub struct DiscardArgs {
    #[command(flatten)]
    pub selection: Selection,
    /// Why; it is kept with the message and in the journal
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Discard what --table, --error or --all select without asking
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    pub output: JsonOutput,
}

const HISTORY_EXAMPLES: &str = "\
Examples:
  crossfade messages history app.users 42
  crossfade messages history app.order_items 42 7        a key of two columns
  crossfade messages history app.sessions 0x5f3a90       a key of bytes
  crossfade messages history app.users 42 --json | jq '.[] | [.committed_at, .id, .op, .status]'

`clock` is what conflicts are decided by. `seen` is how far the other direction had been applied when the change was made:
of the changes named there its writer knew, of later ones he did not. Keys that differ in case or accents only are shown
together.";

#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// The table, as either side names it: schema.table; odd names stand in back-quotes
    pub table: String,
    /// The row's key, one value per key column; times are UTC
    #[arg(required = true, num_args = 1..)]
    pub key: Vec<String>,
    #[command(flatten)]
    pub output: JsonOutput,
}

#[derive(Debug, Args)]
pub struct PurgeArgs {
    /// Only say what would be dropped
    #[arg(long)]
    pub dry_run: bool,
    /// Instead of the configured retention
    #[arg(long, value_name = "DURATION")]
    pub older_than: Option<humantime::Duration>,
    #[command(flatten)]
    pub output: JsonOutput,
}

const VERIFY_EXAMPLES: &str = "\
Examples:
  crossfade verify
  crossfade verify --table app.users --table app.orders
  crossfade verify --table app.users --where 'country = \"SE\"'
  crossfade verify --sample 5%              every 20th chunk of each table
  crossfade verify --since 1h               rows whose clock says that they were written within the last hour
  crossfade verify --max-mismatch 0.01%     exit code 0 up to so many rows of each table
  crossfade verify --json | jq '.tables[] | select(.percent > 0)'
  crossfade verify show                     the rows that differ, column by column
  crossfade verify --repair old-wins --dry-run
  crossfade verify --table app.users --repair newest
  crossfade verify --continuous             the forward process compares again and again; `--continuous off` ends that

Both sides are compared in chunks of each table's key, by checksums that the servers compute. A chunk that differs is read row
by row, and a row that differs is looked at again after both directions have passed a fresh mark: it counts once it has stayed
different while nothing was under way. So both may be written meanwhile, and both sync processes should run: a row whose
changes cannot arrive is counted as unconfirmed.

--repair mends what stayed different, row by row: both rows are locked and must still be what they were, and a change by users
that came meanwhile is never overwritten. What is written is not sent back, and is compared once more. Rows are inserted parents
first and deleted children first; a row to which others refer is not deleted. At most 100,000 rows of a table are mended at a
time.

Exit code 1 if a table has more rows that are missing or different than --max-mismatch allows, or rows that could not be
confirmed; with --repair, if a row is left that was not mended.";

#[derive(Debug, Args)]
pub struct VerifyArgs {
    #[command(subcommand)]
    pub command: Option<VerifyCommand>,
    /// Only this table, as either side names it: schema.table; may be given several times
    #[arg(long = "table", value_name = "TABLE")]
    pub tables: Vec<String>,
    /// Only rows that fulfil this condition, in SQL; its columns must bear the same names on both sides
    #[arg(long = "where", value_name = "CONDITION")]
    pub condition: Option<String>,
    /// Only a share of each table's chunks, spread evenly from a random one on
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub sample: Option<Percent>,
    /// Only rows whose clock is within this time, taken as UTC, on either side; tables without such a clock are skipped
    #[arg(long, value_name = "DURATION")]
    pub since: Option<humantime::Duration>,
    /// Rows of a table that may be missing or different without exit code 1
    #[arg(long, value_name = "PERCENT", value_parser = percent, default_value = "0%")]
    pub max_mismatch: Percent,
    /// How long both directions may take to pass a mark
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    pub wait: humantime::Duration,
    /// The time that a chunk is to take on the slower side
    #[arg(long, value_name = "DURATION", default_value = "500ms")]
    pub chunk_time: humantime::Duration,
    /// Tables that are compared at a time
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub parallel: u16,
    /// Rows of each table that differ and are kept with their values for `verify show`; all are counted
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub keep: u32,
    /// Make rows equal that are missing or different, by the row of one side or the newer one
    #[arg(long, value_name = "WINNER")]
    pub repair: Option<RepairWinner>,
    /// With --repair: only show which rows would be written
    #[arg(long, requires = "repair")]
    pub dry_run: bool,
    /// Have the forward process compare all tables again and again, in the background, or no longer; `[verify]` bounds it
    #[arg(
        long,
        value_name = "SWITCH",
        num_args = 0..=1,
        default_missing_value = "on",
        conflicts_with_all = ["tables", "condition", "sample", "since", "repair", "json"]
    )]
    pub continuous: Option<Switch>,
    #[command(flatten)]
    pub output: JsonOutput,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    On,
    Off,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RepairWinner {
    /// The old side's rows are taken; rows that only new has go
    OldWins,
    /// The new side's rows are taken; rows that only old has go
    NewWins,
    /// The row with the later clock is taken, and one that the other side lacks
    Newest,
}

#[derive(Debug, Subcommand)]
pub enum VerifyCommand {
    /// Show the rows that a comparison found missing or different, column by column
    #[command(
        after_help = "Examples:\n  crossfade verify show\n  crossfade verify show --table app.users --limit 5\n  crossfade verify show --continuous\n  crossfade verify show --json | jq '.differences[].row_key'"
    )]
    Show(VerifyShowArgs),
}

#[derive(Debug, Args)]
pub struct VerifyShowArgs {
    /// The comparison's number; the last one that somebody has asked for if left out
    #[arg(long, value_name = "NUMBER")]
    pub id: Option<u64>,
    /// The last round that the forward process has ended in the background; without one, that which is under way
    #[arg(long, conflicts_with = "id")]
    pub continuous: bool,
    /// Only this table, as the old side names it: schema.table
    #[arg(long, value_name = "TABLE")]
    pub table: Option<String>,
    /// At most this many rows
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub limit: u32,
    #[command(flatten)]
    pub output: JsonOutput,
}

/// A share, in percent: 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Percent(pub f64);

fn percent(text: &str) -> Result<Percent, String> {
    let number = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
    number
        .filter(|number| (0.0..=100.0).contains(number))
        .map(Percent)
        .ok_or_else(|| "it is written as 0% to 100%".to_owned())
}
