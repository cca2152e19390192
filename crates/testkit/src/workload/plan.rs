//! Plans one transaction after the other.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::owned::{User, Users};
use super::{Mix, Settings};
use crate::sql;
use crate::userdb::UserDb;

/// Lines of a hot order that both sides insert, update and delete.
const HOT_LINES: u32 = 6;

/// A transaction as text, and what it makes of the users it touches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    pub statements: Vec<String>,
    pub commits: bool,
    /// It changes rows of the hot set.
    pub hot: bool,
    /// The touched users before it.
    pub before: Users,
    /// The touched users after it; one without an id gets that of `new_user_statement`.
    pub after: Users,
    /// The statement whose generated id is the new user's.
    pub new_user_statement: Option<usize>,
}

#[derive(Debug)]
pub struct Planner {
    rng: StdRng,
    schema: String,
    mix: Mix,
    hot_users: u64,
    hot_orders: Vec<u64>,
    pub users: Users,
    /// Part of generated unique values: side, run and writer.
    tag: String,
    counter: u64,
}

impl Planner {
    pub fn new(settings: &Settings, number: u64) -> Planner {
        let seed = settings.seed.wrapping_mul(1_000_003) ^ (settings.side.number() << 32) ^ number;
        Planner {
            rng: StdRng::seed_from_u64(seed),
            schema: settings.schema.clone(),
            mix: settings.mix,
            hot_users: settings.hot_users,
            hot_orders: (1..=settings.hot_users).flat_map(UserDb::order_ids).collect(),
            users: Users::share(settings, number),
            tag: format!("{}{}-{number}", settings.side.letter(), settings.run),
            counter: 0,
        }
    }

    pub fn next(&mut self) -> Transaction {
        self.counter += 1;
        let mut transaction = match self.draw() {
            0 => self.hot_user(),
            1 => self.hot_item(),
            2 => self.update(),
            3 => self.new_user(),
            4 => self.new_order(),
            5 => self.email_swap(),
            6 => self.delete_or_return(),
            _ => self.renumber(),
        }
        // Every user of the kind may be gone for now: hot ones never are.
        .unwrap_or_else(|| self.update_hot_user());
        self.maybe_roll_back(&mut transaction);
        transaction
    }

    fn draw(&mut self) -> usize {
        let weights = self.mix.weights();
        let mut ticket = self.rng.random_range(0..weights.iter().sum::<u32>().max(1));
        for (kind, weight) in weights.into_iter().enumerate() {
            if ticket < weight {
                return kind;
            }
            ticket -= weight;
        }
        0
    }

    fn table(&self, name: &str) -> String {
        sql::full_name(&self.schema, name)
    }

    fn money(&mut self) -> String {
        format!("{}.{:02}", self.rng.random_range(0..10_000), self.rng.random_range(0..100))
    }

    /// Different for every transaction, so that no update writes what is there already.
    fn mark(&self) -> String {
        format!("{}/{}", self.tag, self.counter)
    }

    fn hot_user(&mut self) -> Option<Transaction> {
        Some(if self.rng.random_ratio(2, 3) { self.update_hot_user() } else { self.hot_profile() })
    }

    fn update_hot_user(&mut self) -> Transaction {
        let user = self.rng.random_range(1..=self.hot_users);
        let (table, money, mark) = (self.table("users"), self.money(), self.mark());
        let change = match self.rng.random_range(0..3) {
            0 => format!("name = {}", sql::text(&format!("Hot Ü {mark}"))),
            1 => {
                format!("name = '{mark}', balance = {money}, status = ELT(1 + id % 3, 'active', 'blocked', 'invited')")
            }
            _ => format!("settings = '{{\"mark\": \"{mark}\", \"paid\": {money}}}', balance = -{money}"),
        };
        Transaction::hot(vec![format!("UPDATE {table} SET {change} WHERE id = {user}")])
    }

    fn hot_profile(&mut self) -> Transaction {
        let user = self.rng.random_range(1..=self.hot_users);
        let (table, mark, score) = (self.table("profiles"), self.mark(), self.rng.random::<f64>());
        Transaction::hot(vec![match self.rng.random_range(0..4) {
            0 => format!("DELETE FROM {table} WHERE user_id = {user}"),
            1 => {
                format!("INSERT INTO {table} (user_id, bio, score, languages) VALUES ({user}, '{mark}', {score}, 'ja')")
            }
            _ => format!("UPDATE {table} SET bio = '{mark}', score = {score} WHERE user_id = {user}"),
        }])
    }

    fn hot_item(&mut self) -> Option<Transaction> {
        let order = *self.hot_orders.choose(&mut self.rng)?;
        let line = self.rng.random_range(1..=HOT_LINES);
        let (table, money, mark) = (self.table("order_items"), self.money(), self.mark());
        let row = format!("order_id = {order} AND line = {line}");
        let insert = format!(
            "INSERT INTO {table} (order_id, line, sku, quantity, price, note) \
             VALUES ({order}, {line}, 'HOT', {line}, {money}, '{mark}')"
        );
        Some(Transaction::hot(match self.rng.random_range(0..8) {
            0 | 1 => vec![format!("DELETE FROM {table} WHERE {row}")],
            2 | 3 => vec![insert],
            // Gone and back inside one transaction.
            4 => vec![format!("DELETE FROM {table} WHERE {row}"), insert],
            _ => vec![format!("UPDATE {table} SET note = '{mark}', quantity = -quantity WHERE {row}")],
        }))
    }

