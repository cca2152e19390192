//! A migration with a service in three instances, and its clients.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use crossfade_testkit::process::log_end;
use crossfade_testkit::quiet::{Progress, until};
use crossfade_tests::{Flavor, Migration, Served, Setup, json, says};
use serde_json::Value;

use crate::client::Clients;
use crate::instance::{Ages, Instance};
use crate::ledger::{Waits, rows};

pub const LIMIT: Duration = Duration::from_secs(60);

/// Far more than clients should wait, also on a machine that does much else.
const LONGEST_SILENCE: Duration = Duration::from_secs(5);

const CLIENTS: usize = 12;
/// Writes a second that all of them together ask for.
const RATE: f64 = 500.0;

/// As `examples/users-service/README.md` has it.
const USERS: &str = "CREATE TABLE {schema}.users (
    id         BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    email      VARCHAR(190)    NOT NULL,
    name       VARCHAR(100)    NOT NULL,
    updated_at TIMESTAMP(6)    NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
    UNIQUE KEY users_email (email)
)";

pub struct Stage {
    pub migration: Migration,
    pub served: Served,
    pub instances: Vec<Instance>,
    pub clients: Clients,
    flavor: Flavor,
    ages: Ages,
    began: Instant,
    rested: Cell<Duration>,
}

impl Stage {
    /// The phase is write_both, three instances follow the flag, and their clients write.
    pub async fn begin(flavor: Flavor, name: &'static str, ages: Ages) -> Result<Stage> {
        // How far a direction may be behind is not what this is about: a machine that does much else is late.
        let setup = Setup { settings: "[cutover]\nmax_lag = \"20s\"\n".to_owned(), ..Setup::new(flavor, name) };
        let mut migration = Migration::new(&setup).await?;
        migration.on_both(&[USERS]).await?;
        migration.init().await?;
        migration.start_both().await?;
        migration.crossfade(&["verify"]).await?;
        let served = Served::start(&migration).await?;
        let mut instances = Vec::new();
        for number in 1..=3 {
            instances.push(Instance::start(&migration, &served, &format!("web-{number}"), ages).await?);
        }
        migration.crossfade(&["flag", "set", "write_both"]).await?;
        let addresses: Vec<String> = instances.iter().map(|instance| instance.address.clone()).collect();
        let clients = Clients::start(&addresses, CLIENTS, RATE);
        let stage = Stage {
            migration,
            served,
            instances,
            clients,
            flavor,
            ages,
            began: Instant::now(),
            rested: Cell::default(),
        };
        stage.until_all_follow().await?;
        stage.writes_for_a_while(300).await?;
        Ok(stage)
    }

    pub async fn until_all_follow(&self) -> Result<()> {
        until("three instances that follow the flag", LIMIT, || async {
            let told = json(&self.migration, &["flag", "get", "--json"]).await?.1;
            let follow = |one: &Value| one["version"] == told["version"];
            let all = told["instances"].as_array().is_some_and(|all| all.len() == 3 && all.iter().all(follow));
            Ok(if all { Progress::Reached(()) } else { Progress::NotYet(told.to_string()) })
        })
        .await
    }

    /// Waits until so many more writes are acknowledged.
    pub async fn writes_for_a_while(&self, more: u64) -> Result<()> {
        let wanted = self.clients.ledger().acknowledged() + more;
        until("acknowledged writes", LIMIT, || async {
            self.clients.is_well()?;
            let now = self.clients.ledger().acknowledged();
            Ok(if now >= wanted { Progress::Reached(()) } else { Progress::NotYet(format!("{now} of {wanted}")) })
        })
        .await
        .with_context(|| self.log_ends())
    }

    /// What `cutover` or `rollback` reports, under load and with all gates open; and how long clients had to wait.
    pub async fn change(&self, command: &str) -> Result<(Value, Waits)> {
        let began = Instant::now();
        let (code, report) = json(&self.migration, &[command, "--json"]).await?;
        ensure!(code == Some(0) && report["state"] == "done", "{command}: {report:#}\n{}", self.migration.log_ends());
        self.writes_for_a_while(200).await?;
        let waits = self.clients.ledger().waits(began);
        println!(
            "{:?}: {command}: a pause of {} ms by the tool; clients: {} ms without an acknowledged write, {} ms for one write at most",
            self.flavor,
            report["pause_ms"],
            waits.silence.as_millis(),
            waits.write.as_millis()
        );
        Ok((report, waits))
    }

