//! The users that one writer owns: nobody else changes them or what hangs on them.

use rand::Rng;
use rand::rngs::StdRng;

use super::Settings;
use crate::userdb::UserDb;

/// A user as its owner knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// `None` until the server has given one.
    pub id: Option<u64>,
    pub email: String,
}

/// A planned transaction takes the users it touches out, and puts them back changed when it is committed, unchanged when it
/// is rolled back, and not at all when nobody knows.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Users {
    pub living: Vec<User>,
    /// Deleted; they may come back under their old id.
    pub dead: Vec<User>,
}

impl Users {
    /// The share of the loaded users that belongs to writer `number` of `settings.side`.
    pub fn share(settings: &Settings, number: u64) -> Users {
        let owners = settings.writers * 2;
        let mine = settings.side.number() * settings.writers + number;
        let living = (settings.hot_users + 1..=settings.users)
            .filter(|id| id % owners == mine)
            .map(|id| User { id: Some(id), email: UserDb::email(id) })
            .collect();
        Users { living, dead: Vec::new() }
    }

    pub fn take_living(&mut self, rng: &mut StdRng) -> Option<User> {
        take(&mut self.living, rng)
    }

    pub fn take_dead(&mut self, rng: &mut StdRng) -> Option<User> {
        take(&mut self.dead, rng)
    }

    pub fn put_back(&mut self, users: Users) {
        self.living.extend(users.living);
        self.dead.extend(users.dead);
    }
}

fn take(from: &mut Vec<User>, rng: &mut StdRng) -> Option<User> {
    (!from.is_empty()).then(|| from.swap_remove(rng.random_range(0..from.len())))
}

#[cfg(test)]
mod tests {
    use super::super::Side;
    use super::*;

    #[test]
    fn every_cold_user_has_exactly_one_owner() {
        let mut seen = Vec::new();
        for side in [Side::Old, Side::New] {
            let settings = Settings { writers: 3, hot_users: 5, ..Settings::new("s", side, 100) };
            for number in 0..3 {
                seen.extend(Users::share(&settings, number).living.iter().filter_map(|user| user.id));
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, (6..=100).collect::<Vec<_>>());
    }
}