    fn update(&mut self) -> Option<Transaction> {
        let user = self.users.take_living(&mut self.rng)?;
        let id = user.id?;
        let (money, mark) = (self.money(), self.mark());
        let statement = match self.rng.random_range(0..4) {
            0 => format!("UPDATE {} SET balance = {money}, name = '{mark}' WHERE id = {id}", self.table("users")),
            1 => format!("UPDATE {} SET bio = '{mark}', birthday = NULL WHERE user_id = {id}", self.table("profiles")),
            2 => {
                format!("UPDATE {} SET street = '{mark}', city = 'Köln' WHERE user_id = {id}", self.table("addresses"))
            }
            _ => format!("UPDATE {} SET total = {money}, state = 'paid' WHERE user_id = {id}", self.table("orders")),
        };
        let same = Users { living: vec![user], dead: Vec::new() };
        Some(Transaction::owned(vec![statement], same.clone(), same))
    }

    fn new_user(&mut self) -> Option<Transaction> {
        let user = User { id: None, email: format!("{}@example.org", self.mark()) };
        let mut statements = self.birth(&user);
        statements.insert(1, "SET @crossfade_user = LAST_INSERT_ID()".to_owned());
        let after = Users { living: vec![user], dead: Vec::new() };
        Some(Transaction { new_user_statement: Some(0), ..Transaction::owned(statements, Users::default(), after) })
    }

    /// Inserts of a user with profile and address. Without an id, the rest refers to `@crossfade_user`.
    fn birth(&mut self, user: &User) -> Vec<String> {
        let mark = self.mark();
        let (id, reference) = match user.id {
            Some(id) => (id.to_string(), id.to_string()),
            None => ("NULL".to_owned(), "@crossfade_user".to_owned()),
        };
        vec![
            format!(
                "INSERT INTO {} (id, email, name, status, balance, created_at) \
                 VALUES ({id}, '{}', '{mark}', 'active', {}, UTC_TIMESTAMP(6))",
                self.table("users"),
                user.email,
                self.money()
            ),
            format!(
                "INSERT INTO {} (user_id, bio, languages) VALUES ({reference}, '', 'de,fr')",
                self.table("profiles")
            ),
            format!(
                "INSERT INTO {} (user_id, kind, street, city, country) \
                 VALUES ({reference}, 'billing', '{mark}', 'Évora', 'PT'), ({reference}, 'shipping', '', 'Malmö', 'SE')",
                self.table("addresses")
            ),
        ]
    }

    fn new_order(&mut self) -> Option<Transaction> {
        // Hot users stay, so both sides may give them orders.
        let hot = self.rng.random_ratio(1, 3);
        let owner = if hot { None } else { Some(self.users.take_living(&mut self.rng)?) };
        let id = match &owner {
            Some(user) => user.id?,
            None => self.rng.random_range(1..=self.hot_users),
        };
        let (mark, total) = (self.mark(), self.money());
        let items: Vec<String> = (1..=self.rng.random_range(1..=4))
            .map(|line| format!("(LAST_INSERT_ID(), {line}, 'NEW', {line}, {}, {line}.1)", self.money()))
            .collect();
        let statements = vec![
            format!(
                "INSERT INTO {} (user_id, number, total, details, placed_at) \
                 VALUES ({id}, '{mark}', {total}, JSON_OBJECT('by', '{mark}'), UTC_TIMESTAMP(6))",
                self.table("orders")
            ),
            format!(
                "INSERT INTO {} (order_id, line, sku, quantity, price, weight) VALUES {}",
                self.table("order_items"),
                items.join(", ")
            ),
        ];
        let same = Users { living: owner.into_iter().collect(), dead: Vec::new() };
        Some(Transaction::owned(statements, same.clone(), same))
    }

    fn email_swap(&mut self) -> Option<Transaction> {
        let first = self.users.take_living(&mut self.rng)?;
        let Some(second) = self.users.take_living(&mut self.rng) else {
            self.users.living.push(first);
            return None;
        };
        let table = self.table("users");
        let set = |id: u64, email: &str| format!("UPDATE {table} SET email = '{email}' WHERE id = {id}");
        let (one, two) = (first.id?, second.id?);
        let statements =
            vec![set(one, &format!("{}@example.net", self.mark())), set(two, &first.email), set(one, &second.email)];
        let after = vec![
            User { id: first.id, email: second.email.clone() },
            User { id: second.id, email: first.email.clone() },
        ];
        Some(Transaction::owned(
            statements,
            Users { living: vec![first, second], dead: Vec::new() },
            Users { living: after, dead: Vec::new() },
        ))
    }