    /// As [`change`](Self::change), with a bound on what clients see.
    pub async fn change_quickly(&self, command: &str) -> Result<Value> {
        let (report, waits) = self.change(command).await?;
        ensure!(waits.silence < LONGEST_SILENCE, "clients waited: {waits:?}; {report:#}");
        Ok(report)
    }

    /// While clients rest: the side in charge has every write that was acknowledged, both sides are equal, and nothing but what
    /// clients have written was captured.
    pub async fn judge(&self) -> Result<()> {
        let rest = self.clients.rest().await.with_context(|| self.log_ends())?;
        let wrote_for = self.began.elapsed().saturating_sub(self.rested.get());
        let resting = Instant::now();
        let (status, _) = self.migration.until_quiet_and_equal(LIMIT).await?;
        let flag = json(&self.migration, &["flag", "get", "--json"]).await?.1;
        let in_charge = if flag["writes_to"] == "new" { &self.migration.new } else { &self.migration.old };
        let found = rows(in_charge, &self.migration.schema).await?;
        let ledger = self.clients.ledger();
        let kept = ledger.is_kept(&found)?;
        let captured = status.total("last_seq");
        let (acknowledged, unknown) = (ledger.acknowledged(), ledger.unknown);
        // Of writes whose outcome nobody knows, a later one may have hidden that an earlier one was committed.
        let is_exact = (acknowledged..=acknowledged + unknown).contains(&captured);
        ensure!(
            is_exact && captured >= acknowledged + kept,
            "{acknowledged} acknowledged, {kept} or more of {unknown} uncertain, {captured} captured: {}",
            status.0
        );
        ensure!(status.total("open_failures") == 0 && status.total("conflicts_lost") == 0, "{}", status.0);
        println!(
            "{:?}: phase {}: {acknowledged} acknowledged writes ({:.0}/s, pauses included), none lost, {captured} captured; {unknown} with an unknown \
             outcome, of which {kept} or more are there; {} told to try again, {} reads of what was just written",
            self.flavor,
            flag["phase"],
            acknowledged as f64 / wrote_for.as_secs_f64(),
            ledger.not_now,
            ledger.reads
        );
        drop(ledger);
        self.rested.set(self.rested.get() + resting.elapsed());
        drop(rest);
        Ok(())
    }

    pub async fn restart_instance(&mut self, number: usize) -> Result<()> {
        let Instance { name, address, .. } = &self.instances[number];
        let again = Instance::start_at(&self.migration, &self.served, name, self.ages, address).await?;
        self.instances[number] = again;
        self.until_all_follow().await
    }

    pub async fn restart_serve(&mut self) -> Result<()> {
        let address = self.served.address.clone();
        self.served = Served::start_at(&self.migration, &address).await?;
        Ok(())
    }

    /// Clients stop, and every process ends when it is asked to; instances take themselves off the list.
    pub async fn end(mut self) -> Result<()> {
        self.end_service().await?;
        self.migration.stop_both().await
    }

    /// As [`end`](Self::end), where both directions have ended by themselves.
    pub async fn end_without_sync(mut self) -> Result<()> {
        self.end_service().await?;
        self.migration.forget();
        Ok(())
    }

    async fn end_service(&mut self) -> Result<()> {
        let rest = self.clients.rest().await?;
        for instance in &mut self.instances {
            instance.process.terminate()?;
        }
        for instance in &mut self.instances {
            let status = instance.process.wait(LIMIT).await?;
            ensure!(status.success(), "{} ended with {status}: {}", instance.name, instance.process.log_end());
        }
        says(&self.migration, &["flag", "get"], 0, &["no instance of an application is registered"]).await?;
        self.served.process.terminate()?;
        ensure!(self.served.process.wait(LIMIT).await?.success(), "serve did not end well");
        drop(rest);
        Ok(())
    }

    pub fn log_ends(&self) -> String {
        let of = |instance: &Instance| format!("{}:\n{}", instance.name, log_end(instance.process.log(), 5));
        let instances: Vec<String> = self.instances.iter().map(of).collect();
        format!("{}\n{}", self.migration.log_ends(), instances.join("\n"))
    }
}
