-- Run once by each server of docker-compose.yml: the account that crossfade uses, and a table to play with.

CREATE USER 'sync'@'%' IDENTIFIED BY 'sync-password';
GRANT REPLICATION SLAVE, REPLICATION CLIENT, XA_RECOVER_ADMIN ON *.* TO 'sync'@'%';
GRANT ALL PRIVILEGES ON crossfade.* TO 'sync'@'%';

CREATE DATABASE IF NOT EXISTS app CHARACTER SET utf8mb4;
GRANT SELECT, INSERT, UPDATE, DELETE, TRIGGER ON app.* TO 'sync'@'%';

CREATE TABLE app.users (
    id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    email VARCHAR(190) NOT NULL,
    name VARCHAR(100) NOT NULL,
    updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
    UNIQUE KEY users_email (email)
) ENGINE = InnoDB;