    fn delete_or_return(&mut self) -> Option<Transaction> {
        match self.rng.random_range(0..3) {
            0 => {
                let user = self.users.take_dead(&mut self.rng)?;
                let statements = self.birth(&user);
                let before = Users { living: Vec::new(), dead: vec![user.clone()] };
                Some(Transaction::owned(statements, before, Users { living: vec![user], dead: Vec::new() }))
            }
            1 => self.hand_on(),
            _ => {
                let user = self.users.take_living(&mut self.rng)?;
                let statements = self.death(user.id?);
                let before = Users { living: vec![user.clone()], dead: Vec::new() };
                Some(Transaction::owned(statements, before, Users { living: Vec::new(), dead: vec![user] }))
            }
        }
    }

    /// A user goes and a new one takes its e-mail address, in one transaction.
    fn hand_on(&mut self) -> Option<Transaction> {
        let user = self.users.take_living(&mut self.rng)?;
        let mut statements = self.death(user.id?);
        let heir = User { id: None, email: user.email.clone() };
        let birth = statements.len();
        statements.extend(self.birth(&heir));
        statements.insert(birth + 1, "SET @crossfade_user = LAST_INSERT_ID()".to_owned());
        let before = Users { living: vec![user], dead: Vec::new() };
        let after = Users { living: vec![heir], dead: Vec::new() };
        Some(Transaction { new_user_statement: Some(birth), ..Transaction::owned(statements, before, after) })
    }

    fn death(&self, id: u64) -> Vec<String> {
        // A join, since MariaDB before 11.1 reads the whole table for a delete with a subquery.
        let (items, orders) = (self.table("order_items"), self.table("orders"));
        vec![
            format!(
                "DELETE FROM {items} USING {items} JOIN {orders} ON {orders}.id = {items}.order_id \
                 WHERE {orders}.user_id = {id}"
            ),
            format!("DELETE FROM {orders} WHERE user_id = {id}"),
            format!("DELETE FROM {} WHERE user_id = {id}", self.table("addresses")),
            format!("DELETE FROM {} WHERE user_id = {id}", self.table("profiles")),
            format!("DELETE FROM {} WHERE id = {id}", self.table("users")),
        ]
    }

    fn renumber(&mut self) -> Option<Transaction> {
        let user = self.users.take_living(&mut self.rng)?;
        let (items, orders) = (self.table("order_items"), self.table("orders"));
        let statement = format!(
            "UPDATE {items} JOIN {orders} ON {orders}.id = {items}.order_id \
             SET {items}.line = IF({items}.line > 1000, {items}.line - 1000, {items}.line + 1000) \
             WHERE {orders}.user_id = {}",
            user.id?
        );
        let same = Users { living: vec![user], dead: Vec::new() };
        Some(Transaction::owned(vec![statement], same.clone(), same))
    }

    fn maybe_roll_back(&mut self, transaction: &mut Transaction) {
        let percent = self.mix.rollback_percent;
        match self.rng.random_range(0..100) {
            ticket if ticket < percent => {
                transaction.commits = false;
                transaction.after = transaction.before.clone();
            }
            ticket if ticket < percent * 2 => {
                let hot = self.update_hot_user();
                transaction.statements.push("SAVEPOINT halfway".to_owned());
                transaction.statements.extend(hot.statements);
                transaction.statements.push("ROLLBACK TO SAVEPOINT halfway".to_owned());
            }
            _ => {}
        }
    }
}

impl Transaction {
    fn hot(statements: Vec<String>) -> Transaction {
        Transaction { hot: true, ..Transaction::owned(statements, Users::default(), Users::default()) }
    }

    fn owned(statements: Vec<String>, before: Users, after: Users) -> Transaction {
        Transaction { statements, commits: true, hot: false, before, after, new_user_statement: None }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Side;
    use super::*;

    fn planned(seed: u64) -> Vec<Transaction> {
        let settings = Settings { seed, ..Settings::new("app", Side::Old, 200) };
        let mut planner = Planner::new(&settings, 0);
        (0..300)
            .map(|_| {
                let transaction = planner.next();
                let mut after = transaction.after.clone();
                after.living.iter_mut().for_each(|user| user.id = user.id.or(Some(9_000)));
                planner.users.put_back(after);
                transaction
            })
            .collect()
    }

    #[test]
    fn the_seed_decides() {
        assert_eq!(planned(1), planned(1));
        assert_ne!(planned(1), planned(2));
    }

    #[test]
    fn every_kind_of_transaction_is_planned() {
        let all = planned(3);
        assert!(all.iter().any(|t| !t.commits) && all.iter().any(|t| t.hot));
        assert!(all.iter().any(|t| t.new_user_statement == Some(0)));
        assert!(all.iter().any(|t| t.new_user_statement.is_some_and(|at| at > 0)), "an e-mail address is handed on");
        assert!(all.iter().any(|t| t.before.living.len() == 2 && t.after.living.len() == 2));
        assert!(all.iter().any(|t| t.before.dead.len() == 1 && t.after.living.len() == 1));
    }
}
