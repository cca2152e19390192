//! P4 and P2 for `merge = "columns"`: changes of different columns of one row both survive, of one column the rule decides, and
//! what is added on both sides adds up, exactly, whatever is killed meanwhile.

mod columns;
mod lost_answer;
mod random;
mod shapes;
mod sums;

use std::time::Duration;

use anyhow::Result;
use crossfade_servers::Flavor;

use crossfade_tests::{Migration, Setup};
use mysql_async::prelude::Queryable;

const LIMIT: Duration = Duration::from_secs(120);

const ACCOUNTS: &str = "CREATE TABLE {schema}.accounts (id INT PRIMARY KEY, name VARCHAR(40) NOT NULL, \
     email VARCHAR(40) CHARACTER SET latin1 NULL, best INT NULL, earliest DATETIME NOT NULL, balance BIGINT NOT NULL, \
     price DECIMAL(30,10) NOT NULL, extra JSON NULL, \
     touched_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6), \
     updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6))";

const MERGED: &str = "[[table]]\nname = \"{schema}.*\"\nclock = \"updated_at\"\nmerge = \"columns\"\n\
     merge_rules = { best = \"max\", earliest = \"min\", balance = \"sum-delta\", price = \"sum-delta\" }\n";

async fn accounts(flavor: Flavor, name: &'static str) -> Result<Migration> {
    let setup = Setup { tables: MERGED.to_owned(), ..Setup::new(flavor, name) };
    let mut migration = Migration::new(&setup).await?;
    migration.on_both(&[ACCOUNTS]).await?;
    migration.init().await?;
    migration.start_both().await?;
    Ok(migration)
}

/// Runs statements one after the other, each on its side, so that each is later than the one before.
async fn in_turn(migration: &Migration, statements: &[(Side, &str)]) -> Result<()> {
    for (side, statement) in statements {
        let pool = if *side == Side::Old { &migration.old } else { &migration.new };
        migration.on(pool, &[statement]).await?;
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Old,
    New,
}

/// `name email best earliest balance price`, or nothing.
async fn row(migration: &Migration, id: u32) -> Result<Option<String>> {
    let query = format!(
        "SELECT CONCAT_WS(' ', name, email, best, DATE(earliest), balance, TRIM(TRAILING '0' FROM price)) \
         FROM `{}`.accounts WHERE id = {id}",
        migration.schema
    );
    Ok(migration.old.get_conn().await?.query_first(query).await?)
}

/// The seed that is asked for by `CROSSFADE_SEED`, or any; printed for the next time.
fn seed(flavor: Flavor) -> Result<u64> {
    let seed = match std::env::var("CROSSFADE_SEED") {
        Ok(seed) => seed.parse()?,
        Err(_) => rand::random(),
    };
    println!("{flavor:?}: the seed is CROSSFADE_SEED={seed}");
    Ok(seed)
}

macro_rules! tests {
    ($($test:ident: $module:ident::$of:ident on $flavor:ident;)*) => {$(
        #[tokio::test]
        async fn $test() -> Result<()> {
            $module::$of(Flavor::$flavor).await
        }
    )*};
}

tests! {
    p4_columns_are_merged_on_mysql: columns::columns_are_merged on MySql;
    p4_columns_are_merged_on_mariadb: columns::columns_are_merged on MariaDb;
    p4_rows_come_back_whole_on_mysql: columns::rows_come_back_whole on MySql;
    p4_rows_come_back_whole_on_mariadb: columns::rows_come_back_whole on MariaDb;
    p7_sums_wait_where_they_do_not_fit_on_mysql: sums::sums_wait_where_they_do_not_fit on MySql;
    p7_sums_wait_where_they_do_not_fit_on_mariadb: sums::sums_wait_where_they_do_not_fit on MariaDb;
    p2_a_corrected_sum_on_mysql: sums::a_corrected_sum_counts_once on MySql;
    p2_a_corrected_sum_on_mariadb: sums::a_corrected_sum_counts_once on MariaDb;
    p4_random_changes_converge_on_mysql: random::random_changes_converge on MySql;
    p4_random_changes_converge_on_mariadb: random::random_changes_converge on MariaDb;
    p2_balances_add_up_on_mysql: sums::balances_add_up on MySql;
    p2_balances_add_up_on_mariadb: sums::balances_add_up on MariaDb;
    p2_a_sum_whose_commit_was_not_told_on_mysql: lost_answer::a_retried_sum_counts_once on MySql;
    p2_a_sum_whose_commit_was_not_told_on_mariadb: lost_answer::a_retried_sum_counts_once on MariaDb;
    p4_columns_of_other_names_and_kinds_on_mysql: shapes::columns_of_other_names_and_kinds on MySql;
    p4_columns_of_other_names_and_kinds_on_mariadb: shapes::columns_of_other_names_and_kinds on MariaDb;
    p4_a_parent_that_stays_on_mysql: shapes::a_parent_that_stays on MySql;
    p4_a_parent_that_stays_on_mariadb: shapes::a_parent_that_stays on MariaDb;
}
