//! One process of `users-service`.

use std::time::Duration;

use anyhow::Result;
use crossfade_testkit::process::Process;
use crossfade_testkit::quiet::{Progress, until};
use crossfade_testkit::workload::Side;
use crossfade_tests::http::HttpClient;
use crossfade_tests::{Migration, Served, users_service};

use crate::stage::LIMIT;

/// How long a flag is used, and how long an instance that is not heard is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Ages {
    pub max_age: Duration,
    pub ttl: Duration,
}

/// As the service has them unless told otherwise.
pub const USUAL: Ages = Ages { max_age: Duration::from_secs(5), ttl: Duration::from_secs(10) };

pub struct Instance {
    pub name: String,
    pub address: String,
    pub process: Process,
}

impl Instance {
    pub async fn start(migration: &Migration, served: &Served, name: &str, ages: Ages) -> Result<Instance> {
        Instance::start_at(migration, served, name, ages, "127.0.0.1:0").await
    }

    /// Returns when it knows the flag.
    pub async fn start_at(
        migration: &Migration,
        served: &Served,
        name: &str,
        ages: Ages,
        listen: &str,
    ) -> Result<Instance> {
        let database = |side| format!("{}/{}", migration.url(side), migration.schema);
        let (old, new, flag) = (database(Side::Old), database(Side::New), format!("http://{}", served.address));
        let (max_age, ttl) = (format!("{}ms", ages.max_age.as_millis()), format!("{}ms", ages.ttl.as_millis()));
        // Passwords are for the environment: everybody sees a process's arguments.
        let environment = [("USERS_OLD_URL", old.as_str()), ("USERS_NEW_URL", &new), ("USERS_FLAG_URL", &flag)];
        let arguments = ["--instance", name, "--listen", listen, "--flag-max-age", &max_age, "--flag-ttl", &ttl];
        let log = migration.folder.join(format!("{name}.log.txt"));
        let process = Process::start(&users_service(), &arguments, &environment, &log)?;
        let address = until("an instance that knows the flag", LIMIT, || async {
            let told = std::fs::read_to_string(&log).unwrap_or_default();
            let address = told.rsplit_once("http://").and_then(|(_, rest)| rest.split_once(": "));
            let Some((address, _)) = address else { return Ok(Progress::NotYet(told)) };
            let answer = HttpClient::new(address).ask("GET", "/healthz", "").await?;
            let knows = answer.code == 200;
            Ok(if knows { Progress::Reached(address.to_owned()) } else { Progress::NotYet(answer.body) })
        })
        .await?;
        Ok(Instance { name: name.to_owned(), address, process })
    }
}
