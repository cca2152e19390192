//! Views, routines, triggers, events and accounts as things that can be compared.

use std::collections::{BTreeMap, BTreeSet};

use crossfade_catalog::definition::{
    AccountDefinition, Grant, GrantScope, ObjectDefinition, ObjectKind, account_definitions, objects,
};
use crossfade_model::TableName;

use crate::SchemaError;
use crate::difference::{NotCompared, Thing};
use crate::names::{Names, translate_tables};
use crate::selection::SideSchema;
use crate::token::tokens;

/// All of a kind on one side; `names` for the old side. What may not be seen is told instead, once for each reason.
pub(crate) async fn object_things(
    side: &mut SideSchema,
    kind: ObjectKind,
    schemas: &BTreeSet<&str>,
    names: Option<&Names>,
    unseen: &mut Vec<NotCompared>,
) -> Result<Vec<Thing>, SchemaError> {
    let mut things = Vec::new();
    for schema in schemas {
        if let Some(grant) = side.sight.missing_for(kind, schema) {
            let of =
                if matches!(kind, ObjectKind::Procedure | ObjectKind::Function) { "routine" } else { kind.as_str() };
            let reason = format!("{} may not see each {of} of {schema}", side.sight.account());
            let told = NotCompared { what: format!("{of}s"), side: side.side, reason, remedy: grant };
            if !unseen.contains(&told) {
                unseen.push(told);
            }
            continue;
        }
        let found = objects(&mut side.conn, kind, schema).await?;
        things.extend(found.into_iter().map(|object| object_thing(kind, object, names)));
    }
    Ok(things)
}

fn object_thing(kind: ObjectKind, object: ObjectDefinition, names: Option<&Names>) -> Thing {
    let ObjectDefinition { schema, name, mut attributes } = object;
    let key_schema = names.map_or(schema.as_str(), |names| names.schema(&schema)).to_owned();
    if let Some(names) = names {
        if let Some(statement) = attributes.get_mut("statement") {
            *statement = translate_tables(names, &tokens(statement));
        }
        if let Some(table) = attributes.get_mut("table") {
            *table = names.table(&TableName::new(schema.as_str(), table.as_str())).table.to_string();
        }
    }
    if let Some(body) = attributes.get_mut("body") {
        *body = body.trim().to_owned();
    }
    let (name, key) = match kind {
        ObjectKind::Schema => (schema, key_schema),
        _ => (format!("{schema}.{name}"), format!("{key_schema}.{name}")),
    };
    Thing { kind: kind.as_str(), name, key, attributes }
}

/// Accounts that may do something with the schemas of their side, or with all; `None` where they cannot be seen.
pub(crate) async fn account_things(
    side: &mut SideSchema,
    schemas: &BTreeSet<&str>,
    names: Option<&Names>,
    unseen: &mut Vec<NotCompared>,
) -> Result<Option<Vec<Thing>>, SchemaError> {
    if let Some(grant) = side.sight.missing_for_accounts() {
        let reason = format!("{} may not see accounts and what is granted to them", side.sight.account());
        unseen.push(NotCompared { what: "accounts".to_owned(), side: side.side, reason, remedy: grant });
        return Ok(None);
    }
    let accounts = account_definitions(&mut side.conn, side.dialect).await?;
    Ok(Some(accounts.into_iter().filter_map(|account| account_thing(account, schemas, names)).collect()))
}

/// `None` for an account that has nothing to do with the schemas.
fn account_thing(account: AccountDefinition, schemas: &BTreeSet<&str>, names: Option<&Names>) -> Option<Thing> {
    let concerns = |grant: &&Grant| match &grant.scope {
        GrantScope::Everything | GrantScope::Roles => true,
        scope => schemas.iter().any(|schema| scope.is_on_schema(schema)),
    };
    let grants: Vec<&Grant> = account.grants.iter().filter(concerns).collect();
    if grants.is_empty() {
        return None;
    }
    let mut attributes: BTreeMap<String, String> = account.attributes;
    for grant in grants {
        let privileges: Vec<&str> = grant.privileges.iter().map(String::as_str).collect();
        attributes.insert(granted_on(&grant.scope, names), privileges.join(", "));
    }
    Some(Thing { kind: "account", name: account.name.clone(), key: account.name, attributes })
}

fn granted_on(scope: &GrantScope, names: Option<&Names>) -> String {
    let schema = |name: &str| names.map_or(name, |names| names.schema(name)).to_owned();
    let table = |name: &TableName| names.map_or_else(|| name.clone(), |names| names.table(name));
    match scope {
        GrantScope::Everything => "granted on *.*".to_owned(),
        GrantScope::Schema(name) => format!("granted on {}.*", schema(&unescaped(name))),
        GrantScope::Revoked(name) => format!("revoked on {}.*", schema(&unescaped(name))),
        GrantScope::Table(name) => format!("granted on {}", table(name)),
        GrantScope::Routine(kind, name) => {
            format!("granted on {} {}.{}", kind.to_lowercase(), schema(&name.schema), name.table)
        }
        GrantScope::Roles => "roles".to_owned(),
    }
}

/// `app\_one` is one schema, spelled so that it is no pattern.
fn unescaped(name: &str) -> String {
    name.replace("\\_", "_").replace("\\%", "%")
}
