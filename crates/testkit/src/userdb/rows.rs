//! Rows for ranges of users.

use std::ops::RangeInclusive;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{ORDERS_APART, UserDb};
use crate::sql;

/// How many orders loading gives to `user`: 0, 1 or 2.
pub fn orders_of(user: u64) -> u64 {
    user % 3
}

/// 2025-01-01 00:00:00 UTC.
const LOADED_SINCE: &str = "2025-01-01";
const NAMES: [&str; 8] = ["Anna", "Björn", "Chloé", "Dmitri Дми", "Émile", "O'Hara", "李小龙", "Zoë 🚲"];
const CITIES: [&str; 6] = ["Berlin", "Köln", "Malmö", "Orléans", "Évora", "Oslo"];
const COUNTRIES: [&str; 5] = ["DE", "FR", "SE", "NO", "PT"];

/// The rows of consecutive users, as lists of values per table.
#[derive(Debug, Default)]
pub struct Batch {
    users: Vec<String>,
    profiles: Vec<String>,
    addresses: Vec<String>,
    orders: Vec<String>,
    order_items: Vec<String>,
}

impl Batch {
    pub fn generate(seed: u64, users: RangeInclusive<u64>) -> Batch {
        let mut batch = Batch::default();
        for user in users {
            // Each user has a generator of its own, so that its rows do not depend on how batches are cut.
            let mut rng = StdRng::seed_from_u64(seed ^ user.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            batch.user(user, &mut rng);
        }
        batch
    }

    pub fn rows(&self) -> u64 {
        [&self.users, &self.profiles, &self.addresses, &self.orders, &self.order_items]
            .iter()
            .map(|rows| rows.len() as u64)
            .sum()
    }

    /// One multi-row insert per table, parents first.
    pub fn statements(&self, schema: &str) -> Vec<String> {
        let insert = |table: &str, columns: &str, rows: &[String]| {
            (!rows.is_empty())
                .then(|| format!("INSERT INTO {} ({columns}) VALUES {}", sql::full_name(schema, table), rows.join(",")))
        };
        [
            insert("users", "id, email, name, status, balance, settings, created_at, updated_at", &self.users),
            insert("profiles", "user_id, bio, birthday, avatar, score, languages, updated_at", &self.profiles),
            insert("addresses", "id, user_id, kind, street, city, country, updated_at", &self.addresses),
            insert("orders", "id, user_id, number, state, total, details, placed_at, updated_at", &self.orders),
            insert("order_items", "order_id, line, sku, quantity, price, weight, note, updated_at", &self.order_items),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn user(&mut self, user: u64, rng: &mut StdRng) {
        let at = moment(rng);
        let status = pick(rng, &["invited", "active", "active", "active", "blocked"]);
        let settings = if rng.random_ratio(1, 10) { "NULL".to_owned() } else { settings(rng) };
        self.users.push(format!(
            "({user}, {}, {}, '{status}', {}, {settings}, {at}, {at})",
            sql::text(&UserDb::email(user)),
            sql::text(pick(rng, &NAMES)),
            money(rng),
        ));
        let bio = if rng.random_ratio(1, 4) { "NULL" } else { "'Likes long walks, short queries and 東京.'" };
        self.profiles.push(format!(
            "({user}, {bio}, '19{:02}-{:02}-{:02}', {}, {}, '{}', {at})",
            rng.random_range(40..100),
            rng.random_range(1..13),
            rng.random_range(1..29),
            sql::bytes(&rng.random::<[u8; 12]>()),
            rng.random_range(-1.0e6..1.0e6_f64),
            pick(rng, &["", "de", "de,en", "es,fr,ja"]),
        ));
        let first = user * ORDERS_APART;
        for address in first..=first + user % 2 {
            self.addresses.push(format!(
                "({address}, {user}, '{}', '{} Main Street', {}, '{}', {at})",
                if address == first { "billing" } else { "shipping" },
                rng.random_range(1..200),
                sql::text(pick(rng, &CITIES)),
                pick(rng, &COUNTRIES),
            ));
        }
        for order in UserDb::order_ids(user) {
            self.order(user, order, rng);
        }
    }

    fn order(&mut self, user: u64, order: u64, rng: &mut StdRng) {
        let at = moment(rng);
        self.orders.push(format!(
            "({order}, {user}, 'N-{order}', '{}', {}, '{{\"channel\": \"{}\"}}', {at}, {at})",
            pick(rng, &["open", "paid", "shipped", "cancelled"]),
            money(rng),
            pick(rng, &["web", "app", "shop"]),
        ));
        for line in 1..=rng.random_range(1..=3) {
            self.order_items.push(format!(
                "({order}, {line}, 'SKU-{:05}', {}, {}, {}, NULL, {at})",
                rng.random_range(0..100_000),
                rng.random_range(1..10),
                money(rng),
                rng.random_range(0.01..20.0_f32),
            ));
        }
    }
}

fn pick<'a>(rng: &mut StdRng, from: &[&'a str]) -> &'a str {
    from[rng.random_range(0..from.len())]
}

pub fn money(rng: &mut StdRng) -> String {
    format!("{}.{:02}", rng.random_range(0..10_000), rng.random_range(0..100))
}

pub fn settings(rng: &mut StdRng) -> String {
    format!(
        "'{{\"theme\": \"{}\", \"limits\": [{}, {}.5], \"news\": {}, \"city\": \"Zürich\"}}'",
        pick(rng, &["dark", "light"]),
        rng.random_range(0..1_000_000_000_000_u64),
        rng.random_range(0..100),
        rng.random::<bool>(),
    )
}

fn moment(rng: &mut StdRng) -> String {
    format!(
        "'{LOADED_SINCE} {:02}:{:02}:{:02}.{:06}'",
        rng.random_range(0..24),
        rng.random_range(0..60),
        rng.random_range(0..60),
        rng.random_range(0..1_000_000)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_do_not_depend_on_batches() {
        let whole = Batch::generate(7, 1..=10);
        let halves = [Batch::generate(7, 1..=5), Batch::generate(7, 6..=10)];
        let users: Vec<String> = halves.iter().flat_map(|half| half.users.clone()).collect();
        let items: Vec<String> = halves.iter().flat_map(|half| half.order_items.clone()).collect();
        assert_eq!((whole.users, whole.order_items), (users, items));
        assert_ne!(Batch::generate(8, 1..=10).users, Batch::generate(7, 1..=10).users);
    }

    #[test]
    fn every_order_has_items_and_a_user() {
        let batch = Batch::generate(1, 1..=30);
        assert_eq!(batch.orders.len() as u64, (1..=30).map(orders_of).sum::<u64>());
        assert!(batch.order_items.len() >= batch.orders.len());
    }
}
