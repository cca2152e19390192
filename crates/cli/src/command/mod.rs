//! The commands, one module each.

pub mod check;
pub mod init;
pub mod messages;
pub mod status;
pub mod wish;

use std::io::{IsTerminal, Write};

use crossfade_config::{Endpoint, ServerUrl, Settings, TlsMode};
use crossfade_message::Store;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

/// The pair's store. Connects on first use.
pub fn open_store(settings: &Settings) -> anyhow::Result<Store> {
    Ok(Store::connect(&store_address(settings.store_url()), &settings.pair)?)
}

/// The URL as the store's driver reads it, password included: never to be printed.
fn store_address(url: &ServerUrl) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let mode = match url.tls_mode {
        TlsMode::Disabled => "DISABLED",
        TlsMode::Preferred => "PREFERRED",
        TlsMode::Required => "REQUIRED",
        TlsMode::VerifyCa => "VERIFY_CA",
        TlsMode::VerifyIdentity => "VERIFY_IDENTITY",
    };
    let mut query = format!("ssl-mode={mode}");
    if let Some(path) = &url.tls_ca {
        query.push_str(&format!("&ssl-ca={}", encoded(&path.to_string_lossy())));
    }
    let address = match &url.endpoint {
        Endpoint::Tcp { .. } => url.address(),
        Endpoint::Socket(path) => {
            query.push_str(&format!("&socket={}", encoded(&path.to_string_lossy())));
            "localhost".to_owned()
        }
    };
    format!("mysql://{}:{}@{address}/?{query}", encoded(&url.user), encoded(url.password.expose()))
}

/// Prints data as JSON to standard output.
pub fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value)?;
    writeln!(out)?;
    Ok(())
}

/// A table for people on standard output.
pub fn new_table(header: &[&str]) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    if std::io::stdout().is_terminal() {
        table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
    }
    table.set_header(header.to_vec());
    table
}
