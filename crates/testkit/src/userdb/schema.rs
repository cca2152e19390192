//! The tables of the users database.

use crate::sql;

/// `CREATE TABLE` statements, parents first.
pub fn statements(schema: &str) -> Vec<String> {
    let clock = "updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6)";
    let table = |name: &str| sql::full_name(schema, name);
    let users = table("users");
    let orders = table("orders");
    vec![
        format!(
            "CREATE TABLE {users} (
                id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
                email VARCHAR(190) NOT NULL,
                name VARCHAR(100) NOT NULL,
                status ENUM('invited', 'active', 'blocked') NOT NULL DEFAULT 'invited',
                balance DECIMAL(12, 2) NOT NULL DEFAULT 0,
                settings JSON NULL,
                created_at DATETIME(6) NOT NULL,
                {clock},
                UNIQUE KEY users_email (email)
            ) ENGINE = InnoDB"
        ),
        format!(
            "CREATE TABLE {} (
                user_id BIGINT UNSIGNED NOT NULL PRIMARY KEY,
                bio TEXT NULL,
                birthday DATE NULL,
                avatar VARBINARY(64) NULL,
                score DOUBLE NOT NULL DEFAULT 0,
                languages SET('de', 'en', 'es', 'fr', 'ja') NOT NULL DEFAULT '',
                {clock},
                CONSTRAINT profiles_user FOREIGN KEY (user_id) REFERENCES {users} (id)
            ) ENGINE = InnoDB",
            table("profiles")
        ),
        format!(
            "CREATE TABLE {} (
                id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
                user_id BIGINT UNSIGNED NOT NULL,
                kind ENUM('billing', 'shipping') NOT NULL,
                street VARCHAR(200) NOT NULL,
                city VARCHAR(100) CHARACTER SET latin1 NOT NULL,
                country CHAR(2) NOT NULL,
                {clock},
                CONSTRAINT addresses_user FOREIGN KEY (user_id) REFERENCES {users} (id)
            ) ENGINE = InnoDB",
            table("addresses")
        ),
        format!(
            "CREATE TABLE {orders} (
                id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
                user_id BIGINT UNSIGNED NOT NULL,
                number VARCHAR(40) NOT NULL,
                state ENUM('open', 'paid', 'shipped', 'cancelled') NOT NULL DEFAULT 'open',
                total DECIMAL(10, 2) NOT NULL,
                details JSON NULL,
                placed_at DATETIME(6) NOT NULL,
                {clock},
                UNIQUE KEY orders_number (number),
                CONSTRAINT orders_user FOREIGN KEY (user_id) REFERENCES {users} (id)
            ) ENGINE = InnoDB"
        ),
        format!(
            "CREATE TABLE {} (
                order_id BIGINT UNSIGNED NOT NULL,
                line SMALLINT UNSIGNED NOT NULL,
                sku VARCHAR(40) NOT NULL,
                quantity MEDIUMINT NOT NULL,
                price DECIMAL(10, 2) NOT NULL,
                weight FLOAT NULL,
                note VARCHAR(200) NULL,
                {clock},
                PRIMARY KEY (order_id, line),
                CONSTRAINT order_items_order FOREIGN KEY (order_id) REFERENCES {orders} (id)
            ) ENGINE = InnoDB",
            table("order_items")
        ),
    ]
}
