//! `crossfade schema`: how the two sides' definitions differ, and creating on new what it lacks.

use std::collections::BTreeSet;
use std::io::{BufRead, IsTerminal};

use anyhow::Context;
use crossfade_config::Settings;
use crossfade_model::{Side, TableName};
use crossfade_schema::{Change, CopyPlan, Difference, Part, Report, SideSchema, TablePlan, compare};
use serde::Serialize;

use super::messages::table_name;
use super::print_json;
use crate::args::{SchemaCopyArgs, SchemaDiffArgs, SchemaPart};
use crate::failure::{Failure, Kind};
use crate::output::{one_line, out};
use crate::pair::{open_side, refuse_mixed};
use crate::sync::failpoint;

/// What is told of a text that may be long, such as the body of a routine; `--json` has all of it.
const TOLD_CHARS: usize = 160;

/// Exit code 1 where something differs or could not be seen.
pub async fn diff(settings: &Settings, args: &SchemaDiffArgs) -> anyhow::Result<u8> {
    let (mut old, mut new) = sides(settings).await?;
    let parts: BTreeSet<Part> = match args.only.is_empty() {
        true => Part::ALL.into(),
        false => args.only.iter().map(|part| Part::from(*part)).collect(),
    };
    let tables = names(&args.tables)?;
    let report = compare(settings, &mut old, &mut new, &parts, &tables).await?;
    refuse_unknown(&tables, report.compared.get("table").copied().unwrap_or(0) + report.not_compared.len())?;
    if args.json {
        print_json(&report)?;
    } else {
        print(&report);
    }
    Ok(u8::from(!report.is_equal()))
}

/// Exit code 1 where something stands in the way: then nothing is created.
pub async fn copy(settings: &Settings, args: &SchemaCopyArgs) -> anyhow::Result<()> {
    let (mut old, mut new) = sides(settings).await?;
    let tables = names(&args.tables)?;
    let plan = CopyPlan::read(settings, &mut old, &mut new, &tables).await?;
    refuse_unknown(&tables, plan.tables.len() + plan.present.len() + plan.refused.len())?;
    if args.json && args.dry_run {
        print_json(&Copied { created: false, plan: &plan })?;
    } else if !args.json {
        out!("{}", plan.script().trim_end());
    }
    refuse_what_is_in_the_way(&plan)?;
    if plan.tables.is_empty() {
        eprintln!("nothing is missing on the new side");
    }
    if !args.dry_run && !plan.tables.is_empty() {
        if !args.yes && !is_wanted(&plan)? {
            eprintln!("nothing was created");
            return Ok(());
        }
        let probe = failpoint::from_environment()?;
        let tell = |table: &TablePlan| {
            eprintln!("created {}", table.new);
            probe("table-created");
        };
        plan.run(&mut old, &mut new, tell).await?;
        let (count, plural) = (plan.tables.len(), if plan.tables.len() == 1 { "" } else { "s" });
        eprintln!(
            "{count} table{plural} created and like the old side's; `crossfade schema diff` shows what else differs"
        );
    }
    if args.json && !args.dry_run {
        print_json(&Copied { created: true, plan: &plan })?;
    }
    Ok(())
}

#[derive(Serialize)]
struct Copied<'p> {
    /// Whether the tables of the plan are there now.
    created: bool,
    #[serde(flatten)]
    plan: &'p CopyPlan,
}

async fn sides(settings: &Settings) -> anyhow::Result<(SideSchema, SideSchema)> {
    let ((old, old_facts), (new, new_facts)) =
        tokio::try_join!(open_side(settings, Side::Old), open_side(settings, Side::New))?;
    refuse_mixed(&old_facts, &new_facts)?;
    Ok((
        SideSchema::read(Side::Old, old, old_facts.dialect()).await.context("cannot read the old side")?,
        SideSchema::read(Side::New, new, new_facts.dialect()).await.context("cannot read the new side")?,
    ))
}

fn names(tables: &[String]) -> anyhow::Result<Vec<TableName>> {
    tables.iter().map(|name| table_name(name)).collect()
}

/// Somebody has named a table that the pair does not map.
fn refuse_unknown(tables: &[TableName], found: usize) -> anyhow::Result<()> {
    if found >= tables.len() {
        return Ok(());
    }
    let names: Vec<String> = tables.iter().map(ToString::to_string).collect();
    let message = format!("not all of these tables are synced: {}", names.join(", "));
    Err(Failure::new(Kind::Usage, message, "name tables that a `[[table]]` of the configuration takes").into())
}

fn refuse_what_is_in_the_way(plan: &CopyPlan) -> anyhow::Result<()> {
    if plan.refused.is_empty() {
        return Ok(());
    }
    let told =
        plan.refused.iter().map(|refusal| format!("{}: {}\n    {}", refusal.table, refusal.reason, refusal.remedy));
    let message = format!("nothing was created:\n  {}", told.collect::<Vec<_>>().join("\n  "));
    Err(Failure::new(Kind::Finding, message, "`crossfade schema diff` shows all that differs").into())
}

fn is_wanted(plan: &CopyPlan) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        let message = "nobody can be asked whether these tables shall be created";
        return Err(Failure::new(Kind::Usage, message, "run it with `--yes`, or with `--dry-run` to look only").into());
    }
    eprint!("create {} on the new side? [y/N] ", if plan.tables.len() == 1 { "this table" } else { "these tables" });
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).context("standard input cannot be read")?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

fn print(report: &Report) {
    for difference in &report.differences {
        print_difference(difference);
    }
    for unseen in &report.not_compared {
        out!("not compared on {}, {}: {}", unseen.side, unseen.what, unseen.reason);
        out!("  remedy: {}", unseen.remedy);
    }
    let compared: Vec<String> = report.compared.iter().map(|(kind, count)| counted(*count, kind)).collect();
    let compared = if compared.is_empty() { "nothing".to_owned() } else { compared.join(", ") };
    let verdict = match (report.differences.len(), report.not_compared.len()) {
        (0, 0) => "no difference".to_owned(),
        (differences, 0) => counted(differences, "difference"),
        (differences, unseen) => format!("{}, {unseen} not compared", counted(differences, "difference")),
    };
    out!("{verdict}; looked at: {compared}");
}

fn print_difference(difference: &Difference) {
    let Difference { kind, name, only_on, changes } = difference;
    match only_on {
        Some(side) => out!("{kind} {}: only on {side}", one_line(name)),
        None => out!("{kind} {} differs", one_line(name)),
    }
    for Change { what, old, new } in changes {
        match (only_on, old, new) {
            (Some(_), Some(value), _) | (Some(_), _, Some(value)) => out!("  {what}: {}", told(value)),
            (_, old, new) => {
                let told = |value: &Option<String>| value.as_deref().map_or_else(|| "-".to_owned(), told);
                out!("  {what}: {} on old, {} on new", told(old), told(new));
            }
        }
    }
}

fn told(value: &str) -> String {
    let line = one_line(value);
    if line.chars().count() <= TOLD_CHARS {
        return line;
    }
    format!("{}…", line.chars().take(TOLD_CHARS).collect::<String>())
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

impl From<SchemaPart> for Part {
    fn from(part: SchemaPart) -> Part {
        match part {
            SchemaPart::Tables => Part::Tables,
            SchemaPart::Views => Part::Views,
            SchemaPart::Routines => Part::Routines,
            SchemaPart::Triggers => Part::Triggers,
            SchemaPart::Events => Part::Events,
            SchemaPart::Accounts => Part::Accounts,
        }
    }
}
