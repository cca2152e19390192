//! Configurations that are wrong: for each, the lines, what is said of them, and what is to be done.

use std::path::Path;

use crossfade_config::{Problems, Settings};

/// A file, and the problems that it must give: line, part of the message, part of the remedy.
struct Case {
    name: &'static str,
    text: &'static str,
    problems: &'static [(usize, &'static str, &'static str)],
}

/// Replaced by three valid lines, so that what follows begins on line 4.
const SIDES: &str = "pair = 'p'\nold.url = 'mysql://u@o'\nnew.url = 'mysql://u@n'\n";
/// One valid line with a table.
const TABLE: &str = "table = [{ name = 'a.b' }]\n";

const CASES: &[Case] = &[
    Case {
        name: "nothing at all",
        text: "",
        problems: &[
            (1, "`pair` is missing", "add `pair = \"users\"`"),
            (1, "section `[old]` is missing", "add `[old]`"),
            (1, "section `[new]` is missing", "add `[new]`"),
            (1, "no table is named", "add `[[table]]`"),
        ],
    },
    Case { name: "not TOML", text: "SIDESTABLEbroken = = 1", problems: &[(5, "not TOML", "correct the line")] },
    Case { name: "a key twice", text: "SIDESTABLEpair = 'q'", problems: &[(5, "not TOML", "correct the line")] },
    Case {
        name: "unknown key, near a known one",
        text: "SIDESTABLE[aply]\nlanes = 1",
        problems: &[(5, "unknown key `aply` in the file", "did you mean `apply`?")],
    },
    Case {
        name: "unknown key, near nothing",
        text: "SIDESTABLE[memory]\nwatermelon = 1",
        problems: &[(6, "unknown key `watermelon` in [memory]", "known here: limit")],
    },
    Case {
        name: "unknown key in a table",
        text: "SIDES[[table]]\nname = 'a.b'\nclocks = 'c'",
        problems: &[(6, "unknown key `clocks` in [[table]]", "did you mean `clock`?")],
    },
    Case {
        name: "a group that is none, and one beside an entity",
        text: "SIDES[[table]]\nname = 'a.b'\ngroup = 'B/2'\n[[table]]\nname = 'a.c'\ngroup = 'billing'\n\
               [entity]\nname = 'user'\n[[entity.table]]\nname = 'a.b'\nkey = 'id'",
        problems: &[
            (6, "`group = \"B/2\"` is not a name", "use 1 to 31 of a-z, 0-9, `_` and `-`"),
            (7, "`group` stands beside `[entity]`", "remove every `group`, or `[entity]`"),
        ],
    },
    Case {
        name: "a fence that is none, and times and shares that are none",
        text: "SIDESTABLE[cutover]\nfence = 'wall'\ntimeout = '10ms'\nmax_lag = 2\nmax_mismatch = '101%'\nrequire_instances = 'no'",
        problems: &[
            (6, "`fence = \"wall\"` is not a fence", "use `flag` or `read_only` or `account`"),
            (7, "`timeout = \"10ms\"` is not a length of time of at least 1s", "`timeout = \"10s\"`"),
            (8, "`max_lag = 2` has no unit", "`max_lag = \"2s\"`"),
            (9, "`max_mismatch = \"101%\"` is not a share", "a percentage up to 100"),
            (10, "`require_instances` is string, not true or false", "`require_instances = true`"),
        ],
    },
    Case {
        name: "an entity of nothing",
        text: "SIDESTABLE[entity]\nallow_on_old = 'x'\nlease = '10s'\nbatches = 1",
        problems: &[
            (5, "no table is named", "add `[[entity.table]]`"),
            (6, "`allow_on_old` is string, not a list of texts", "`allow_on_old = [\"password_hash\""),
            (7, "`lease` is not shorter than `fence_timeout`", "shorten `lease`"),
            (8, "unknown key `batches` in [entity]", "did you mean `batch`?"),
        ],
    },
    Case {
        name: "tables of an entity that cannot be its",
        text: "SIDES[[table]]\nname = 'a.*'\n[[table]]\nname = 'a.log'\none_way = true\n[[table]]\nname = 'a.tmp'\nskip = true\n\
               [entity]\nallow_on_old = ['x', 'X', 'ID']\n\
               [[entity.table]]\nname = 'a.users'\nkey = 'id'\n[[entity.table]]\nname = 'a.users'\nkey = 'id'\n\
               [[entity.table]]\nname = 'a.log'\nkey = 'id'\n[[entity.table]]\nname = 'a.tmp'\nkey = 'id'\n\
               [[entity.table]]\nname = 'b.c'\nkey = 'id'\n[[entity.table]]\nname = 'a.*'\nkey = ''\n\
               [[entity.table]]\nname = 'a.o'\nkey = 'id'\nvia = 'o'\n\
               [[entity.table]]\nname = 'a.p'\nparent = 'a.gone'\nvia = 'o'\nallow_on_old = ['o']\n\
               [[entity.table]]\nname = 'a.q'\nparent = 'a.r'\nvia = 'o'\n[[entity.table]]\nname = 'a.r'\nparent = 'a.q'\nvia = 'o'",
        problems: &[
            (13, "`allow_on_old` names `X` twice", "name each column once"),
            (13, "`allow_on_old` names `ID`, by which a row's entity is found", "leave it out"),
            (17, "`a.users` is named a second time", "or the one of line 14"),
            (21, "`a.log` crosses one way only", "remove `one_way`"),
            (24, "`a.tmp` is left out by its `[[table]]`", "sync it"),
            (27, "`b.c` is no table that is synced", "add a `[[table]]`"),
            (30, "`name = \"a.*\"` stands for several tables", "each table by itself"),
            (31, "`key` is empty", "name a column"),
            (32, "needs either `key`, or both `parent` and `via`", "`parent = \"app.orders\"`"),
            (36, "`parent = \"a.gone\"` has no `[[entity.table]]`", "add one for `a.gone`"),
            (40, "`allow_on_old` names `o`", "leave it out"),
            (41, "the parents of `a.q` lead back to it", "name for one of them"),
            (45, "the parents of `a.r` lead back to it", "name for one of them"),
        ],
    },
    Case {
        name: "an entity without a table of its own",
        text: "SIDESTABLE[entity]\n[[entity.table]]\nname = 'a.b'\nparent = 'a.b'\nvia = 'c'",
        problems: &[
            (5, "no `[[entity.table]]` holds the key itself", "one row for each entity"),
            (6, "the parents of `a.b` lead back to it", "name for one of them"),
        ],
    },
    Case {
        name: "a fence for accounts that are not named",
        text: "SIDESTABLE[cutover]\nfence = 'account'",
        problems: &[(5, "`account` is missing in [cutover]", "add `account = \"app@%\"`")],
    },
    Case {
        name: "accounts that are none, and that nothing keeps out",
        text: "SIDESTABLE[cutover]\naccount = ['app', '@h', 3]",
        problems: &[
            (6, "`account` is integer, not a text or a list of texts", "`account = \"app@%\"`"),
            (6, "`@h` is no account", "`account = \"app@%\"`"),
            (6, "`account` is kept out by `fence = \"account\"` alone", "leave `account` out"),
        ],
    },
    Case {
        name: "sessions that would be ended too late",
        text: "SIDESTABLE[cutover]\ntimeout = '5s'\nend_transactions_after = '5s'",
        problems: &[(7, "`end_transactions_after` is not before the `timeout`", "name a shorter time")],
    },
    Case {
        name: "merging by something else than columns",
        text: "SIDES[[table]]\nname = 'a.b'\nmerge = 'rows'",
        problems: &[(6, "`merge = \"rows\"` is not known", "write `merge = \"columns\"`")],
    },
    Case {
        name: "rules for merging without merging",
        text: "SIDES[[table]]\nname = 'a.b'\n[table.merge_rules]\nn = 'max'",
        problems: &[(6, "`merge_rules` says how columns are merged, and they are not", "write `merge = \"columns\"`")],
    },
    Case {
        name: "rules for merging that are none",
        text: "SIDES[[table]]\nname = 'a.b'\nmerge = 'columns'\nmerge_rules = { n = 'sum', '' = 'max', o = 1, p = 'max', P = 'min' }",
        problems: &[
            (7, "`merge_rules` is integer, not a table of texts", "sum-delta"),
            (7, "`merge_rules` has an empty name", "name a column"),
            (7, "`n = \"sum\"` is no rule for merging a column", "`newer` or `max` or `min` or `sum-delta`"),
            (7, "twice", "name each column once"),
        ],
    },
    Case {
        name: "merging one way",
        text: "SIDES[[table]]\nname = 'a.b'\none_way = true\nmerge = 'columns'",
        problems: &[(7, "nothing to merge where changes go one way only", "remove `merge`, or `one_way = true`")],
    },
    Case {
        name: "merging by the newer change without a clock",
        text: "SIDES[[table]]\nname = 'a.b'\npolicy = 'newest'\nmerge = 'columns'",
        problems: &[(6, "policy `newest` needs a clock", "add `clock = \"<column>\"`")],
    },
    Case {
        name: "one server and several",
        text: "pair = 'p'\nnew.url = 'mysql://u@n'\nTABLE[old]\nurl = 'mysql://u@a'\nurls = ['mysql://u@a', 'mysql://u@b']",
        problems: &[(5, "`url` and `urls` are both given", "leave `url` out")],
    },
    Case {
        name: "several servers, each wrong in its way",
        text: "pair = 'p'\nnew.urls = []\nTABLE[old]\nurls = [\n  'http://u@a',\n  7,\n  'mysql://u@c:0',\n  'mysql://${NOBODY}@d',\n]",
        problems: &[
            (2, "`urls` is empty", "write it as `urls = [\"mysql://"),
            (6, "`urls`: the URL does not begin with `mysql://`", "write it as"),
            (7, "`urls` is integer, not a list of texts", "write it as `urls = ["),
            (8, "the URL's port is not a number", "3306"),
            (9, "environment variable `NOBODY` is not set", "export NOBODY"),
        ],
    },
    Case {
        name: "several servers that are one text, one, or read elsewhere",
        text: "pair = 'p'\nnew.urls = 'mysql://u@n'\nTABLE[old]\nurls = ['mysql://u@a', 'mysql://w@a:3306']\nbinlog_url = 'mysql://u@r'",
        problems: &[
            (2, "`urls` is string, not a list of texts", "write it as `urls = ["),
            (5, "`urls` names a:3306 twice", "name each server once"),
            (6, "`binlog_url` stands beside `urls`", "name that replica first"),
        ],
    },
    Case {
        name: "pair with capitals",
        text: "pair = 'Users'\nold.url = 'mysql://u@o'\nnew.url = 'mysql://u@n'\nTABLE",
        problems: &[(1, "`pair = \"Users\"` is not a name", "a-z")],
    },
    Case {
        name: "pair empty",
        text: "pair = ''\nold.url = 'mysql://u@o'\nnew.url = 'mysql://u@n'\nTABLE",
        problems: &[(1, "is not a name", "1 to 32")],
    },
    Case {
        name: "pair is a number",
        text: "pair = 3\nold.url = 'mysql://u@o'\nnew.url = 'mysql://u@n'\nTABLE",
        problems: &[(1, "`pair` is integer, not text", "write it as `pair = \"users\"`")],
    },
    Case {
        name: "a side without a URL",
        text: "pair = 'p'\nnew.url = 'mysql://u@n'\nTABLE\n[old]\nbinlog_url = 'mysql://u@o'",
        problems: &[(5, "`url` is missing in [old]", "add `url = \"mysql://")],
    },
    Case {
        name: "a side that is text",
        text: "pair = 'p'\nold = 'mysql://u@o'\nnew.url = 'mysql://u@n'\nTABLE",
        problems: &[(2, "`old` is string, not a section", "write `[old]`")],
    },
    Case {
        name: "another scheme",
        text: "pair = 'p'\nold.url = 'postgres://u@o'\nnew.url = 'mysql://u@n'\nTABLE",
        problems: &[(2, "does not begin with `mysql://`", "mysql://user:password@host:port")],
    },
    Case {
        name: "no account",
        text: "pair = 'p'\nold.url = 'mysql://o:3306'\nnew.url = 'mysql://:pw@n'\nTABLE",
        problems: &[(2, "has no account", "mysql://user"), (3, "has no user", "mysql://user")],
    },
    Case {
        name: "a schema in the URL",
        text: "pair = 'p'\nold.url = 'mysql://u@o/app'\nnew.url = 'mysql://u@n'\nTABLE",
        problems: &[(2, "names a schema", "leave it out")],
    },
    Case {
        name: "a port that is none",
        text: "pair = 'p'\nold.url = 'mysql://u@o:99999'\nnew.url = 'mysql://u@n:0'\nTABLE",
        problems: &[(2, "port is not a number", "`:3306`"), (3, "port is not a number", "`:3306`")],
    },
    Case {
        name: "an unencoded slash in a password",
        text: "pair = 'p'\nold.url = 'mysql://u:half/other@o:3306'\nnew.url = 'mysql://u@n'\nTABLE",
        problems: &[(2, "names a schema", "leave it out")],
    },
    Case {
        name: "a host that is none",
        text: "pair = 'p'\nold.url = 'mysql://u@'\nnew.url = 'mysql://u@a b'\nTABLE",
        problems: &[(2, "has no host", "db.example:3306"), (3, "not a host name", "db.example:3306")],
    },
    Case {
        name: "IPv6 without its brackets, and with half",
        text: "pair = 'p'\nold.url = 'mysql://u@::1'\nnew.url = 'mysql://u@[::1'\nTABLE",
        problems: &[(2, "has no host", "[::1]:3306"), (3, "no closing `]`", "[::1]:3306")],
    },
    Case {
        name: "brackets around a name",
        text: "pair = 'p'\nold.url = 'mysql://u@[db]:1'\nnew.url = 'mysql://u@[::1]x'\nTABLE",
        problems: &[(2, "not an IPv6 address", "[::1]:3306"), (3, "text between", "[::1]:3306")],
    },
    Case {
        name: "an unknown TLS mode",
        text: "pair = 'p'\nold.url = 'mysql://u@o/?ssl-mode=SOMETIMES'\nnew.url = 'mysql://u@n'\nTABLE",
        problems: &[(2, "`ssl-mode` is unknown", "VERIFY_IDENTITY")],
    },
    Case {
        name: "options that nobody knows, or that are empty",
        text: "pair = 'p'\nold.url = 'mysql://u@o/?timeout=3'\nnew.url = 'mysql://u@n?ssl-ca='\nTABLE",
        problems: &[(2, "unknown option", "`socket`"), (3, "`ssl-ca` is empty", "ssl-ca=/path")],
    },
    Case {
        name: "a percent sign that encodes nothing",
        text: "pair = 'p'\nold.url = 'mysql://u:50%@o'\nnew.url = 'mysql://u:%ff@n'\nTABLE",
        problems: &[(2, "two hexadecimal digits", "`%25`"), (3, "not UTF-8", "`%25`")],
    },
    Case {
        name: "variables that are not set",
        text: "pair = '${PAIR}'\nold.url = 'mysql://u:${OLD_PW}@o'\nnew.url = '${A}${B}'\nTABLE",
        problems: &[
            (1, "environment variable `PAIR` is not set", "export PAIR="),
            (2, "environment variable `OLD_PW` is not set", "export OLD_PW="),
            (3, "environment variable `A` is not set", "export A="),
            (3, "environment variable `B` is not set", "export B="),
        ],
    },
    Case {
        name: "broken placeholders",
        text: "pair = '${SET'\nold.url = 'mysql://u:${}@o'\nnew.url = 'mysql://u@n'\nTABLE",
        problems: &[(1, "no closing `}`", "`$${`"), (2, "does not name an environment variable", "`${NAME}`")],
    },
    Case {
        name: "times without a unit, or too short, or nonsense",
        text: "SIDESTABLE[store]\nretention = 7",
        problems: &[(6, "`retention = 7` has no unit", "retention = \"7d\"")],
    },
    Case {
        name: "a time that is too short",
        text: "SIDESTABLE[store]\nretention = '5s'",
        problems: &[(6, "not a length of time of at least 60s", "retention = \"7d\"")],
    },
    Case {
        name: "a time that is none",
        text: "SIDESTABLE[store]\nretention = 'a week'",
        problems: &[(6, "`retention = \"a week\"` is not a length of time", "number with a unit")],
    },
    Case {
        name: "sizes without a unit, or wrong",
        text: "SIDESTABLE[apply]\nbatch_bytes = 4096\n[memory]\nlimit = '1MiB'",
        problems: &[
            (6, "`batch_bytes = 4096` has no unit", "batch_bytes = \"16MiB\""),
            (8, "is not a size of at least 67108864 bytes", "limit = \"512MiB\""),
        ],
    },
    Case {
        name: "a size that is none",
        text: "SIDESTABLE[apply]\nbatch_bytes = 'lots'",
        problems: &[(6, "`batch_bytes = \"lots\"` is not a size", "batch_bytes = \"16MiB\"")],
    },
    Case {
        name: "a backlog that holds nothing",
        text: "SIDESTABLE[store]\nmax_backlog = '1KiB'",
        problems: &[(6, "is not a size of at least 65536 bytes", "max_backlog = \"16GiB\"")],
    },
    Case {
        name: "a batch that does not fit into memory",
        text: "SIDESTABLE[apply]\nbatch_bytes = '1GiB'\n[memory]\nlimit = '1GiB'",
        problems: &[(7, "more than a quarter", "raise `limit`")],
    },
    Case {
        name: "numbers out of range, and no numbers",
        text: "SIDESTABLE[apply]\nlanes = 0\nbatch_rows = '2000'",
        problems: &[(6, "`lanes = 0` is out of range", "from 1 to 64"), (7, "is string, not a whole number", "8000")],
    },
    Case {
        name: "numbers that overflow",
        text: "SIDESTABLE[apply]\nlanes = 99999999999999999999\nbatch_rows = -1",
        problems: &[(6, "is out of range", "from 1 to 64"), (7, "`batch_rows = -1` is out of range", "100000")],
    },
    Case {
        name: "a side that does not exist",
        text: "SIDESTABLE[conflict]\nprefer = 'newest'",
        problems: &[(6, "`prefer = \"newest\"` is not a side", "`new` or `old`")],
    },
    Case {
        name: "breakers that could never trip, or would at once",
        text: "SIDESTABLE[conflict]\nmax_crossings = 1\ncrossing_window = '1ms'\n[apply]\ncanary_every = '0s'\nmax_parked_share = 'half'\nmax_parked = 0",
        problems: &[
            (6, "`max_crossings = 1` is out of range", "from 2 to 1000"),
            (7, "`crossing_window = \"1ms\"` is not a length of time", "crossing_window = \"60s\""),
            (9, "`canary_every = \"0s\"` is not a length of time", "canary_every = \"1m\""),
            (10, "`max_parked_share = \"half\"` is not a share", "max_parked_share = \"1%\""),
            (11, "`max_parked = 0` is out of range", "from 1 to 10000"),
        ],
    },
    Case {
        name: "addresses that nobody can listen on",
        text: "SIDESTABLE[http]\nlisten = 'localhost'",
        problems: &[(6, "`listen = \"localhost\"` is not an address with a port", "write it as `127.0.0.1:8420`")],
    },
    Case {
        name: "tables that are one section",
        text: "SIDES[table]\nname = 'a.b'",
        problems: &[(4, "`table` is table, not a list of sections", "`[[table]]`, with two brackets")],
    },
    Case {
        name: "tables that are names",
        text: "SIDEStable = ['a.b']",
        problems: &[(4, "`table` holds string", "`[[table]]`, with two brackets")],
    },
    Case {
        name: "a table without a name, with half of one, with too many",
        text: "SIDES[[table]]\nclock = 'c'\n[[table]]\nold = 'a.b'\n[[table]]\nname = 'a.c'\nnew = 'a.d'",
        problems: &[
            (4, "either `name`, or both `old` and `new`", "name = \"app.users\""),
            (6, "either `name`, or both `old` and `new`", "name = \"app.users\""),
            (8, "either `name`, or both `old` and `new`", "name = \"app.users\""),
        ],
    },
    Case {
        name: "names without a schema, with a space, with three parts, with an open quote",
        text: "SIDES[[table]]\nname = 'users'\n[[table]]\nname = 'a .b'\n[[table]]\nname = 'a.b.c'\n[[table]]\nname = '`a.b'",
        problems: &[
            (5, "`name = \"users\"` is not a table with its schema", "`schema.table`"),
            (7, "is not a table with its schema", "`schema.table`"),
            (9, "has more than a schema and a table", "back-quotes"),
            (11, "has a back-quote that is not closed", "back-quotes"),
        ],
    },
    Case {
        name: "schemas that cannot be synced",
        text: "SIDES[[table]]\nname = 'mysql.user'\n[[table]]\nname = 'CrossFade.checkpoint'\n[[table]]\nname = '*.users'",
        problems: &[
            (5, "`name = \"mysql.user\"` is in a schema that cannot be synced", "schema.table"),
            (7, "is in a schema that cannot be synced", "schema.table"),
            (9, "has a `*` in its schema", "schema.table"),
        ],
    },
    Case {
        name: "patterns that rename tables",
        text: "SIDES[[table]]\nold = 'a.*'\nnew = 'b.x*'\n[[table]]\nold = 'a.x'\nnew = 'b.*'",
        problems: &[(6, "the same table part", "new = \"b.*\""), (9, "the same table part", "new = \"b.*\"")],
    },
    Case {
        name: "one table twice, two tables into one",
        text: "SIDES[[table]]\nname = 'a.b'\n[[table]]\nname = 'a.b'\n[[table]]\nold = 'a.c'\nnew = 'a.b'",
        problems: &[
            (6, "`a.b` is named a second time", "the one of line 4"),
            (8, "`a.b` is named a second time", "the one of line 4"),
        ],
    },
    Case {
        name: "policies that need a clock, or are none",
        text: "SIDES[[table]]\nname = 'a.b'\npolicy = 'version'\n[[table]]\nname = 'a.c'\npolicy = 'oldest'",
        problems: &[
            (6, "policy `version` needs a clock", "add `clock"),
            (9, "`policy = \"oldest\"` is not a policy", "`prefer-new`"),
        ],
    },
    Case {
        name: "columns that are no table, hold no text, or clash",
        text: "SIDES[[table]]\nname = 'a.b'\ncolumns = ['x']\n[[table]]\nname = 'a.c'\ncolumns = { x = 1 }\n\
               [[table]]\nname = 'a.d'\ncolumns = { x = 'y', z = 'Y' }\n[[table]]\nname = 'a.e'\ncolumns = { x = '' }",
        problems: &[
            (6, "`columns` is array, not a table", "{ old_name = \"new_name\" }"),
            (9, "`columns` is integer, not a table of texts", "{ old_name"),
            (12, "`columns` names `z` or `Y` twice", "name each column once"),
            (15, "has an empty name", "on both sides"),
        ],
    },
    Case {
        name: "a flag that is text",
        text: "SIDES[[table]]\nname = 'a.b'\none_way = 'yes'",
        problems: &[(6, "`one_way` is string, not true or false", "one_way = false")],
    },
    Case {
        name: "an empty list of tables",
        text: "SIDEStable = []",
        problems: &[(4, "no table is named", "add `[[table]]`")],
    },
    Case {
        name: "everything at once, in the order of lines",
        text: "[apply]\nlanes = 'many'\n[old]\nurl = 'nowhere'\n[new]\nport = 3306\n[[table]]\nname = 'x'\n[zzz]\n",
        problems: &[
            (1, "`pair` is missing", "add `pair"),
            (2, "`lanes` is string", "lanes = 4"),
            (4, "does not begin with `mysql://`", "mysql://"),
            (5, "`url` is missing in [new]", "add `url"),
            (6, "unknown key `port` in [new]", "known here: url, binlog_url"),
            (8, "is not a table with its schema", "schema.table"),
            (9, "unknown key `zzz` in the file", "known here: pair, old, new, store"),
        ],
    },
];

