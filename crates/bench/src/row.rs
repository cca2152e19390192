//! The table that most workloads write, and the rows they write.

use rand::Rng;
use rand::rngs::StdRng;

/// What all other columns of a row take in its image, about; the note fills the rest.
const FIXED_BYTES: usize = 8 + 5 + 1 + 4 + 8 + 8;

pub const TABLE: &str = "CREATE TABLE bench.account (
        id BIGINT UNSIGNED NOT NULL PRIMARY KEY,
        email VARCHAR(100) NOT NULL,
        name VARCHAR(80) NOT NULL,
        balance DECIMAL(12,2) NOT NULL,
        status ENUM('active','dormant','blocked') NOT NULL,
        profile JSON,
        note VARCHAR(400),
        version INT UNSIGNED NOT NULL DEFAULT 0,
        created_at DATETIME(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
        updated_at DATETIME(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
        UNIQUE KEY email (email)
     ) ENGINE=InnoDB";

/// Two numbers that are those of the source only when every change is there.
pub const PROGRESS: &str =
    "SELECT CAST(COUNT(*) AS UNSIGNED), CAST(COALESCE(SUM(version), 0) AS UNSIGNED) FROM bench.account";

/// One text for the contents of the table, every column of every row in it.
pub const CHECKSUM: &str = "SELECT CONCAT(COUNT(*), ' rows, sums ', \
     COALESCE(SUM(CRC32(CONCAT_WS('|', id, email, name, balance, status, IFNULL(profile, 'NULL'), IFNULL(note, 'NULL')))), 0), ' and ', \
     COALESCE(SUM(CRC32(CONCAT_WS('|', id, version, created_at, updated_at))), 0)) FROM bench.account";

pub const INSERT: &str =
    "INSERT INTO bench.account (id, email, name, balance, status, profile, note, created_at, updated_at) VALUES ";

/// `(…)` of one row, whose image is about `row_bytes` long. Equal ids, seeds and sizes give equal rows.
pub fn values(id: u64, row_bytes: usize, random: &mut StdRng) -> String {
    let number: u32 = random.random();
    let email = format!("user.{id}.{:04x}@mail{}.example", number & 0xffff, number % 97);
    let name = format!("{} {}", FIRST[number as usize % FIRST.len()], LAST[(number >> 8) as usize % LAST.len()]);
    let profile = format!(
        r#"{{"city": "{}", "tags": ["t{}", "t{}"], "score": {}, "newsletter": {}}}"#,
        CITIES[(number >> 16) as usize % CITIES.len()],
        number % 50,
        number % 77,
        number % 10_000,
        number.is_multiple_of(3)
    );
    let used = FIXED_BYTES + email.len() + name.len() + profile.len();
    let note: String = (used..row_bytes).map(|_| char::from(random.random_range(b'a'..=b'z'))).collect();
    let status = ["active", "dormant", "blocked"][number as usize % 3];
    format!(
        "({id},'{email}','{name}',{}.{:02},'{status}','{profile}','{note}','2026-01-01','2026-01-01')",
        number % 100_000,
        number % 100
    )
}

const FIRST: [&str; 8] = ["Ada", "Grace", "Alan", "Edsger", "Barbara", "Donald", "Radia", "Tony"];
const LAST: [&str; 8] = ["Ahlberg", "Bianchi", "Chowdhury", "Dubois", "Eriksen", "Fischer", "Gruber", "Haddad"];
const CITIES: [&str; 6] = ["Lisbon", "Graz", "Tampere", "Leuven", "Gdansk", "Trieste"];

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn rows_are_as_long_as_asked_and_the_same_again() {
        let row = |id| values(id, 250, &mut StdRng::seed_from_u64(7));
        assert_eq!(row(12), row(12));
        assert_ne!(row(12), row(13));
        // The text has commas, quotes and dates beside the contents.
        let lengths: Vec<usize> = (1..200).map(|id| row(id * 1_000).len()).collect();
        assert!(lengths.iter().all(|length| (240..320).contains(length)), "{lengths:?}");
    }
}