fn environment(name: &str) -> Option<String> {
    (name == "SET").then(|| "set".to_owned())
}

fn problems_of(text: &str) -> Result<Settings, Problems> {
    Settings::parse(Path::new("dir/test.toml"), text, &environment)
}

#[test]
fn every_problem_is_told_with_its_line_and_remedy_and_all_together() {
    for case in CASES {
        let text = case.text.replace("SIDES", SIDES).replace("TABLE", TABLE);
        let problems = problems_of(&text).expect_err(case.name);
        let found: Vec<String> = problems.iter().map(|problem| problem.to_string()).collect();
        assert_eq!(problems.len(), case.problems.len(), "{}: {found:#?}", case.name);
        for (problem, (line, message, remedy)) in problems.iter().zip(case.problems) {
            assert_eq!(problem.file, Path::new("dir/test.toml"));
            assert_eq!(problem.line, Some(*line), "{}: {found:#?}", case.name);
            assert!(problem.message.contains(message), "{}: {message:?} in {found:#?}", case.name);
            assert!(problem.remedy.contains(remedy), "{}: {remedy:?} in {found:#?}", case.name);
        }
    }
}

#[test]
fn a_problem_reads_like_a_compilers_message() {
    let problems = problems_of("").unwrap_err();
    let text = problems.to_string();
    let first = "dir/test.toml:1: `pair` is missing in the file\n  remedy: add `pair = \"users\"`\n";
    assert!(text.starts_with(first), "{text}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let problems = Settings::load(Path::new("/nowhere/crossfade.toml")).unwrap_err();
    let text = problems.to_string();
    assert!(text.starts_with("/nowhere/crossfade.toml: the configuration cannot be read"), "{text}");
    assert!(text.contains("--config"), "{text}");
}

/// Whatever stands around a password, no problem repeats it.
#[test]
fn no_problem_repeats_a_secret() {
    let secret = "s3same";
    let urls = [
        "mysql://u:s3same",
        "mysql://u:s3same@",
        "mysql://u:s3same@h:x",
        "mysql://u:s3same@h/db",
        "u:s3same@h",
        "mysql://u:s3same@h/?s3same=1",
        "mysql://u:a?s3same@h",
        "mysql://u:a/s3same@h",
        "mysql://u:%s3same@h",
        "mysql://u:p?ssl-mode=s3same@h",
        "mysql://u:[s3same@h:[",
        "mysql://u@s3same:s3same:3",
        "mysql://u@[s3same]",
    ];
    for url in urls {
        for text in [format!("old.url = '{url}'"), "old.url = '${SECRET_URL}'".to_owned()] {
            let environment = |name: &str| (name == "SECRET_URL").then(|| url.to_owned());
            let problems = Settings::parse(Path::new("f"), &text, &environment).unwrap_err();
            let shown = format!("{problems} {problems:?}");
            assert!(!shown.contains(secret), "{url}: {shown}");
            assert!(shown.contains("`url`"), "{url}: {shown}");
        }
    }
    let environment = |_: &str| Some(secret.to_owned());
    let text = "pair = '${S}!'\nstore.retention = '${S}'\nconflict.prefer = '${S}'\nmemory.limit = '${S}'\n\
                [[table]]\nname = 'a.b'\npolicy = '${S}'\n[[table]]\nname = '${S}'";
    let problems = Settings::parse(Path::new("f"), text, &environment).unwrap_err();
    assert!(problems.len() >= 6 && !format!("{problems} {problems:?}").contains(secret), "{problems}");
}

/// Bytes from a valid file, shuffled: whatever comes out, nothing panics.
#[test]
fn mangled_files_never_panic() {
    let text = include_str!("../../../config/crossfade.toml");
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = move |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % bound
    };
    let mut wrong = 0;
    for _ in 0..2_000 {
        let mut characters: Vec<char> = text.chars().filter(|c| *c != '#' || next(2) == 0).collect();
        for _ in 0..1 + next(20) {
            let (from, to) = (next(characters.len()), next(characters.len()));
            match next(3) {
                0 => characters.swap(from, to),
                1 => characters[from] = characters[to],
                _ => drop(characters.remove(from)),
            }
        }
        let mangled: String = characters.into_iter().collect();
        wrong += usize::from(problems_of(&mangled).is_err());
    }
    assert!(wrong > 1_000, "only {wrong} were wrong: nothing was mangled");
}
